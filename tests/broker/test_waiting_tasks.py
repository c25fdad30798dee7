"""The main process of a worker says whether a task of the host's waits, and its word does not outlive it."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery.concurrency.solo import TaskPool as Solo
from celery.worker import state

from congressy_mailer.broker import waiting_tasks
from congressy_mailer.broker.sending import DELIVER, DELIVER_BATCH, SWEEP


class Request:
    """As much of Celery's as is looked at."""

    def __init__(self, name: str) -> None:
        self.name = name


class Absent(Exception):
    """What a channel raises of a queue that does not exist."""


class Channel:
    def __init__(self, **lengths: int) -> None:
        self._lengths = lengths

    def queue_declare(self, queue: str, *, passive: bool) -> Any:
        assert passive
        if queue not in self._lengths:
            raise Absent
        return SimpleNamespace(message_count=self._lengths[queue])


def consumer(
    *, prefetch: int = 8, broker: str = "redis", pool: Any = None, channel: Any = None, disable_prefetch: bool = False
) -> Any:
    return SimpleNamespace(
        pool=pool or SimpleNamespace(num_processes=2),
        initial_prefetch_count=prefetch,
        app=SimpleNamespace(
            conf={"worker_disable_prefetch": disable_prefetch},
            amqp=SimpleNamespace(queues=SimpleNamespace(consume_from={"celery": 0, "mailer": 0, "mailer.bulk": 0})),
        ),
        connection=SimpleNamespace(
            transport=SimpleNamespace(driver_type=broker),
            channel_errors=(Absent,),
            default_channel=channel or Channel(mailer=50),
        ),
    )


@pytest.fixture(autouse=True)
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A worker without tasks, and its clock."""
    monkeypatch.setattr(waiting_tasks, "_shared", None)
    monkeypatch.setattr(waiting_tasks, "_stopping", False)
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(waiting_tasks, "time", SimpleNamespace(monotonic=lambda: clock.now))
    waiting_tasks.share()
    yield clock
    state.reserved_requests.clear()
    state.active_requests.clear()


def fetched(*names: str, active: int = 0) -> list[Request]:
    """Tasks of this worker, of which the first are at work."""
    requests = [Request(name) for name in names]
    state.reserved_requests.update(requests)
    state.active_requests.update(requests[:active])
    # Celery holds them weakly.
    return requests


def none_waits(**options: Any) -> bool:
    waiting_tasks.observe(consumer(**options))
    return waiting_tasks.none_waited_lately()


def test_nothing_is_known_outside_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_tasks, "_shared", None)
    assert not none_waits()


def test_a_worker_with_nothing_to_do_says_so() -> None:
    assert not waiting_tasks.none_waited_lately()
    assert none_waits()


def test_tasks_that_are_at_work_do_not_wait() -> None:
    held = fetched("host.report", DELIVER_BATCH, active=2)
    assert none_waits()
    assert held


@pytest.mark.parametrize("name", ["host.report", SWEEP])
def test_a_fetched_task_waits(name: str) -> None:
    held = fetched(DELIVER, name, active=1)
    assert not none_waits()
    assert held


def test_what_waits_of_our_deliveries_is_seen_in_the_outbox() -> None:
    held = fetched(DELIVER_BATCH, DELIVER_BATCH, DELIVER, active=1)
    assert none_waits()
    assert held


def test_a_worker_that_fetches_no_more_asks_for_the_hosts_queues() -> None:
    held = fetched(*[DELIVER_BATCH] * 8, active=2)
    assert none_waits()
    assert not none_waits_after_a_while(channel=Channel(celery=1))
    assert none_waits(channel=Channel(celery=0))
    assert held


def none_waits_after_a_while(**options: Any) -> bool:
    waiting_tasks._write(0.0)
    return none_waits(**options)


def test_where_the_brokers_queues_cannot_be_asked_for_it_is_not_known() -> None:
    held = fetched(*[DELIVER_BATCH] * 8, active=2)
    assert not none_waits(broker="amqp")
    assert held


def test_without_prefetching_a_busy_worker_does_not_know() -> None:
    held = fetched(DELIVER, DELIVER, active=2)
    assert not none_waits(disable_prefetch=True)
    state.active_requests.discard(held[0])
    state.reserved_requests.discard(held[0])
    assert none_waits(disable_prefetch=True)


def test_a_worker_that_works_in_its_main_thread_does_not_know() -> None:
    assert not none_waits(pool=Solo.__new__(Solo))


def test_a_word_is_soon_over(worker: SimpleNamespace) -> None:
    assert none_waits()
    worker.now += 0.9
    assert waiting_tasks.none_waited_lately()
    worker.now += 0.2
    assert not waiting_tasks.none_waited_lately()


def test_an_error_is_nothing_known() -> None:
    waiting_tasks.observe(None)
    assert not waiting_tasks.none_waited_lately()


def test_a_worker_that_stops_lets_nobody_go_on() -> None:
    assert none_waits()
    waiting_tasks.stop()
    assert not none_waits()
