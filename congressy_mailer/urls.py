"""What the host includes: ``path("mailer/", include("congressy_mailer.urls"))``."""

from __future__ import annotations

from django.urls import path

from .unsubscribing.views import unsubscribe

app_name = "congressy_mailer"
urlpatterns = [
    path("unsubscribe/<str:token>/", unsubscribe, name="unsubscribe"),
]
