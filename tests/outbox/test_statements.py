"""How many statements and commits a mail costs its worker: counted, so that it is the same on every machine."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.core import mail
from django.core.mail.backends.locmem import EmailBackend as MemoryBackend
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from congressy_mailer import outbox, send_mail, tasks
from congressy_mailer.delivery import slice as delivery_slice
from congressy_mailer.delivery.slice import Delivery
from congressy_mailer.models import Message, State, Suppression, TransportStatus, clock
from congressy_mailer.models.erased import hashed
from congressy_mailer.outbox import claiming, pausing
from congressy_mailer.outbox.claim_statement import choice
from congressy_mailer.outbox.cursors import BatchCursors
from congressy_mailer.replies import Reply
from congressy_mailer.suppressions import suppress
from tests.support.mails import queue, queue_batch
from tests.support.plans import explain, tables

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.email_settings]

#: What a claim takes: PostgreSQL and SQLite return the rows that they have changed.
CLAIM = ["UPDATE", "SELECT"] if connection.vendor == "mysql" else ["UPDATE"]
RECORD = ["UPDATE"]
COUNTS = ["INSERT"]

queries: list[dict[str, Any]] = []


class Counting(MemoryBackend):
    """Takes all mail, and keeps what the database was asked before."""

    def send_messages(self, messages: Any) -> int:
        queries[:] = connection.queries_log
        return super().send_messages(messages)


@pytest.fixture(autouse=True)
def counting(settings: Any, published: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    settings.EMAIL_BACKEND = f"{__name__}.Counting"
    # What a process asks by the clock, it may ask at any time.
    monkeypatch.setattr(clock, "_VALID_FOR", 3600.0)
    monkeypatch.setattr(pausing, "_KNOWN_FOR", 3600.0)
    monkeypatch.setattr(delivery_slice, "_URGENT_CHECK_INTERVAL", 3600.0)
    clock.forget()
    clock.now()


def kinds(captured: CaptureQueriesContext) -> list[str]:
    """The first word of each statement. Each that stands outside BEGIN and COMMIT is a transaction by itself."""
    return [query["sql"].split()[0] for query in captured.captured_queries]


def statements_of_delivery(message: Message) -> tuple[list[str], int]:
    """Deliver a message; returns its statements, and how many of them there were before the server had it."""
    queries.clear()
    outbox.forget_pauses()
    with CaptureQueriesContext(connection) as captured:
        before = captured.initial_queries
        tasks.deliver([str(message.pk)])
    message.refresh_from_db()
    return kinds(captured), len(queries) - before


def warmed_up() -> None:
    """The clocks have been compared, templates loaded, and the sweep looked after."""
    statements_of_delivery(send_mail("x", "y", to="first@example.com"))


def test_a_mail_is_claimed_read_and_looked_up_at_once_and_costs_two_commits() -> None:
    warmed_up()
    message = send_mail("x", "y", to="ana@example.com")
    statements, before = statements_of_delivery(message)
    assert message.state == State.SENT
    assert statements[:before] == CLAIM
    # A worker writes its counts once a second at the most.
    assert statements == CLAIM + RECORD + COUNTS


def test_of_several_mails_one_looks_after_the_sweep() -> None:
    keys = [str(key) for key in queue(3)]
    with CaptureQueriesContext(connection) as captured:
        for key in keys:
            tasks.deliver([key])
    looks = [query["sql"] for query in captured.captured_queries if "periodictask" in query["sql"]]
    assert [look.split()[0] for look in looks] == ["SELECT", "INSERT"]


def test_a_slice_of_a_batch_costs_a_claim_and_a_record() -> None:
    warmed_up()
    batch = queue_batch(40)
    cursors = BatchCursors()
    claimed = []
    for _ in range(2):
        with CaptureQueriesContext(connection) as captured:
            claimed = outbox.claim_from_batch(batch, "t", 10, cursors)
            outbox.record_accepted("t", [(message, Reply(250, "OK")) for message in claimed])
        # First what was refused and is due again, of which there is nothing.
        assert kinds(captured) == ["UPDATE", *CLAIM, *RECORD]
    assert len(claimed) == 10
    assert not any(outbox.may_be_suppressed(message) for message in claimed)


def test_the_task_of_a_batch_asks_for_everything_once() -> None:
    warmed_up()
    batch = queue_batch(5)
    delivery = Delivery("t")
    outbox.active_pauses()
    with CaptureQueriesContext(connection) as captured:
        delivery.run_batch(batch.pk, batch.generation)
    assert delivery.counts[State.SENT] == 5
    # The batch and its attachments; what is in no batch, and what is due again; the claim, and at once a record.
    expected = ["SELECT", "SELECT", "UPDATE", "UPDATE", *CLAIM, *RECORD]
    assert kinds(captured)[: len(expected)] == expected


def test_mail_that_waits_is_claimed_at_once() -> None:
    for number in range(3):
        send_mail("x", "y", to=f"p{number}@example.com")
    Message.objects.update(queued_at=timezone.now() - timedelta(minutes=1))
    with CaptureQueriesContext(connection) as captured:
        assert len(outbox.claim_waiting("t", 10)) == 3
    assert kinds(captured) == CLAIM


def test_what_comes_with_a_mail_is_read_where_there_is_some() -> None:
    message = send_mail("x", "y", to="ana@example.com", attachments=[("a.txt", b"a")])
    statements_of_delivery(message)
    assert message.state == State.SENT
    assert mail.outbox[-1].attachments


def test_who_was_suppressed_a_moment_ago_gets_nothing() -> None:
    alone = send_mail("x", "y", to="Ana <Ana@example.com>")
    beside = send_mail("x", "y", to=["bia@example.com", "ana@example.com"])
    suppress("ana@example.com")
    statements_of_delivery(alone)
    statements_of_delivery(beside)
    assert alone.state == State.SUPPRESSED
    assert [one.recipients() for one in mail.outbox] == [["bia@example.com"]]


def test_who_was_erased_a_moment_ago_gets_nothing() -> None:
    message = send_mail("x", "y", to="ana@example.com")
    other = send_mail("x", "y", to="bia@example.com")
    suppress("ana@example.com")
    Suppression.objects.update(address=hashed("ana@example.com"))
    statements_of_delivery(message)
    statements_of_delivery(other)
    assert (message.state, other.state) == (State.SUPPRESSED, State.SENT)


def test_a_backend_that_became_unavailable_a_moment_ago_is_not_used() -> None:
    message = send_mail("x", "y", to="ana@example.com")
    now = timezone.now()
    TransportStatus.objects.create(
        using="", sender_domain="", unavailable_since=now, next_try_at=now + timedelta(minutes=1)
    )
    statements_of_delivery(message)
    assert message.state == State.QUEUED
    assert not mail.outbox


def test_a_claim_looks_its_address_up_in_the_index_of_the_suppression_list() -> None:
    table, index = Suppression._meta.db_table, "mailer_suppression_unique"
    message = send_mail("s", "x", to="ana@example.com")
    with CaptureQueriesContext(connection) as captured:
        assert outbox.claim([message.pk], "t")
    (claim,) = [query["sql"] for query in captured.captured_queries if table in query["sql"]]
    with transaction.atomic():
        plan = explain(claim)
    if connection.vendor == "mysql":
        # The address and its hash, each by itself.
        looked_up = [one for one in tables(json.loads(plan)) if one["table_name"] == table]
        assert [(one["access_type"], one["key"]) for one in looked_up] == [("ref", index)] * 2
    elif connection.vendor == "sqlite":
        assert f"SEARCH {table}" in plan and f"SCAN {table}" not in plan
    else:
        assert index in plan and f"Seq Scan on {table}" not in plan


def test_the_kept_statement_of_a_single_claim_is_the_one_that_would_be_made_anew() -> None:
    # A condition with another time or value than the kept ones would stay that of the first message.
    for hours in (0, 1, 2):
        key, now = uuid4(), timezone.now() + timedelta(hours=hours)
        made = choice(claiming._claimable([key], now).order_by("id")[:1])
        kept = claiming._choice_of_one(key, now)
        assert (kept.sql, list(kept.parameters)) == (made.sql, list(made.parameters))
