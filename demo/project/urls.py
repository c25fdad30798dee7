"""Addresses of the site."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("inbox/", include("demo.inbox.urls")),
    path("mailer/", include("congressy_mailer.urls")),
    path("", include("demo.events.urls")),
]
