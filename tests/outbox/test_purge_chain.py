"""The purge as the workers have it: one chain of tasks, taken over when its worker dies, and seen by ``health``."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.utils import timezone

from congressy_mailer import outbox, periodic, send_bulk, tasks
from congressy_mailer.broker import sending
from congressy_mailer.delivery import upkeep
from congressy_mailer.health import check_health
from congressy_mailer.models import Batch, Event, Message, PeriodicTask, RecipientStatus, State, WebhookBatch
from congressy_mailer.outbox import retention
from tests.conftest import run_concurrently
from tests.support.forked import least_environment, run_code
from tests.support.held_rows import held_by_a_host
from tests.support.mails import queue
from tests.support.purging import finish

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.usefixtures("english")]

LEASE = timedelta(minutes=15)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch, published: list[str]) -> None:
    """Each task ends after one chunk of one message; published is what concerns the purge alone."""
    monkeypatch.setattr("congressy_mailer.mail.publish_on_commit", lambda ids: None)
    monkeypatch.setattr(retention, "_CHUNK", 1)
    monkeypatch.setattr(upkeep, "_PURGE_TIME", 0.0)


def old(count: int = 3, **ago: float) -> list[UUID]:
    ids = queue(count)
    finish(ids, **ago)
    return ids


def left() -> int:
    return Message.objects.filter(content_dropped_at=None).count()


def chain() -> PeriodicTask:
    return PeriodicTask.objects.get(name=periodic.PURGE)


def test_a_purge_that_takes_long_goes_on_in_further_tasks_to_its_end(published: list[str]) -> None:
    old(3)
    tasks.sweep(time.time())
    while published:
        assert published.pop() == "purge"
        # Nothing is published beside it, however often somebody sweeps.
        tasks.sweep(time.time())
        assert published == []
        before = left()
        tasks.purge()
        assert left() == max(0, before - 1)
    assert left() == 0
    assert (chain().token, chain().lease_until) == ("", None)


def test_it_is_published_to_the_queue_of_bulk_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, Any]] = []
    monkeypatch.setattr(sending, "send", lambda task, *arguments, **options: sent.append((task, options.get("queue"))))
    sending.publish_purge()
    assert sent == [("congressy_mailer.purge", "mailer.bulk")]


def test_a_second_one_does_nothing_while_one_works(published: list[str]) -> None:
    old(2)
    assert periodic.begin_part(periodic.PURGE, outbox.new_claim_token("purge"), LEASE)
    tasks.purge()
    assert left() == 2
    assert published == []
    # Nor does the sweep start another one, an hour later neither.
    PeriodicTask.objects.update(last_run_at=timezone.now() - timedelta(minutes=61))
    tasks.sweep(time.time())
    assert published == ["purge"]
    tasks.purge()
    assert left() == 2


def test_of_several_at_the_same_moment_one_works(monkeypatch: pytest.MonkeyPatch) -> None:
    working: list[int] = []
    monkeypatch.setattr(upkeep, "purge_some", lambda ended: bool(working.append(1)))
    monkeypatch.setattr(periodic, "end_chain", lambda name, token: None)
    periodic.mark_run(periodic.PURGE)
    run_concurrently(lambda worker: tasks.purge(), 4)
    assert len(working) == 1


def test_a_chain_whose_worker_was_killed_goes_on_with_the_next_sweep(published: list[str]) -> None:
    old(1)
    code = "from congressy_mailer.broker.claim_owners import new_claim_token as n; print(n('x'))"
    token = run_code(code, environment=least_environment()).stdout.strip()
    assert token
    periodic.mark_run(periodic.PURGE)
    assert periodic.begin_part(periodic.PURGE, token, LEASE)
    run_concurrently(lambda worker: tasks.sweep(time.time()), 3)
    assert published == ["purge"]
    tasks.purge()
    assert left() == 0


def test_a_chain_whose_next_task_was_lost_goes_on_when_its_lease_is_over(published: list[str]) -> None:
    old(2)
    periodic.mark_run(periodic.PURGE)
    tasks.purge()
    published.clear()
    tasks.sweep(time.time())
    assert published == []
    PeriodicTask.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    tasks.sweep(time.time())
    tasks.sweep(time.time())
    assert published == ["purge"]


def test_who_has_lost_the_lease_ends(published: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    old(3)
    original = upkeep.purge_some

    def slowly(ended: set[str]) -> bool:
        more = original(ended)
        PeriodicTask.objects.update(token="another")
        return more

    monkeypatch.setattr(upkeep, "purge_some", slowly)
    tasks.purge()
    assert left() == 2
    assert published == []
    assert chain().token == "another"


def test_rows_that_a_host_holds_are_passed_over() -> None:
    """Nobody is waited for, and the rest goes."""
    held, free = old(1), old(1)
    gone = old(1, days=400)
    Message.objects.filter(pk__in=gone).update(content_dropped_at=timezone.now(), subject="", text="")
    if connection.vendor == "sqlite":
        # It has one lock, which whoever writes holds.
        return
    with held_by_a_host(lambda: list(Message.objects.filter(pk__in=held).select_for_update())):
        while retention.purge():
            pass
    assert set(Message.objects.filter(content_dropped_at=None).values_list("pk", flat=True)) == set(held)
    assert not Message.objects.filter(pk__in=gone).exists()
    assert set(Message.objects.filter(content_dropped_at__isnull=False).values_list("pk", flat=True)) == set(free)


def test_messages_that_are_sent_once_more_wait_for_nobody_and_keep_what_they_say() -> None:
    """Where one is being dropped at this moment, whoever asks waits and is told."""
    ids = old(30)
    again: list[UUID] = []

    def resend(worker: int) -> None:
        for key in ids[::2]:
            try:
                outbox.resend(key)
                again.append(key)
            except outbox.commands.InvalidTransition:
                pass

    def work(worker: int) -> None:
        if worker:
            while retention.purge():
                pass
        else:
            resend(worker)

    run_concurrently(work, 3)
    while retention.purge():
        pass
    assert set(Message.objects.exclude(text="").values_list("pk", flat=True)) == set(again)
    assert set(Message.objects.filter(content_dropped_at=None).values_list("pk", flat=True)) == set(again)


def test_what_belongs_to_old_messages_goes_with_them() -> None:
    ids = old(2, days=366)
    for key in ids:
        Event.objects.create(message_id=key, type=Event.Type.DELIVERED, at=timezone.now(), key=str(key))
        RecipientStatus.objects.create(message_id=key, recipient="ana@example.com")
    while retention.purge():
        pass
    assert not Message.objects.exists()
    assert not Event.objects.exists()
    assert not RecipientStatus.objects.exists()


def test_batches_are_looked_at_once_the_messages_have_gone(django_assert_max_num_queries: Any) -> None:
    """However many messages they have, and of none more often than once."""
    batch = send_bulk([f"r{place}@example.com" for place in range(4)], subject="x", message="y")
    finished_at = timezone.now() - timedelta(days=366)
    Message.objects.update(state=State.SENT, due_at=None, finished_at=finished_at)
    Batch.objects.update(created_at=finished_at)
    for _ in range(4):
        assert retention.purge()
        batch.refresh_from_db()
        assert batch.subject == "x"
    while retention.purge():
        pass
    assert not Batch.objects.exists()


# Health


def test_health_says_since_when_something_should_have_gone() -> None:
    tasks.sweep(time.time())
    old(2, days=30, hours=5)
    assert check_health().ok
    old(1, days=31, hours=5)
    health = check_health()
    assert health.purge_overdue_since is not None
    age = timezone.now() - health.purge_overdue_since
    assert timedelta(days=1, hours=5) <= age < timedelta(days=1, hours=6)
    (problem,) = health.problems
    assert problem.startswith("Data that was due for the purge at 20")
    assert problem.endswith("is still stored: no worker serves the queue 'mailer.bulk', or the purge does not finish.")
    while retention.purge():
        pass
    assert check_health().ok
    # And then the rows themselves.
    Message.objects.update(finished_at=timezone.now() - timedelta(days=366))
    assert not check_health().ok
    while retention.purge():
        pass
    assert check_health().purge_overdue_since is None


# Indexes


@pytest.mark.parametrize("model", [Message, Batch, Event, RecipientStatus, WebhookBatch])
def test_no_index_of_a_large_table_is_contained_in_another(model: Any) -> None:
    """A second one, such as PostgreSQL's for LIKE, costs with each row and serves nobody."""
    with connection.cursor() as cursor:
        constraints = connection.introspection.get_constraints(cursor, model._meta.db_table)
    indexes = {
        name: tuple(found["columns"])
        for name, found in constraints.items()
        if found["index"] or found["unique"] or found["primary_key"]
        # A foreign key has the name of the index that serves it, on MariaDB.
        if found["columns"] and not (found["foreign_key"] and not found["index"])
    }
    redundant = [
        (one, other)
        for one, columns in indexes.items()
        for other, more in indexes.items()
        if one != other and more[: len(columns)] == columns
    ]
    assert redundant == []
