"""What the host includes: ``path("mailer/", include("congressy_mailer.urls"))``."""

from __future__ import annotations

from django.urls import path

from .monitoring.views import health, metrics
from .tracking.webhook import receive
from .unsubscribe.views import unsubscribe

app_name = "congressy_mailer"
urlpatterns = [
    path("sparkpost/events/", receive, name="sparkpost-events"),
    # SparkPost follows no redirect.
    path("sparkpost/events", receive),
    path("health/", health, name="health"),
    path("metrics/", metrics, name="metrics"),
    path("unsubscribe/<str:token>/", unsubscribe, name="unsubscribe"),
]
