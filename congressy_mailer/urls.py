"""What the host includes: ``path("mailer/", include("congressy_mailer.urls"))``."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver

app_name = "congressy_mailer"
urlpatterns: list[URLPattern | URLResolver] = []
