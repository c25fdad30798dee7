"""Tasks of a batch: as many as it needs, and none that a later one has overtaken."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from congressy_mailer import outbox, send_bulk, tasks
from congressy_mailer.broker import sending
from congressy_mailer.delivery.slice import Delivery
from congressy_mailer.exceptions import (
    TransportUnavailable,
)
from congressy_mailer.models import Batch
from congressy_mailer.submission import batch_writer
from tests.support.bulk import people_with_context
from tests.support.mails import queue_batch

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.usefixtures("published")]


@pytest.fixture
def tasks_of_batches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Generation and starts_others of the tasks that are published for batches."""
    sent: list[tuple[int, bool]] = []

    def send(task: str, *arguments: Any, **options: Any) -> bool:
        if task == sending.DELIVER_BATCH:
            sent.append(arguments[1:])
        return True

    monkeypatch.setattr("congressy_mailer.broker.sending.send", send)
    return sent


def test_a_task_that_waits_long_in_the_queue_works_unless_a_later_one_has_begun() -> None:
    batch = queue_batch(3)
    assert outbox.concurrency(batch.pk, batch.generation, lambda using: 10) == 1
    Batch.objects.update(due_at=timezone.now() - timedelta(seconds=1))
    assert outbox.claim_due_batches() == [(batch.pk, batch.generation + 1)]
    # Whoever sweeps at the same time finds nothing.
    assert outbox.claim_due_batches() == []
    assert outbox.heartbeat(batch.pk, batch.generation)
    assert outbox.concurrency(batch.pk, batch.generation, lambda using: 10) == 1
    assert outbox.heartbeat(batch.pk, batch.generation + 1)
    assert outbox.concurrency(batch.pk, batch.generation, lambda using: 10) == 0
    assert not outbox.heartbeat(batch.pk, batch.generation)


def test_the_more_tasks_of_a_batch_wait_in_the_queue_the_rarer_are_further_ones() -> None:
    batch = queue_batch(3)
    pauses = []
    for _ in range(9):
        Batch.objects.update(due_at=timezone.now() - timedelta(seconds=1))
        assert len(outbox.claim_due_batches()) == 1
        due_at = Batch.objects.get().due_at
        assert due_at is not None
        pauses.append(round((due_at - timezone.now()).total_seconds() / 60))
    assert pauses == [2, 4, 8, 16, 32, 32, 32, 32, 32]
    assert outbox.heartbeat(batch.pk, Batch.objects.get().generation)
    Batch.objects.update(due_at=timezone.now() - timedelta(seconds=1))
    outbox.claim_due_batches()
    due_at = Batch.objects.get().due_at
    assert due_at is not None
    assert due_at - timezone.now() < timedelta(minutes=1)


def test_as_many_tasks_work_at_a_batch_as_it_needs() -> None:
    batch = queue_batch(250)
    assert outbox.concurrency(batch.pk, batch.generation, lambda using: 100) == 3
    assert outbox.concurrency(batch.pk, batch.generation, lambda using: 10) == outbox.MAX_CONCURRENCY


def test_the_storer_does_not_publish_a_generation_that_is_over(
    tasks_of_batches: list[tuple[int, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_writer, "_CHUNK", 10)
    monkeypatch.setattr(batch_writer, "_PUBLISH_INTERVAL", 0.0)

    def some() -> Iterator[Any]:
        yield from people_with_context(11)
        # The first ten are stored; the broker has lost their task, and a sweep begins another generation.
        Batch.objects.update(due_at=timezone.now() - timedelta(seconds=1))
        outbox.claim_due_batches()
        tasks_of_batches.clear()
        yield from people_with_context(39, first=11)

    batch = send_bulk(some(), template="mail/hello", subject="x", on_invalid="skip")
    for generation, _ in tasks_of_batches:
        outbox.heartbeat(batch.pk, generation)
    current = [generation for generation, _ in tasks_of_batches if outbox.heartbeat(batch.pk, generation)]
    assert current == [batch.generation]


def test_no_more_tasks_work_at_a_batch_than_there_may_be(
    tasks_of_batches: list[tuple[int, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_writer, "_PUBLISH_INTERVAL", 0.0)
    batch = queue_batch(5000, on_invalid="skip")
    # Each begins when its turn comes, and ends those before it.
    for generation, _ in tasks_of_batches:
        assert outbox.heartbeat(batch.pk, generation)
    at_work = [
        starts_others for generation, starts_others in tasks_of_batches if outbox.heartbeat(batch.pk, generation)
    ]
    # One, which sees to the others.
    assert at_work == [True]
    tasks_of_batches.clear()

    def unavailable(*arguments: Any) -> None:
        raise TransportUnavailable("away")

    monkeypatch.setattr(Delivery, "run_batch", unavailable)
    tasks.deliver_batch.push_request(retries=1, called_directly=True)
    with pytest.raises(TransportUnavailable):
        tasks.deliver_batch.run(str(batch.pk), batch.generation, True)
    tasks.deliver_batch.pop_request()
    assert tasks_of_batches == []
