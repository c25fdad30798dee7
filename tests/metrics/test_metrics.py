"""What the workers count: each outcome once, cheaply, by several processes at once, and still there after a purge."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from congressy_mailer import __version__, metrics, outbox, send_bulk, send_mail, suppressions, tasks
from congressy_mailer.delivery import sweep
from congressy_mailer.metrics import counters, counting, rollups
from congressy_mailer.models import Batch, CountRollup, CountSample, Message, State, Worker
from congressy_mailer.outbox.expiry import expire
from congressy_mailer.replies import Outcome, Reply
from congressy_mailer.sparkpost.events import parse_events
from congressy_mailer.testing import deliver_all, fail_next
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from congressy_mailer.tracking.recording import track
from testbed.processes import Process
from tests.conftest import run_concurrently, wait_for
from tests.support.mails import queue, stored
from tests.support.sparkpost_events import START, event

pytestmark = [pytest.mark.django_db(transaction=True)]

NOW = datetime.fromtimestamp(START, UTC) + timedelta(days=90)
MINUTE = datetime(2026, 11, 24, 14, 20, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _nothing_published(request: pytest.FixtureRequest) -> None:
    if "start_worker" not in request.fixturenames:
        request.getfixturevalue("published")


def by_name(counts: metrics.Counts) -> dict[str, int]:
    """What was counted, whatever the backend, queue and priority, without how long it took."""
    found: Counter[str] = Counter()
    for (*_, name), count in counts.items():
        if not name.startswith(counters.BUCKET) and name != counters.MILLISECONDS:
            found[name] += count
    return dict(found)


def sample(minute: datetime = MINUTE, count: int = 1, name: str = counters.ACCEPTED) -> None:
    CountSample.objects.create(minute=minute, counts=[["", "mailer", 5, name, count]])


@pytest.mark.database
def test_each_outcome_is_counted_once() -> None:
    for number in range(3):
        send_mail("x", "y", to=f"ana{number}@example.com")
    fail_next("452 4.2.2 mailbox full")
    deliver_all()
    send_mail("x", "y", to="eva@example.com")
    fail_next("550 5.1.1 no such user")
    deliver_all()
    metrics.flush()
    assert by_name(metrics.totals()) == {"accepted": 2, "deferred:mailbox": 1, "failed": 1}


@pytest.mark.database
def test_time_to_acceptance_is_counted_in_buckets() -> None:
    message = send_mail("x", "y", to="ana@example.com")
    assert isinstance(message, Message)
    message.queued_at -= timedelta(seconds=7)
    counting.count_sent([message])
    metrics.flush()
    counted = {name: count for (*_, name), count in metrics.totals().items()}
    assert counted[counters.bucket(7.5)] == 1
    assert 7000 <= counted[counters.MILLISECONDS] < 60_000


def test_counts_are_kept_apart_by_backend_queue_and_priority() -> None:
    send_bulk(["ana@example.com", "eva@example.com"], subject="x", message="y")
    send_mail("x", "y", to="ana@example.com", priority=1)
    deliver_all()
    metrics.flush()
    accepted = {key[:3]: count for key, count in metrics.totals().items() if key[3] == counters.ACCEPTED}
    assert accepted == {("", "mailer.bulk", 5): 2, ("", "mailer", 1): 1}


def test_suppressed_mail_is_counted_at_the_call_and_in_the_worker() -> None:
    queued = send_mail("x", "y", to="ana@example.com")
    suppressions.suppress("ana@example.com")
    send_mail("x", "y", to="ana@example.com")
    assert by_name(metrics.totals()) == {"suppressed": 1}
    deliver_all()
    queued.refresh_from_db()
    assert queued.state == State.SUPPRESSED
    metrics.flush()
    assert by_name(metrics.totals()) == {"suppressed": 2}


@pytest.mark.database
def test_expired_mail_is_counted_once_by_itself_and_with_its_batch() -> None:
    soon = timezone.now() + timedelta(hours=1)
    mail = send_mail("x", "y", to="ana@example.com", expires_at=soon)
    batch = send_bulk(["a@example.com", "b@example.com"], subject="x", message="y", expires_at=soon)
    over = timezone.now() - timedelta(seconds=1)
    Message.objects.update(expires_at=over, due_at=over)
    Batch.objects.update(expires_at=over)
    for _ in range(2):
        list(outbox.sweep(None))
        expire([mail.pk])
        assert not outbox.heartbeat(batch.pk, 1)
    assert set(Message.objects.values_list("state", flat=True)) == {State.EXPIRED}
    metrics.flush()
    counts = {(queue, name): count for (_, queue, _, name), count in metrics.totals().items()}
    assert counts == {("mailer", "expired"): 1, ("mailer.bulk", "expired"): 2}


@pytest.mark.database
def test_what_happens_after_sending_is_counted_once_however_often_it_is_told() -> None:
    message = send_mail("x", "y", to="ana@example.com")
    told = [event("delivery", message, 1), event("spam_complaint", message, 2), event("open", message, 3)]
    track(parse_events(told, NOW))
    track(parse_events(told, NOW))
    metrics.flush()
    assert by_name(metrics.totals()) == {"delivered": 1, "complained": 1}


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(421, "4.7.0 too many connections"), "throttled"),
        (Reply(452, "4.2.2 mailbox full"), "mailbox"),
        (Reply(451, "4.3.0 try later"), "system"),
        (Reply(451, "4.4.1 no answer from host"), "network"),
        (Reply(451, "4.7.1 greylisted"), "policy"),
        (Reply(450, "try later"), "other"),
        (Reply(None, "TimeoutError: timed out"), "connection"),
    ],
)
def test_a_deferral_is_counted_by_its_reason(reply: Reply, reason: str) -> None:
    assert counters.deferral([reply]) == f"deferred:{reason}"
    assert reason in counters.REASONS


def test_a_deferral_without_a_server_and_one_in_doubt_have_reasons_too() -> None:
    assert counters.deferral([]) == "deferred:content"
    assert counters.deferral([Reply(None, "lost")], in_doubt=True) == "deferred:in_doubt"


@pytest.mark.database
def test_a_process_writes_one_statement_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    timers: list[threading.Timer] = []
    monkeypatch.setattr(threading.Timer, "start", lambda timer: timers.append(timer))
    clock = 1000.0
    monkeypatch.setattr(counting.time, "monotonic", lambda: clock)
    messages = stored(queue(100))
    with CaptureQueriesContext(connection) as queries:
        for message in messages:
            counting.count_sent([message])
            metrics.flush_if_due()
            clock += 0.02
    written = [query["sql"] for query in queries.captured_queries if not query["sql"].startswith("SELECT")]
    assert len(written) <= 3
    assert timers
    metrics.flush()
    assert by_name(metrics.totals()) == {"accepted": 100}


@pytest.mark.database
def test_what_the_database_does_not_take_is_written_later() -> None:
    counting.count_sent([send_mail("x", "y", to="ana@example.com")])
    with patch.object(counting, "_insert", side_effect=OperationalError("away")):
        metrics.flush()
    assert metrics.totals() == Counter()
    metrics.flush()
    assert by_name(metrics.totals()) == {"accepted": 1}


@pytest.mark.database
def test_adding_up_changes_no_answer() -> None:
    for minute in (MINUTE, MINUTE, MINUTE + timedelta(minutes=1), MINUTE + timedelta(hours=1)):
        sample(minute, 2)
    before = metrics.minutes(MINUTE), metrics.hours(MINUTE.replace(minute=0)), metrics.totals()
    with patch.object(rollups.clock, "now", return_value=MINUTE + timedelta(hours=2)):
        assert not metrics.fold()
        sample(MINUTE, 0)
        metrics.fold()
    assert not CountSample.objects.exists()
    assert (metrics.minutes(MINUTE), metrics.hours(MINUTE.replace(minute=0)), metrics.totals()) == before
    assert [sum(counts.values()) for counts in before[0].values()] == [4, 2, 2]
    assert [sum(counts.values()) for counts in before[1].values()] == [6, 2]


@pytest.mark.database
def test_several_processes_add_each_sample_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollups, "_CHUNK", 7)
    for number in range(100):
        sample(MINUTE + timedelta(minutes=number % 3))

    def work(number: int) -> None:
        while metrics.fold():
            pass

    with patch.object(rollups.clock, "now", return_value=MINUTE + timedelta(hours=2)):
        run_concurrently(work)
        work(0)
    assert not CountSample.objects.exists()
    assert by_name(metrics.totals()) == {"accepted": 100}
    assert sum(sum(counts.values()) for counts in metrics.minutes(MINUTE).values()) == 100


@pytest.mark.database
def test_old_minutes_and_hours_go_and_the_total_stays() -> None:
    sample()
    for days, minutes, hours in ((0.9, 1, 1), (2, 0, 1), (91, 0, 0)):
        with patch.object(rollups.clock, "now", return_value=MINUTE + timedelta(days=days)):
            metrics.fold()
        assert CountRollup.objects.filter(period=CountRollup.Period.MINUTE).count() == minutes
        assert CountRollup.objects.filter(period=CountRollup.Period.HOUR).count() == hours
    assert by_name(metrics.totals()) == {"accepted": 1}


def test_a_purge_of_the_messages_changes_no_count(settings: Any) -> None:
    send_mail("x", "y", to="ana@example.com")
    deliver_all()
    metrics.flush()
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "KEEP_MESSAGES": timedelta(microseconds=1)}
    outbox.purge()
    outbox.purge()
    assert not Message.objects.exists()
    assert by_name(metrics.totals()) == {"accepted": 1}


def test_the_sweep_adds_up() -> None:
    sample(datetime.now(UTC).replace(second=0, microsecond=0))
    tasks.sweep(0.0)
    assert not CountSample.objects.exists()
    assert by_name(metrics.totals()) == {"accepted": 1}


def test_an_outcome_in_doubt_is_counted_as_that() -> None:
    message = send_mail("x", "y", to="ana@example.com")
    message.state = State.DEFERRED
    outcome = Outcome(message.id, deferred={"ana@example.com": Reply(None, "lost")}, in_doubt=True)
    counting.count_state(message, outcome)
    metrics.flush()
    assert by_name(metrics.totals()) == {"deferred:in_doubt": 1}


@pytest.mark.database
def test_what_a_worker_has_counted_is_written_when_nothing_more_comes(
    start_worker: Callable[..., Process], smtp_server: LocalSparkPost
) -> None:
    start_worker()
    # One after another, so that the later ones come within a second of the first one's.
    for number in range(5):
        send_mail("x", "y", to=f"ana{number}@example.com")
    wait_for(lambda: by_name(metrics.totals()) == {"accepted": 5}, what="the counts of all mails")


@pytest.mark.broker
def test_workers_tell_of_themselves_and_of_the_queues_that_they_serve(start_worker: Callable[..., Process]) -> None:
    start_worker(MAILER_TEST_SWEEP_INTERVAL_SECONDS="1")
    start_worker("-Q", "mailer.bulk", "-P", "threads", MAILER_TEST_SWEEP_INTERVAL_SECONDS="1")
    wait_for(lambda: Worker.objects.count() == 2, what="both workers")
    both, bulk = metrics.known_workers()
    assert metrics.is_alive(both)
    assert (both.pool, both.concurrency, bulk.pool) == ("prefork", 2, "threads")
    assert {"mailer", "mailer.bulk"} <= set(both.queues)
    assert bulk.queues == ["mailer.bulk"]
    assert both.version == __version__


def test_a_worker_that_was_not_heard_of_is_missing_and_forgotten_after_a_day() -> None:
    told = {"name": "celery@a", "queues": ["mailer"], "pool": "solo", "concurrency": 1, "version": "1"}
    metrics.record_worker({**told, "started_at": 0, "published_at": 1})
    (worker,) = metrics.known_workers()
    worker.seen_at -= timedelta(minutes=2)
    worker.save()
    assert not metrics.is_alive(worker)
    worker.seen_at -= timedelta(days=1)
    worker.save()
    assert metrics.known_workers() == []
    metrics.forget_workers()
    assert not Worker.objects.exists()


@pytest.mark.parametrize("told", [{}, {"name": "x"}, "x", {"name": "a", "queues": 3}])
def test_a_header_that_says_nothing_does_not_end_the_sweep(told: Any) -> None:
    with patch.object(sweep, "current_task") as task:
        task.request.get.return_value = told
        sweep.record_worker()
    assert not Worker.objects.exists()
