"""Mail that a test hands over to a transport by itself, and transports to a test's server."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

from django.test import override_settings
from django.utils import timezone

from congressy_mailer.delivery.composing import compose
from congressy_mailer.mime.outgoing import OutgoingMail
from congressy_mailer.mime.writer import MailContent
from congressy_mailer.models import Message
from congressy_mailer.replies import Outcome
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from congressy_mailer.transports.base import ComposedMail
from congressy_mailer.transports.django_backend import DjangoTransport
from congressy_mailer.transports.host_backends import open_backend
from congressy_mailer.transports.selection import transport_for
from congressy_mailer.transports.smtp.transport import SmtpTransport

SMTP = "django.core.mail.backends.smtp.EmailBackend"


def outgoing(*recipients: str, text: str = "Texto\n.\n..dois", key: UUID | None = None) -> OutgoingMail:
    """A mail as a backend gets it, to Ana where nobody is named; its ``Message-ID`` has its key."""
    now = timezone.now()
    message = Message(
        from_email="Congressy <mail@congressy.net>",
        to=list(recipients or ["ana@example.com"]),
        message_id=f"<{key or uuid4()}@x>",
        created_at=now,
        queued_at=now,
    )
    return compose(message, MailContent("Olá", text, ""), [])


def composed(*recipients: str, text: str = "Texto\n.\n..dois") -> ComposedMail:
    """The same as a transport gets it."""
    key = uuid4()
    return ComposedMail(key, outgoing(*recipients, text=text, key=key))


def hand_over(*mails: ComposedMail) -> list[Outcome]:
    """What becomes of mails that the transport of the alias ``sparkpost`` gets."""
    with transport_for("sparkpost") as transport:
        return list(transport.deliver(mails))


def hand_over_by_django(*mails: OutgoingMail, backend: Any = None) -> list[Outcome]:
    """What becomes of mails that a backend of Django's kind gets, the default one where none is given."""
    transport = DjangoTransport(backend or open_backend(""))
    try:
        return list(transport.deliver([ComposedMail(uuid4(), mail) for mail in mails]))
    finally:
        transport.close()


def sparkpost_at(server: LocalSparkPost, port: int | None = None) -> Any:
    """Settings whose alias ``sparkpost`` stands for a server, reached by its own port or another."""
    options = {
        "host": "localhost",
        "port": port or server.port,
        "username": server.user,
        "password": server.password,
        "use_tls": True,
        "timeout": 20,
    }
    return override_settings(CONGRESSY_MAILER={"TRANSPORTS": {"sparkpost": {"BACKEND": SMTP, "OPTIONS": options}}})


@contextmanager
def transport_to(port: int, *, buffers: int = 0) -> Iterator[SmtpTransport]:
    """A transport to a server without TLS and login; so many bytes fit into its first connection, 0: as usual."""
    options = {"host": "127.0.0.1", "port": port, "username": "", "password": "", "use_tls": False, "timeout": 5}
    with override_settings(CONGRESSY_MAILER={"TRANSPORTS": {"plain": {"BACKEND": SMTP, "OPTIONS": options}}}):
        backend: Any = open_backend("plain")
    transport = SmtpTransport(backend)
    if buffers:
        backend.open()
        backend.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
        backend.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
    try:
        yield transport
    finally:
        transport.close()
