"""A mail server that is there or not, and what is known of it."""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar

import pytest
from django.core.mail.backends.base import BaseEmailBackend
from django.utils import timezone

from congressy_mailer.mime.addresses import domain_of
from congressy_mailer.models import TransportStatus

HOME = "congressy.net"
#: Other workers leave a try alone for this long.
TRY_TIME = timedelta(seconds=90)


class Server(BaseEmailBackend):
    """A mail server that is there or not, as SparkPost's would be: one for all connections of a test."""

    #: Why nobody can connect; empty: everybody can.
    away: ClassVar[str] = ""
    #: Domains that are not set up in the account.
    unconfigured: ClassVar[set[str]] = set()
    #: Runs whenever somebody connects.
    at_open: ClassVar[Callable[[], object]] = staticmethod(lambda: None)
    opened: ClassVar[int] = 0
    subjects: ClassVar[list[str]] = []

    def open(self) -> None:
        type(self).opened += 1
        type(self).at_open()
        if self.away:
            raise ConnectionRefusedError(111, self.away)

    def send_messages(self, email_messages: Sequence[Any]) -> int:
        for mail in email_messages:
            domain = domain_of(mail.from_email)
            if domain in self.unconfigured:
                raise smtplib.SMTPDataError(550, f"5.7.1 Unconfigured Sending Domain <{domain}>".encode())
            if "nobody" in mail.to[0]:
                raise smtplib.SMTPRecipientsRefused({mail.to[0]: (550, b"5.1.1 no such user")})
            if "hangs-up" in mail.to[0]:
                raise smtplib.SMTPServerDisconnected("Connection unexpectedly closed")
            self.subjects.append(mail.subject)
        return len(email_messages)


class Other(Server):
    """The server of another alias."""

    subjects: ClassVar[list[str]] = []


class Clock:
    """The time that the mailer sees: it can be put forward."""

    def __init__(self) -> None:
        self._ahead = timedelta(0)
        self._now = timezone.now

    def now(self) -> datetime:
        return self._now() + self._ahead

    def forward(self, **span: float) -> None:
        self._ahead += timedelta(**span)


def status(sender_domain: str = "", using: str = "") -> TransportStatus:
    """What is known of a backend that cannot be used."""
    return TransportStatus.objects.get(sender_domain=sender_domain, using=using)


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Levels and lines of the log."""
    return [
        (record.levelname, record.getMessage())
        for record in caplog.records
        if record.name == "congressy_mailer.availability"
    ]


def put_forward_to_the_next_try(clock: Clock, **of: str) -> None:
    """Let the time pass until a backend is tried again."""
    clock.forward(seconds=max(0.0, (status(**of).next_try_at - timezone.now()).total_seconds()) + 0.001)
