"""A claim of a batch begins where the last one ended, and yet nothing of the batch is left behind."""

from __future__ import annotations

import json
from datetime import timedelta
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from congressy_mailer import Priority, outbox
from congressy_mailer.models import Batch, Message, State
from congressy_mailer.outbox import cursors
from congressy_mailer.outbox.cursors import BatchCursors
from congressy_mailer.replies import Outcome, Reply
from tests.support.fuzzing import examples
from tests.support.held_rows import held_by_a_host
from tests.support.mails import queue_batch
from tests.support.plans import explain, tables

pytestmark = [pytest.mark.database, pytest.mark.usefixtures("published")]

ACCEPTED = Reply(250, "2.0.0 OK")
REFUSED = Reply(451, "4.7.1 later")


def send_from(batch: Batch, mails: int, own: BatchCursors, at_once: int = 50) -> None:
    for _ in range(0, mails, at_once):
        held = outbox.claim_from_batch(batch, "t", at_once, own)
        outbox.record_accepted("t", [(message, ACCEPTED) for message in held])


@pytest.mark.django_db(transaction=True)
def test_a_claim_reads_nothing_of_what_was_sent_while_a_transaction_of_the_host_is_open() -> None:
    batch = queue_batch(1000)
    own = BatchCursors()

    def entries_read() -> int:
        """By one claim. Only PostgreSQL counts what is read of an index; of the others see the next test."""
        with transaction.atomic():
            before = entries_read_so_far()
            held = outbox.claim_from_batch(batch, "t", 50, own)
            read = entries_read_so_far() - before
        assert len(held) == 50
        outbox.record_accepted("t", [(message, ACCEPTED) for message in held])
        return read

    if connection.vendor == "sqlite":
        # Its only lock would be the host's; what it deletes from an index is gone at once.
        return
    with held_by_a_host(lambda: queue_batch(1)):
        first = entries_read()
        send_from(batch, 600, own)
        assert entries_read() <= first


def entries_read_so_far() -> int:
    if connection.vendor != "postgresql":
        return 0
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_get_xact_tuples_returned('mailer_message_open'::regclass)")
        return int(cursor.fetchone()[0])


@pytest.mark.django_db
def test_a_claim_behind_a_cursor_is_a_range_of_the_batchs_index() -> None:
    batch = queue_batch(20)
    send_from(batch, 10, own := BatchCursors(), at_once=5)
    with CaptureQueriesContext(connection) as captured:
        assert len(outbox.claim_from_batch(batch, "t", 5, own)) == 5
    # After the one that looks for what is tried again.
    claim = [query["sql"] for query in captured.captured_queries if "LIMIT 5" in query["sql"]][-1]
    plan = explain(claim)
    if connection.vendor == "mysql":
        chosen, changed = tables(json.loads(plan))
        assert (chosen["key"], chosen["access_type"]) == ("mailer_message_open", "range")
        assert chosen["used_key_parts"] == ["open_batch", "state", "priority", "id"]
        assert (changed["key"], changed["access_type"]) == ("PRIMARY", "eq_ref")
    elif connection.vendor == "sqlite":
        assert "mailer_message_open (open_batch=? AND state=? AND (priority,id)>(?,?))" in plan
    else:
        assert "Index Cond" in plan and "ROW(priority, id) > ROW(" in plan.partition("Index Cond")[2].split("\n")[0]


@pytest.mark.django_db
def test_a_cursor_ends_after_its_lifetime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cursors, "LIFETIME", -1.0)
    batch = queue_batch(6)
    own = BatchCursors()
    first, _ = outbox.claim_from_batch(batch, "t", 2, own)
    Message.objects.filter(pk=first.pk).update(state=State.QUEUED, due_at=None, token="")
    # While much is left behind the cursor.
    assert outbox.claim_from_batch(batch, "t", 2, own)[0].pk == first.pk


@pytest.mark.django_db
def test_what_this_process_puts_back_is_next() -> None:
    batch = queue_batch(6)
    held = outbox.claim_from_batch(batch, "t", 4)
    outbox.release("t", held[1:])
    assert [message.pk for message in outbox.claim_from_batch(batch, "t", 3)] == [message.pk for message in held[1:]]
    outbox.record(
        "t", held[1], Outcome(held[1].pk, accepted=(), deferred={held[1].to[0]: REFUSED}, continues=True, reply=REFUSED)
    )
    assert outbox.claim_from_batch(batch, "t", 1)[0].pk == held[1].pk


@pytest.mark.django_db
def test_a_process_keeps_the_cursors_of_a_hundred_batches_at_the_most() -> None:
    own = BatchCursors()
    batches = [UUID(int=number) for number in range(1000)]
    for batch in batches:
        own.advance(batch, State.QUEUED, batch)
    kept = [own.after(Message.objects.all(), batch, State.QUEUED, 5) is not None for batch in batches]
    assert kept == [False] * 900 + [True] * 100


class TwoProcesses(RuleBasedStateMachine):
    """Two processes work at one batch, and whatever may bring a message back behind their cursors happens."""

    def __init__(self) -> None:
        super().__init__()
        now = timezone.now()
        self.batch = Batch.objects.create(created_at=now, from_email="a@example.com", due_at=now)
        self.processes = [BatchCursors(), BatchCursors()]
        self.held: dict[UUID, tuple[str, Message]] = {}
        self.claims = count()
        self.sent: list[UUID] = []

    @rule(
        numbers=st.sets(st.integers(1, 2**40), min_size=1, max_size=6),
        priority=st.sampled_from([Priority.NORMAL, Priority.NORMAL, Priority.HIGH, Priority.LOW]),
        scheduled=st.booleans(),
    )
    def store(self, numbers: set[int], priority: Priority, scheduled: bool) -> None:
        """In any order: callers on several hosts have clocks of their own."""
        now = timezone.now()
        state = State.SCHEDULED if scheduled else State.QUEUED
        Message.objects.bulk_create(
            Message(
                id=UUID(int=(number << 80) + self.batch.pk.int % 2**64), batch=self.batch, created_at=now, state=state,
                priority=priority, send_at=now if scheduled else None, to=["b@example.com"], from_email="a@example.com",
            )
            for number in numbers - {key.int >> 80 for key in self.batch.messages.values_list("pk", flat=True)}
        )  # fmt: skip

    @rule(process=st.integers(0, 1), limit=st.integers(1, 4))
    def claim(self, process: int, limit: int) -> None:
        token = f"t{next(self.claims)}"
        claimed = outbox.claim_from_batch(self.batch, token, limit, self.processes[process])
        if not claimed:
            assert not self.claimable()
        for message in claimed:
            assert message.pk not in self.held
            self.held[message.pk] = (token, message)

    def claimable(self) -> bool:
        waiting = self.batch.messages.exclude(state__in=(State.SENT, State.SENDING))
        return waiting.exclude(state=State.DEFERRED, due_at__gt=timezone.now()).exists()

    def take(self, data: Any) -> tuple[str, Message]:
        return self.held.pop(data.draw(st.sampled_from(sorted(self.held))))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def accept(self, data: Any) -> None:
        token, message = self.take(data)
        outbox.record_accepted(token, [(message, ACCEPTED)])
        self.sent.append(message.pk)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def put_back(self, data: Any) -> None:
        """By a process whose cursors are none of these: neither of the two hears of it."""
        token, message = self.take(data)
        outbox.release(token, [message])

    @precondition(lambda self: self.held)
    @rule(data=st.data(), continues=st.booleans())
    def refuse(self, data: Any, continues: bool) -> None:
        token, message = self.take(data)
        outcome = Outcome(message.pk, deferred={"b@example.com": REFUSED}, reply=REFUSED, continues=continues)
        outbox.record(token, message, outcome)

    @rule()
    def become_due(self) -> None:
        self.batch.messages.filter(state=State.DEFERRED).update(due_at=timezone.now() - timedelta(seconds=1))

    def teardown(self) -> None:
        for token, message in self.held.values():
            outbox.release(token, [message])
        self.held.clear()
        self.become_due()
        while self.claimable():
            before = self.batch.messages.filter(state=State.SENT).count()
            for process in (0, 1):
                token = f"t{next(self.claims)}"
                for message in outbox.claim_from_batch(self.batch, token, 3, self.processes[process]):
                    outbox.record_accepted(token, [(message, ACCEPTED)])
                    self.sent.append(message.pk)
            assert self.batch.messages.filter(state=State.SENT).count() > before
        assert sorted(self.sent) == sorted(self.batch.messages.values_list("pk", flat=True))
        assert not outbox.reschedule_batch(self.batch.pk, self.batch.generation)


@pytest.mark.django_db
@pytest.mark.fuzz
def test_every_message_of_a_batch_is_claimed_whatever_lies_behind_the_cursors() -> None:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        TwoProcesses,
        settings=settings(
            max_examples=examples(10), stateful_step_count=20, deadline=None, suppress_health_check=checks
        ),
    )
