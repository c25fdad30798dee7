"""django-mailer: an outbox in the database, emptied by a loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from ..mails import SENDER, Mail
from .base import System, empty


class DjangoMailer(System):
    name = "django-mailer"
    apps = ("mailer",)
    configuration = (
        "on PostgreSQL as many `runmailer_pg` as there are processes, told of new mail by the database, without the "
        "file lock; on SQLite one `runmailer`, since rows cannot be locked there, which looks every 0.1 s in place of "
        "30; many mails by its mail backend's `send_messages()`; urgent mail with priority `high`"
    )

    def settings(self, vendor: str, connections: int) -> Mapping[str, Any]:
        return {
            "EMAIL_BACKEND": "mailer.backend.DbBackend",
            "MAILER_EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
            "MAILER_USE_FILE_LOCK": False,
            "MAILER_EMPTY_QUEUE_SLEEP": 30 if vendor == "postgresql" else 0.1,
        }

    def workers(self, vendor: str, processes: int) -> list[list[str]]:
        if vendor == "postgresql":
            return [["-m", "django", "runmailer_pg"]] * processes
        return [["-m", "django", "runmailer"]]

    def send(self, mail: Mail) -> None:
        from mailer import send_html_mail

        subject, text, html = mail.render()
        send_html_mail(subject, text, html, SENDER, [mail.address])

    def send_many(self, mails: Iterable[Mail]) -> None:
        from django.core.mail import get_connection

        connection = get_connection()
        remaining = iter(mails)
        while part := [mail.django_message() for mail in islice(remaining, 1000)]:
            connection.send_messages(part)

    def send_urgent(self, mail: Mail) -> None:
        from mailer import send_html_mail
        from mailer.models import PRIORITY_HIGH

        subject, text, html = mail.render()
        send_html_mail(subject, text, html, SENDER, [mail.address], priority=PRIORITY_HIGH)

    def clear(self) -> None:
        from mailer.models import Message, MessageLog

        empty(MessageLog, Message)


system = DjangoMailer()
