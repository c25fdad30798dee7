"""The mail to operators about what fails: at most one an hour, and over a mail backend that does not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.utils import timezone, translation

from congressy_mailer import pause, periodic, send_mail, signals, tasks
from congressy_mailer.delivery.failure_summary import send_failure_summary
from congressy_mailer.metrics.counters import FAILED, HELD
from congressy_mailer.models import CountSample, Message, State, TransportStatus
from congressy_mailer.testing import deliver_all
from testbed.processes import free_port
from tests.support.mails import queue, stored
from tests.support.scripted_smtp import ScriptedServer

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.usefixtures("published")]

SMTP = "django.core.mail.backends.smtp.EmailBackend"


@pytest.fixture(autouse=True)
def operators(settings: Any) -> Iterator[None]:
    settings.LANGUAGE_CODE = "en"
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "FAILURE_SUMMARY_TO": ["ops@example.com"]}
    with translation.override("pt-br"):
        yield


def counted(**counts: int) -> None:
    minute = timezone.now().replace(second=0, microsecond=0)
    CountSample.objects.create(minute=minute, counts=[["", "mailer", 5, name, count] for name, count in counts.items()])


def unavailable(using: str = "") -> None:
    now = timezone.now()
    TransportStatus.objects.create(
        using=using, unavailable_since=now, next_try_at=now + timedelta(minutes=1), reason="Connection refused"
    )


def an_hour_passes() -> None:
    periodic.mark_run(periodic.FAILURE_SUMMARY, timezone.now() - timedelta(minutes=61))


def other_backend(settings: Any, port: int) -> None:
    """A second mail backend, which is a real server."""
    backend = {
        "BACKEND": SMTP,
        "OPTIONS": {"host": "localhost", "port": port, "username": "", "password": "", "use_tls": False},
    }
    if hasattr(settings, "MAILERS"):
        settings.MAILERS = {**settings.MAILERS, "other": backend}
    else:
        settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "TRANSPORTS": {"other": backend}}


def test_it_tells_how_much_failed_and_names_nobody() -> None:
    counted(**{FAILED: 3, HELD: 1})
    send_failure_summary()
    (summary,) = mail.outbox
    assert summary.to == ["ops@example.com"]
    assert summary.subject.endswith("Mail fails")
    assert summary.body.splitlines() == [
        "- 3 messages failed within the last hour.",
        "- 1 message was set aside (held) within the last hour, and waits for a person.",
        "",
        "See manage.py mailer status and doctor. Mail that waits is not lost.",
    ]
    assert not Message.objects.exists()


def test_at_most_one_an_hour_by_the_sweep() -> None:
    counted(**{FAILED: 3})
    for _ in range(3):
        tasks.sweep(time.time())
    assert len(mail.outbox) == 1
    an_hour_passes()
    tasks.sweep(time.time())
    assert len(mail.outbox) == 2


def test_none_while_nothing_fails() -> None:
    counted(accepted=100)
    send_failure_summary()
    assert mail.outbox == []
    # And the next failure is told at once.
    counted(**{FAILED: 1})
    send_failure_summary()
    assert len(mail.outbox) == 1


def test_nobody_is_told_who_is_not_named(settings: Any) -> None:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "FAILURE_SUMMARY_TO": []}
    counted(**{FAILED: 1})
    send_failure_summary()
    assert mail.outbox == []


def test_not_over_the_backend_that_fails(settings: Any) -> None:
    send_mail("x", "y", to="ana@example.com")
    unavailable()
    server = ScriptedServer()
    try:
        other_backend(settings, server.port)
        send_failure_summary()
    finally:
        server.close()
    assert mail.outbox == []
    (received,) = server.received
    assert received.recipients == ("ops@example.com",)
    assert b"The mail backend default is unavailable since " in received.content


def test_nor_over_one_that_is_paused(settings: Any) -> None:
    counted(**{FAILED: 1})
    pause(using="default")
    send_failure_summary()
    assert mail.outbox == []


def test_one_that_refuses_is_passed_over_and_no_error_ends_the_sweep(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    send_mail("x", "y", to="ana@example.com")
    unavailable()
    other_backend(settings, free_port())
    tasks.sweep(time.time())
    assert "No mail backend takes the summary of failures" in caplog.text
    last = periodic.last_run(periodic.FAILURE_SUMMARY)
    assert last is not None
    # It is tried again in five minutes.
    assert timedelta(minutes=50) < timezone.now() - last < timedelta(minutes=60)


@pytest.mark.parametrize("name", ["sent", "deferred", "failed", "held", "queued"])
def test_a_receiver_that_fails_stops_no_delivery(name: str) -> None:
    def receiver(**arguments: Any) -> None:
        raise RuntimeError("a receiver of the host's")

    signal = getattr(signals, name)
    signal.connect(receiver)
    try:
        messages = stored(queue(2))
        deliver_all()
    finally:
        signal.disconnect(receiver)
    for message in messages:
        message.refresh_from_db()
        assert message.state == State.SENT


def test_each_signal_is_documented() -> None:
    from django.dispatch import Signal

    names = [name for name, value in vars(signals).items() if isinstance(value, Signal)]
    assert names
    assert [name for name in names if f".. data:: {name}\n" not in (signals.__doc__ or "")] == []
