"""Addresses of the inbox."""

from django.urls import path

from . import views

urlpatterns = [
    path("", views.inbox, name="inbox"),
    path("<int:number>/", views.letter, name="letter"),
    path("<int:number>/anexo/<int:file>/", views.attachment, name="attachment"),
    path("<int:number>/original/", views.source, name="source"),
]
