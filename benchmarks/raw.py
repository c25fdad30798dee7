"""What can be had of one connection at all: bytes that are ready, sent with nothing else to do."""

from __future__ import annotations

import smtplib
import ssl
import time
from typing import Any

_ENVELOPE = b"MAIL FROM:<mail@congressy.net>\r\nRCPT TO:<pessoa1@example.com>\r\nDATA\r\n"


def over_socket(content: bytes, count: int) -> float:
    """Mails per second where one write carries a content and the next envelope (RFC 2920), over a bare socket.

    Args:
        content: a mail.
        count: how many; the first and the last are where the time is taken.
    """
    connection = _connect()
    sock: Any = connection.sock
    wire = content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n").replace(b"\r\n.", b"\r\n..") + b"\r\n.\r\n"
    replies = sock.makefile("rb")
    times = []
    sock.sendall(_ENVELOPE)
    for number in range(count):
        for expected in (b"250", b"250", b"354"):
            _expect(replies, expected)
        sock.sendall(wire + (_ENVELOPE if number < count - 1 else b""))
        _expect(replies, b"250")
        times.append(time.monotonic())
    connection.close()
    return (count - 1) / (times[-1] - times[0])


def over_smtplib(content: bytes, count: int) -> float:
    """Mails per second where ``smtplib`` sends over one connection that stays open."""
    connection = _connect()
    times = []
    for _ in range(count):
        connection.sendmail("mail@congressy.net", ["pessoa1@example.com"], content)
        times.append(time.monotonic())
    connection.close()
    return (count - 1) / (times[-1] - times[0])


def _connect() -> smtplib.SMTP:
    from django.conf import settings as given

    settings: Any = given
    connection = smtplib.SMTP(settings.EMAIL_HOST, settings.EMAIL_PORT, timeout=60)
    if settings.EMAIL_HOST_PASSWORD:
        connection.starttls(context=ssl.create_default_context())
        connection.login(settings.EMAIL_HOST_USER, settings.EMAIL_HOST_PASSWORD)
    else:
        connection.ehlo()
    return connection


def _expect(replies: Any, code: bytes) -> None:
    line = replies.readline()
    if not line.startswith(code + b" "):
        raise RuntimeError(f"The server said {line!r} where {code.decode()} was expected.")
