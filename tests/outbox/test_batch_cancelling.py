"""Cancelling a batch: what waits is taken back, also what others hold, store or queue again meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.utils import timezone

from congressy_mailer import outbox, send_bulk
from congressy_mailer.models import Batch, Message, State
from congressy_mailer.outbox import batch_stopping
from congressy_mailer.replies import Outcome, Reply
from congressy_mailer.submission import batch_writer
from congressy_mailer.submission.recipients import RecipientParser
from tests.conftest import run_concurrently
from tests.support.bulk import people_with_context
from tests.support.mails import queue_batch

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.usefixtures("published")]


def test_cancelling_takes_back_what_has_not_been_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_stopping, "_CHUNK", 10)
    batch = queue_batch(50)
    held = outbox.claim_from_batch(batch, "task:1", 5)
    assert batch.cancel() == 45
    assert batch.progress().states == {State.SENDING: 5, State.CANCELLED: 45}
    # What a worker has in hand goes on; what it puts back is taken back, too.
    outbox.record_accepted("task:1", [(held[0], Reply(250, "OK"))])
    outbox.release("task:1", held[1:])
    assert batch.progress().states == {State.SENT: 1, State.CANCELLED: 49}
    assert batch.progress().done
    assert not outbox.heartbeat(batch.pk, batch.generation)


def test_a_batch_that_is_cancelled_while_it_is_stored_ends_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_writer, "_CHUNK", 10)

    def some() -> Iterator[Any]:
        yield from people_with_context(15)
        Batch.objects.get().cancel()
        yield from people_with_context(15, first=15)

    batch = send_bulk(some(), template="mail/hello", subject="x", on_invalid="skip")
    assert batch.cancelled_at is not None
    assert batch.progress().states == {State.CANCELLED: 10}


def refuse_for_now(key: UUID) -> None:
    (message,) = outbox.claim([key], "t")
    said = Reply(451, "greylisted")
    outbox.record("t", message, Outcome(key, deferred={message.to[0]: said}, reply=said))


@pytest.mark.parametrize("end", ["cancelled", "expired"])
def test_what_a_person_queues_again_has_left_its_batch(end: str) -> None:
    batch = queue_batch(3, expires_at=timezone.now() + timedelta(hours=1))
    if end == "cancelled":
        batch.cancel()
    else:
        past = timezone.now() - timedelta(seconds=1)
        Batch.objects.update(expires_at=past, due_at=past)
        Message.objects.update(expires_at=past)
        ((_, generation),) = outbox.claim_due_batches()
        assert not outbox.heartbeat(batch.pk, generation)
        assert Batch.objects.get().due_at is None
    for message in batch.messages.all():
        message.retry()
    first, second, _ = batch.messages.order_by("id")
    refuse_for_now(first.pk)
    outbox.release("t2", outbox.claim([second.pk], "t2"), timezone.now())
    assert outbox.claim_due_batches() == []
    assert batch.progress().states == {State.DEFERRED: 1, State.QUEUED: 2}
    assert not outbox.claim_from_batch(batch, "t3", 10)
    Message.objects.update(due_at=timezone.now() - timedelta(seconds=1))
    assert len(outbox.sweep(timezone.now())) == 3


def test_a_sensitive_batch_that_was_cancelled_while_it_was_stored_says_nothing_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch_writer, "_CHUNK", 10)

    def some() -> Iterator[Any]:
        yield from people_with_context(15)
        Batch.objects.get().cancel()
        yield from people_with_context(15, first=15)

    send_bulk(some(), template="mail/hello", context={"x": 1}, subject="x", on_invalid="skip", sensitive=True)
    for _ in range(2):
        outbox.purge()
    assert Batch.objects.get().context is None


@pytest.mark.parametrize("meanwhile", ["claimed", "stored"])
def test_cancelling_sees_what_others_have_done_since_the_transaction_began(
    meanwhile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = queue_batch(10)

    def elsewhere(_: int) -> None:
        if meanwhile == "claimed":
            outbox.claim_from_batch(batch, "t", 5)
        else:
            outbox.add_to_batch(batch, [RecipientParser(batch).parse("eva@example.com")[0]])

    if connection.vendor == "mysql":
        # Otherwise Django asks for READ COMMITTED, and each query sees what there is.
        connection.close()
        monkeypatch.setattr(connection, "isolation_level", "repeatable read")
    if connection.vendor == "sqlite":
        # Which has one writer: whatever others do, they have done before.
        run_concurrently(elsewhere, 1)
    try:
        with transaction.atomic():
            assert Message.objects.count() >= 10
            if connection.vendor != "sqlite":
                run_concurrently(elsewhere, 1)
            assert batch.cancel() == (5 if meanwhile == "claimed" else 11)
            assert not batch.messages.select_for_update().filter(state=State.QUEUED).exists()
    finally:
        connection.close()


def test_a_cancelled_batch_sends_nothing_that_a_dead_worker_held_or_that_was_in_doubt() -> None:
    batch = queue_batch(3)
    first, second, third = outbox.claim_from_batch(batch, "t", 10)
    # The first had a crash before, and waits for a task of its own.
    Message.objects.filter(pk=first.pk).update(state=State.QUEUED, token="", crashes=1)
    assert batch.cancel() == 1
    doubtful = Outcome(
        second.pk, deferred={second.to[0]: Reply(0, "silence")}, reply=Reply(0, "silence"), in_doubt=True
    )
    assert outbox.record("t", second, doubtful) is None
    Message.objects.filter(pk=third.pk).update(due_at=timezone.now() - timedelta(seconds=1))
    assert outbox.sweep(timezone.now()) == []
    assert batch.progress().states == {State.CANCELLED: 3}
    # Where the worker did not see the cancellation, its batch is looked at once more.
    Message.objects.filter(pk=third.pk).update(state=State.QUEUED, due_at=None, crashes=0)
    Batch.objects.update(due_at=timezone.now() - timedelta(seconds=1))
    ((_, generation),) = outbox.claim_due_batches()
    assert not outbox.heartbeat(batch.pk, generation)
    assert batch.progress().states == {State.CANCELLED: 3}
    assert Batch.objects.get().due_at is None
