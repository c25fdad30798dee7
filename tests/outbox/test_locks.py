"""Workers wait for nobody: rows that a host's open transaction holds are passed over, and found again later."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import connection, connections
from django.utils import timezone

from congressy_mailer import outbox, send_bulk, send_mail
from congressy_mailer.models import Batch, Message, State, WebhookBatch
from congressy_mailer.outbox.publishing import publish_batch
from congressy_mailer.replies import Outcome, Reply
from congressy_mailer.tracking import inbox
from tests.conftest import wait_for
from tests.support.held_rows import held_by_a_host
from tests.support.mails import queue, queue_batch, stored

pytestmark = [pytest.mark.database, pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("published")]

REFUSED = Reply(451, "4.7.1 later")


@pytest.fixture
def several_locks() -> bool:
    """Whether the database has a lock for each row. SQLite has one for all, which whoever writes holds."""
    return connection.vendor != "sqlite"


def test_a_claim_passes_over_what_a_host_cancels(several_locks: bool) -> None:
    first, *others = stored(queue(3))
    if not several_locks:
        return
    with held_by_a_host(first.cancel):
        assert [one.pk for one in outbox.claim([first.pk, *(one.pk for one in others)], "t")] == [
            one.pk for one in others
        ]
    assert [one.pk for one in outbox.claim([first.pk], "t")] == [first.pk]


def test_a_sweep_passes_over_what_a_host_cancels_and_finds_it_later(several_locks: bool) -> None:
    first, *others = stored(queue(3))
    Message.objects.update(due_at=timezone.now() - timedelta(minutes=1))
    if not several_locks:
        return
    with held_by_a_host(first.cancel):
        assert set(outbox.sweep(timezone.now())) == {one.pk for one in others}
    assert outbox.sweep(timezone.now()) == [first.pk]


def test_what_has_expired_and_what_a_worker_died_of_is_passed_over(several_locks: bool) -> None:
    first, second, third = stored(queue(3))
    outbox.claim([second.pk, third.pk], "t")
    past = timezone.now() - timedelta(minutes=1)
    Message.objects.update(due_at=past)
    Message.objects.filter(pk=first.pk).update(expires_at=past)
    if not several_locks:
        return

    def change() -> None:
        list(Message.objects.filter(pk__in=[first.pk, second.pk]).order_by("id").select_for_update())

    with held_by_a_host(change):
        assert outbox.sweep(timezone.now()) == [third.pk]
    assert outbox.sweep(timezone.now()) == [second.pk]
    assert Message.objects.get(pk=first.pk).state == State.EXPIRED


@pytest.mark.parametrize("what", ["cancels", "continues"])
def test_tasks_of_a_batch_go_on_while_a_host_holds_its_row(several_locks: bool, what: str) -> None:
    batch = queue_batch(3, key="news")
    generation = batch.generation
    held = outbox.claim_from_batch(batch, "t1", 2)
    Batch.objects.update(due_at=timezone.now() - timedelta(minutes=1), stored_at=None)
    if not several_locks:
        return

    def change() -> None:
        if what == "cancels":
            Batch.objects.get().cancel()
        else:
            send_bulk(["new@example.com"], subject="s", message="b", key="news")

    with held_by_a_host(change):
        # Other batches are found, and this one once the host has ended.
        assert outbox.claim_due_batches() == []
        assert outbox.heartbeat(batch.pk, generation)
        outbox.record_accepted("t1", [(held[0], Reply(250, "OK"))])
        outbox.record("t1", held[1], Outcome(held[1].pk, deferred={held[1].to[0]: REFUSED}, reply=REFUSED))
        third = outbox.claim_from_batch(batch, "t2", 10)
        assert len(third) == (0 if what == "cancels" else 1)
        outbox.release("t2", third)
        assert not outbox.reschedule_batch(batch.pk, generation) or what == "continues"
        outbox.mark_batch_unpublished(batch.pk)
    states = [message.state for message in Message.objects.order_by("id")]
    assert states == [State.SENT, State.DEFERRED, State.QUEUED]
    # What nobody could write while the row was held is found by the sweep.
    assert [key for key, _ in outbox.claim_due_batches()] == [batch.pk]


def test_other_mail_is_recorded_while_a_host_cancels_a_batch_under_repeatable_read(several_locks: bool) -> None:
    batch = queue_batch(2500, key="news")
    other = send_bulk([f"o{number}@example.com" for number in range(20)], subject="s", message="b")
    single = stored(queue(1))
    if not several_locks:
        return
    cancelled: list[int] = []

    def cancel() -> None:
        if connection.vendor == "mysql":
            # What it reads for a change locks the gaps between the keys as well.
            with connection.cursor() as cursor:
                cursor.execute("ROLLBACK")
                cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cancelled.append(Batch.objects.get(pk=batch.pk).cancel())

    with held_by_a_host(cancel):
        assert cancelled == [2500]
        held = outbox.claim_from_batch(other, "t", 10)
        outbox.record_accepted("t", [(message, Reply(250, "2.0.0 OK")) for message in held])
        for message in outbox.claim([one.pk for one in single], "s"):
            outbox.record("s", message, Outcome(message.id, deferred={message.to[0]: REFUSED}, reply=REFUSED))
        assert send_mail("s", "b", to="new@example.com").state == State.QUEUED
    assert Message.objects.filter(batch=other, state=State.SENT).count() == 10


def test_events_of_sparkpost_are_processed_while_a_host_holds_a_batch_of_them(several_locks: bool) -> None:
    past = timezone.now() - timedelta(minutes=5)
    for number in range(2):
        WebhookBatch.objects.create(key=str(number), received_at=past, due_at=past, events=1)
    if not several_locks:
        return
    with held_by_a_host(lambda: list(WebhookBatch.objects.filter(key="0").select_for_update())):
        assert len(inbox.due_batches()) == 1
    assert len(inbox.due_batches()) == 1


def test_a_caller_that_stores_recipients_meets_no_deadlock_with_workers(several_locks: bool) -> None:
    batches = [send_bulk(["a@example.com"], subject="s", message="b", key=f"k{number}") for number in range(2)]
    Batch.objects.update(stored_at=None)
    stop = threading.Event()
    failures: list[BaseException] = []

    def work(name: str) -> None:
        try:
            while not stop.is_set():
                for batch in batches:
                    outbox.heartbeat(batch.pk, batch.generation)
                    held = outbox.claim_from_batch(batch, name, 20)
                    if held:
                        outbox.record_accepted(name, [(message, Reply(250, "OK")) for message in held[::2]])
                    outbox.release(name, held[1::2])
                    outbox.reschedule_batch(batch.pk, batch.generation)
                    publish_batch(batch.pk, batch.generation)
        except BaseException as error:
            failures.append(error)
        finally:
            connections.close_all()

    def store(number: int) -> None:
        try:
            for start in range(0, 400, 20):
                people = [f"p{start + place}-{number}@example.com" for place in range(20)]
                send_bulk(people, subject="s", message="b", key=f"k{number}", on_invalid="skip")
                Batch.objects.filter(key=f"k{number}").update(stored_at=None)
        except BaseException as error:
            failures.append(error)
        finally:
            connections.close_all()

    workers = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(2)]
    callers = [threading.Thread(target=store, args=(number,)) for number in range(2)]
    for thread in (*workers, *callers):
        thread.start()
    for thread in callers:
        thread.join()
    try:
        wait_for(lambda: failures or not Message.objects.exclude(state=State.SENT).exists(), 60, "every mail")
    finally:
        stop.set()
        for thread in workers:
            thread.join()
    assert not failures
    assert Message.objects.count() == 802
