"""The Django application: registers the checks and, where Celery runs, the tasks and the worker's periodic tasks."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _


class CongressyMailerConfig(AppConfig):
    name = "congressy_mailer"
    verbose_name = _("E-mail")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Importing registers them; a worker that never calls autodiscover_tasks() has our tasks all the same.
        from . import checks, tasks, worker  # noqa: F401
        from .conf.project import remember_project
        from .models import actions

        remember_project()
        actions.register(_Actions())
        post_migrate.connect(_create_installation, sender=self)


def _create_installation(using: str, apps: Any = None, **options: Any) -> None:
    """The one row is there before callers need it, who would wait for each other's transactions to create it."""
    from . import outbox

    # ``flush`` tells of no models. Where migrations were taken back there is no table.
    is_migrated = apps is None or any(model.__name__ == "Installation" for model in apps.get_models())
    if using == outbox.database() and is_migrated:
        outbox.current_installation()


class _Actions:
    """The functions behind the methods of the models. Their modules are loaded by the first call."""

    def cancel(self, message: Any) -> bool:
        from . import mail

        return bool(mail.cancel(message))

    def retry(self, message: Any) -> None:
        from . import mail

        mail.retry(message)

    def resend(self, message: Any) -> None:
        from . import mail

        mail.resend(message)

    def progress(self, batch: Any) -> Any:
        from . import bulk

        return bulk.progress(batch)

    def cancel_batch(self, batch: Any) -> int:
        from . import bulk

        return int(bulk.cancel(batch))
