"""Mail that django-post_office has queued: rendered as it would have been sent, with its attachments."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from django.conf import settings
from django.core.mail import EmailMessage
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext as _

from ..models import Priority
from ..submission.arguments import clean_alias
from ..transports.redirecting import configured_redirect
from .queue import ImportRefused, NotImported, Queue, Taken, model_of, rows_of

_APP, _PACKAGE = "post_office", "django-post_office"
# Of its Email.status.
_WAITING = (2, 3)
_PRIORITIES = {0: Priority.LOW, 1: Priority.NORMAL, 2: Priority.HIGH, 3: Priority.HIGH}


class PostOfficeQueue(Queue):
    """Its table of mails, those with the status *queued* or *requeued*. One that leaves the queue has no status."""

    package, app = _PACKAGE, _APP

    def rows(self) -> models.QuerySet[Any]:
        waiting = rows_of(model_of(_APP, "Email", _PACKAGE)).filter(status__in=_WAITING)
        return waiting.order_by("-priority", "pk")

    def describe(self, row: Any) -> str:
        return _("mail %(id)s to %(to)s") % {"id": row.pk, "to": ", ".join([*row.to, *row.cc, *row.bcc]) or "-"}

    def read(self, row: Any) -> Taken:
        if row.expires_at is not None and row.expires_at <= timezone.now():
            raise NotImported("it has expired")
        return Taken(
            mail=_mail(row),
            key=f"post-office:{row.pk}:{row.created.isoformat()}",
            priority=_PRIORITIES.get(row.priority, Priority.NORMAL),
            using=clean_alias(None if row.backend_alias == "default" else row.backend_alias),
            send_at=row.scheduled_time,
            expires_at=row.expires_at,
        )

    def take_out(self, row: Any) -> bool:
        return bool(self.rows().filter(pk=row.pk).order_by().update(status=None))

    @contextmanager
    def locked(self) -> Iterator[None]:
        module: Any = import_module("post_office.lockfile")
        try:
            with module.FileLock(module.default_lockfile):
                yield
        except module.FileLocked:
            raise ImportRefused(
                "django-post_office is sending now: stop its cron job, or the Celery worker that has its task."
            ) from None

    def check(self) -> None:
        super().check()
        # Mail that only test addresses may get goes on doing so.
        configured = getattr(settings, "POST_OFFICE", {}).get("OVERRIDE_RECIPIENTS")
        if configured and configured_redirect() is None:
            raise ImportRefused(
                "POST_OFFICE['OVERRIDE_RECIPIENTS'] keeps mail from its real recipients. Give the same addresses in "
                f'CONGRESSY_MAILER: "REDIRECT": {{"to": {list(configured)!r}}}.'
            )


def _mail(row: Any) -> EmailMessage:
    """The mail as the package prepares it, to its real recipients: REDIRECT decides who gets it."""
    to = list(row.to)
    mail: EmailMessage = row.prepare_email_message()
    # The package has put OVERRIDE_RECIPIENTS in their place.
    mail.to = row.to = to
    if row.expires_at is not None and "Expires" not in (row.headers or {}):
        # Written without its year.
        del mail.extra_headers["Expires"]
    return mail
