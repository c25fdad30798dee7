"""django-post_office: an outbox in the database, emptied by one process at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from ..mails import SENDER, TEMPLATE, TEMPLATES, Mail
from .base import System, empty


class PostOffice(System):
    name = "django-post_office"
    apps = ("post_office",)
    configuration = (
        "with Celery (`CELERY_ENABLED`), `BATCH_SIZE` 1000, `LOG_LEVEL` 1; the template is stored in the database and "
        "rendered by the worker (`render_on_delivery`); many mails by `send_many()`; urgent mail with priority `high`"
    )

    def settings(self, vendor: str, connections: int) -> Mapping[str, Any]:
        return {
            "POST_OFFICE": {
                "BACKENDS": {"default": "django.core.mail.backends.smtp.EmailBackend"},
                "CELERY_ENABLED": True,
                "BATCH_SIZE": 1000,
                "THREADS_PER_PROCESS": connections,
                # Failures only.
                "LOG_LEVEL": 1,
            },
            "EMAIL_BACKEND": "post_office.EmailBackend",
        }

    def prepare(self) -> None:
        from post_office.models import EmailTemplate

        parts = {"content": ".txt", "html_content": ".html", "subject": "_subject.txt"}
        found = {name: Path(TEMPLATES, TEMPLATE + ending).read_text().strip() for name, ending in parts.items()}
        EmailTemplate.objects.update_or_create(name=TEMPLATE, defaults=found)

    def send(self, mail: Mail) -> None:
        from post_office import mail as post_office

        post_office.send(**self._arguments(mail))

    def send_many(self, mails: Iterable[Mail]) -> None:
        from post_office import mail as post_office

        remaining = iter(mails)
        while part := [self._arguments(mail) for mail in islice(remaining, 1000)]:
            post_office.send_many(part)

    def send_urgent(self, mail: Mail) -> None:
        from post_office import mail as post_office

        post_office.send(priority="high", **self._arguments(mail))

    def _arguments(self, mail: Mail) -> dict[str, Any]:
        return {
            "recipients": [mail.address],
            "sender": SENDER,
            "template": TEMPLATE,
            "context": mail.context,
            "render_on_delivery": True,
        }

    def clear(self) -> None:
        from post_office.lockfile import default_lockfile
        from post_office.models import Email, Log

        # A worker that was killed leaves its lock behind.
        Path(f"{default_lockfile}.lock").unlink(missing_ok=True)
        empty(Log, Email)


system = PostOffice()
