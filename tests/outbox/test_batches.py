"""Messages of a batch: claimed in the order of their urgency, put back, due again, expired."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from django.utils import timezone

from congressy_mailer import Priority, outbox
from congressy_mailer.models import Batch, Message, State
from congressy_mailer.replies import Outcome, Reply
from tests.conftest import run_concurrently
from tests.support.bulk import LOCMEM
from tests.support.mails import queue_batch

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.usefixtures("published")]


def test_claims_of_a_batch_share_it_and_never_hold_the_same_message() -> None:
    batch = queue_batch(200)

    def claim(worker: int) -> list[UUID]:
        mine: list[UUID] = []
        while taken := outbox.claim_from_batch(batch, f"task:{worker}:{len(mine)}", 9):
            mine += [message.pk for message in taken]
        return mine

    taken = [key for keys in run_concurrently(claim, 4) for key in keys]
    assert len(taken) == len(set(taken)) == 200


def test_what_is_more_urgent_leaves_first() -> None:
    batch = queue_batch(3)
    keys = list(batch.messages.order_by("id").values_list("pk", flat=True))
    Message.objects.filter(pk=keys[2]).update(priority=Priority.HIGH)
    assert [message.pk for message in outbox.claim_from_batch(batch, "t", 2)] == [keys[2], keys[0]]


def test_a_batch_waits_for_its_time() -> None:
    batch = queue_batch(3, send_at=timezone.now() + timedelta(hours=1))
    assert batch.progress().states == {State.SCHEDULED: 3}
    assert not outbox.claim_from_batch(batch, "t", 10)
    assert outbox.claim_due_batches() == []
    past = timezone.now() - timedelta(seconds=1)
    Batch.objects.update(send_at=past, due_at=past)
    Message.objects.update(send_at=past)
    assert outbox.claim_due_batches() == [(batch.pk, batch.generation + 1)]
    assert len(outbox.claim_from_batch(batch, "t", 10)) == 3
    assert not Message.objects.filter(queued_at=None).exists()


@pytest.mark.email_settings
@LOCMEM
def test_a_batch_that_comes_too_late_expires() -> None:
    batch = queue_batch(3, expires_at=timezone.now() + timedelta(hours=1))
    past = timezone.now() - timedelta(seconds=1)
    Batch.objects.update(expires_at=past)
    Message.objects.update(expires_at=past)
    assert not outbox.heartbeat(batch.pk, batch.generation)
    assert batch.progress().states == {State.EXPIRED: 3}


def test_a_batch_is_looked_at_again_when_what_was_refused_is_due() -> None:
    batch = queue_batch(2)
    first, second = outbox.claim_from_batch(batch, "t", 10)
    refused = Outcome(first.pk, deferred={first.to[0]: Reply(451, "greylisted")}, reply=Reply(451, "greylisted"))
    assert outbox.record("t", first, refused) is None
    outbox.record_accepted("t", [(second, Reply(250, "OK"))])
    assert not outbox.reschedule_batch(batch.pk, batch.generation)
    batch.refresh_from_db()
    first.refresh_from_db()
    assert batch.due_at == first.due_at is not None
    # The batch's tasks see to it, and no task of its own.
    past = timezone.now() - timedelta(seconds=1)
    Message.objects.filter(pk=first.pk).update(due_at=past)
    assert outbox.sweep(timezone.now()) == []
    assert [message.pk for message in outbox.claim_from_batch(batch, "t2", 10)] == [first.pk]
    outbox.record_accepted("t2", [(first, Reply(250, "OK"))])
    assert not outbox.reschedule_batch(batch.pk, batch.generation)
    batch.refresh_from_db()
    assert batch.due_at is None


def test_what_is_put_back_is_looked_at_again_also_where_nobody_watches() -> None:
    batch = queue_batch(2)
    held = outbox.claim_from_batch(batch, "t", 10)
    assert not outbox.reschedule_batch(batch.pk, batch.generation)
    # As long as something of it is open: were a caller to hold its row, nobody could make it due then.
    assert Batch.objects.get().due_at is not None
    outbox.release("t", held)
    assert Batch.objects.get().due_at is not None
    assert outbox.reschedule_batch(batch.pk, batch.generation)


def test_what_its_worker_died_of_is_left_to_a_task_of_its_own() -> None:
    batch = queue_batch(2)
    first, _ = outbox.claim_from_batch(batch, "t", 10)
    Message.objects.update(due_at=timezone.now() - timedelta(seconds=1))
    assert set(outbox.sweep(timezone.now())) == set(batch.messages.values_list("pk", flat=True))
    assert not outbox.claim_from_batch(batch, "t", 10)
    assert [message.pk for message in outbox.claim([first.pk], "t")] == [first.pk]


@pytest.mark.parametrize("token", ["t", "of another claim"])
def test_acceptances_are_written_down_together_also_where_the_claim_is_gone(token: str) -> None:
    batch = queue_batch(3)
    held = outbox.claim_from_batch(batch, "t", 3)
    outbox.release("t", held[2:])
    replies = [(message, Reply(250, f"2.0.0 queued as {number}")) for number, message in enumerate(held)]
    outbox.record_accepted(token, replies)
    found = list(batch.messages.order_by("id").values_list("state", "reply", "attempts"))
    # Nobody who has the mail gets it once more.
    assert found == [(State.SENT, f"250 2.0.0 queued as {number}", 1) for number in range(3)]
