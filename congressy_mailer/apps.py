"""The Django application: registers the checks and, where Celery runs, the tasks and the worker's periodic tasks."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class CongressyMailerConfig(AppConfig):
    name = "congressy_mailer"
    verbose_name = _("E-mail")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Importing registers them; a worker that never calls autodiscover_tasks() has our tasks all the same.
        from . import bulk, checks, mail, tasks, worker  # noqa: F401
        from .models import actions

        actions.register(_Actions(mail, bulk))


class _Actions:
    """The functions, looked up at each call."""

    def __init__(self, mail: Any, bulk: Any) -> None:
        self._mail, self._bulk = mail, bulk

    def cancel(self, message: Any) -> bool:
        return bool(self._mail.cancel(message))

    def retry(self, message: Any) -> None:
        self._mail.retry(message)

    def resend(self, message: Any) -> None:
        self._mail.resend(message)

    def progress(self, batch: Any) -> Any:
        return self._bulk.progress(batch)

    def cancel_batch(self, batch: Any) -> int:
        return int(self._bulk.cancel(batch))
