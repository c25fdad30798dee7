"""The Django application: registers the checks and, where Celery runs, the tasks and the worker's duties."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class CongressyMailerConfig(AppConfig):
    name = "congressy_mailer"
    verbose_name = _("E-mail")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Importing registers them; a worker that never calls autodiscover_tasks() has our tasks all the same.
        from . import checks, tasks, worker  # noqa: F401
