"""Telling workers of mail: whatever happens to it, the caller hears nothing of it, and the mail leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
from django import db
from django.db import connection, transaction
from django.utils import timezone

from congressy_mailer import outbox, send_bulk, send_mail
from congressy_mailer.delivery import runs, sending_rate
from congressy_mailer.models import Batch, Message, State, clock
from congressy_mailer.outbox import publishing
from congressy_mailer.testing.local_sparkpost.replies import Exchange, Stage
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from congressy_mailer.tracking import inbox
from testbed.processes import Process
from tests.conftest import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database]


class _Refused(Exception):
    """Of a library that a host has wrapped around its connections."""


HOSTILE = [
    db.InterfaceError("gone"), db.OperationalError("gone"), db.InternalError("gone"), db.ProgrammingError("gone"),
    _Refused(), RuntimeError("cannot schedule new futures"), OSError(5, "I/O"), KeyError("alias"),
]  # fmt: skip


@pytest.mark.parametrize("error", HOSTILE, ids=lambda error: type(error).__name__)
def test_publishing_raises_nothing_whatever_the_database_does_when_the_broker_is_away(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr("congressy_mailer.broker.sending.send", lambda *arguments, **options: False)
    key = send_mail("x", "y", to="ana@example.com").pk

    def broken(*args: Any) -> Any:
        raise error

    with connection.execute_wrapper(broken):
        assert not publishing.publish([key])
        assert not publishing.publish_batch(key, 1)
        assert not inbox.publish_webhooks([(key, timezone.now())])


def test_publishing_raises_nothing_over_a_connection_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("congressy_mailer.broker.sending.send", lambda *arguments, **options: False)
    key = send_mail("x", "y", to="ana@example.com").pk
    connection.ensure_connection()
    # Behind Django's back, as a server or a pooler does.
    connection.connection.close()
    assert not publishing.publish([key])
    assert not publishing.publish_batch(key, 1)
    with suppress(db.Error):
        connection.close()


#: From the call to a commit that no sweep takes for lost, and much less than ``LOST_AFTER``.
SOON = timedelta(seconds=6)


class _OfTheHost(Exception):
    pass


@contextmanager
def a_hook_that_raises() -> Iterator[None]:
    """A transaction of the host's after which Django calls its hook, and none of those behind it."""

    def fail() -> None:
        raise _OfTheHost

    with pytest.raises(_OfTheHost), transaction.atomic():
        transaction.on_commit(fail)
        yield


@contextmanager
def time_passes(how_long: timedelta, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    now = clock.now
    with monkeypatch.context() as patch:
        patch.setattr(clock, "now", lambda: now() + how_long)
        yield


def test_a_hook_of_the_hosts_that_raises_makes_mail_wait_for_seconds(
    published: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with a_hook_that_raises():
        message = send_mail("x", "y", to="ana@example.com")
    assert published == []
    # Within the time that publishing takes nothing is lost.
    assert outbox.sweep(clock.now()) == []
    with time_passes(SOON, monkeypatch):
        assert outbox.sweep(clock.now()) == [message.pk]
        # It is on its way now.
        assert outbox.sweep(clock.now()) == []


def test_the_same_holds_for_mail_that_is_sent_again(published: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    message = send_mail("x", "y", to="ana@example.com")
    Message.objects.update(state=State.FAILED, due_at=None)
    published.clear()
    with a_hook_that_raises():
        message.retry()
    assert published == []
    with time_passes(SOON, monkeypatch):
        assert outbox.sweep(clock.now()) == [message.pk]


def test_the_same_holds_for_a_batch(published: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with a_hook_that_raises():
        batch = send_bulk(["ana@example.com"], subject="x", message="y")
    assert published == []
    assert outbox.claim_due_batches() == []
    with time_passes(SOON, monkeypatch):
        assert outbox.claim_due_batches() == [(batch.pk, 2)]
        assert outbox.claim_due_batches() == []


def test_a_batch_whose_task_waits_in_the_queue_is_not_published_again_for_a_minute(
    published: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    send_bulk(["ana@example.com"], subject="x", message="y")
    assert published == ["deliver_batch"]
    with time_passes(timedelta(seconds=55), monkeypatch):
        assert outbox.claim_due_batches() == []


def test_a_batch_that_cannot_be_published_is_due_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("congressy_mailer.broker.sending.send", lambda *arguments, **options: False)
    batch = send_bulk(["ana@example.com"], subject="x", message="y")
    assert outbox.claim_due_batches() == [(batch.pk, 2)]


def test_a_batch_whose_row_a_caller_holds_is_published_all_the_same(published: list[str]) -> None:
    batch = send_bulk(["ana@example.com"], subject="x", message="y")
    due_at = Batch.objects.values_list("due_at", flat=True)
    before = due_at.get()

    def broken(*args: Any) -> Any:
        raise db.OperationalError("locked")

    with connection.execute_wrapper(broken):
        publishing.publish_batch_on_commit(batch.pk, 2)
    assert published == ["deliver_batch"] * 2
    assert due_at.get() == before


def test_what_a_task_leaves_to_others_is_not_taken_for_lost(
    published: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with transaction.atomic():
        keys = [send_mail("x", "y", to=f"r{number}@example.com").pk for number in range(8)]
    monkeypatch.setattr(sending_rate, "fitting_claim", lambda using, seconds: 2)
    assert runs.share_out(keys) == keys[:2]
    with time_passes(SOON, monkeypatch):
        # A sweep that has waited in the queue before them.
        assert set(outbox.sweep(clock.now())) == set(keys[:2])


@pytest.mark.broker
def test_mail_in_a_long_queue_is_published_once(
    start_worker: Callable[..., Process], smtp_server: LocalSparkPost
) -> None:
    async def slow(exchange: Exchange) -> None:
        if exchange.stage is Stage.CONTENT:
            await asyncio.sleep(0.2)

    smtp_server.script = slow
    worker = start_worker("-c", "1", MAILER_TEST_SWEEP_INTERVAL_SECONDS="1")
    for number in range(50):
        send_mail("x", "y", to=f"r{number}@example.com")
    batches = [send_bulk([f"b{number}@example.com"], subject="x", message="y") for number in range(10)]
    wait_for(lambda: Message.objects.filter(state=State.SENT).count() == 60, 120, "all mail")
    wait_for(lambda: all(batch.progress().done for batch in batches), 60, "the ends of the batches")
    assert "congressy_mailer.sweep" in worker.output()
    assert "published again" not in worker.output()
