"""The main process of a worker says whether a task of the host's waits, and its word does not outlive it.

A task for a batch leaves its turn to one that waits, and does so in vain only for a while.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from celery.concurrency.solo import TaskPool as Solo
from celery.worker import state

from congressy_mailer.broker import host_queues, turns, waiting_tasks
from congressy_mailer.broker.connections import connection_with_timeout
from congressy_mailer.broker.sending import DELIVER, DELIVER_BATCH, SWEEP
from tests.conftest import wait_for
from tests.project import app


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


class Settings(dict[str, Any]):
    """Celery's, which are attributes and items."""

    task_default_queue = "celery"


def consumer(
    *,
    prefetch: int = 8,
    with_etas: int = 0,
    rate_limited: int = 0,
    broker: str = "redis",
    pool: Any = None,
    channel: Any = None,
    disable_prefetch: bool = False,
) -> Any:
    return SimpleNamespace(
        pool=pool or SimpleNamespace(num_processes=2),
        initial_prefetch_count=prefetch,
        qos=SimpleNamespace(value=prefetch + with_etas),
        task_buckets={"host.limited": SimpleNamespace(contents=[None] * rate_limited), DELIVER: None},
        app=SimpleNamespace(
            conf=Settings(worker_disable_prefetch=disable_prefetch),
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
    for module in (waiting_tasks, turns):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(turns, "_turns", turns._Turns())
    monkeypatch.setattr(host_queues, "_rabbitmq", host_queues._RabbitMQ())
    waiting_tasks.share()
    yield clock
    host_queues.close()
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
    waiting_tasks.forget()
    return none_waits(**options)


def test_where_the_brokers_queues_cannot_be_asked_for_it_is_not_known() -> None:
    held = fetched(*[DELIVER_BATCH] * 8, active=2)
    assert not none_waits(broker="sqs")
    assert not waiting_tasks.some_wait()
    assert held


def test_a_task_of_the_hosts_in_our_own_queue_is_not_told_from_ours(settings: Any) -> None:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "QUEUE": "celery"}
    held = fetched(*[DELIVER_BATCH] * 8, active=2)
    assert not none_waits(channel=Channel(celery=1))
    assert not waiting_tasks.some_wait()
    assert none_waits(channel=Channel(celery=0))
    assert held


def test_tasks_with_a_time_and_rate_limited_ones_take_up_what_a_worker_fetches() -> None:
    held = fetched(*[DELIVER_BATCH] * 6, active=2)
    for channel in (Channel(celery=1), Channel(celery=0)):
        assert none_waits(channel=channel)
    assert not none_waits_after_a_while(channel=Channel(celery=1), rate_limited=2)
    waiting = [Request("host.later") for _ in range(5)]
    state.scheduled_requests.update(waiting)
    assert none_waits(channel=Channel(celery=1), with_etas=5)
    # As worker_eta_task_limit has it.
    assert not none_waits_after_a_while(channel=Channel(celery=1), with_etas=3)
    state.scheduled_requests.clear()
    assert held
    assert waiting


def test_a_worker_that_fetches_nothing_in_advance_asks_while_it_is_busy() -> None:
    held = fetched(DELIVER, DELIVER, active=2)
    assert none_waits(disable_prefetch=True)
    assert not none_waits_after_a_while(disable_prefetch=True, channel=Channel(celery=1))
    state.active_requests.discard(held[0])
    state.reserved_requests.discard(held[0])
    assert none_waits(disable_prefetch=True, channel=Channel(celery=1))


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
    assert waiting_tasks.some_wait()


def a_task_waits() -> list[Request]:
    held = fetched(DELIVER_BATCH, DELIVER_BATCH, "host.report", active=2)
    assert not none_waits()
    return held


def test_no_two_slices_of_batches_follow_each_other_while_a_task_waits() -> None:
    held = a_task_waits()
    assert not turns.gives_way()
    turns.slice_ended()
    assert turns.gives_way()
    # The next one as well, until the other task has had its turn.
    assert turns.gives_way()
    turns.others_begin()
    assert not turns.gives_way()
    assert held


def test_nobody_gives_way_where_nobody_waits() -> None:
    turns.slice_ended()
    assert not turns.gives_way()
    assert none_waits()
    assert not turns.gives_way()


def test_a_task_that_has_begun_is_not_given_way_to() -> None:
    held = a_task_waits()
    # In another process.
    waiting_tasks.forget()
    turns.slice_ended()
    assert not turns.gives_way()
    assert held


def test_who_gives_way_in_vain_soon_does_so_no_more(worker: SimpleNamespace) -> None:
    held = a_task_waits()
    turns.slice_ended()
    assert sum(turns.gives_way() for _ in range(100)) == turns._MOST
    for seconds, ways in ((turns._BREAK - 1, 0), (2, turns._MOST)):
        worker.now += seconds
        turns.slice_ended()
        assert not none_waits()
        assert sum(turns.gives_way() for _ in range(100)) == ways
    assert held


@pytest.mark.broker
@pytest.mark.rabbitmq
def test_a_rabbitmq_is_asked_over_a_connection_of_its_own(broker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"host.{uuid4().hex}"
    asking = consumer(broker="amqp")
    asking.app.amqp.queues.consume_from = {"mailer": 0, name: 0}
    real = host_queues._rabbitmq
    # With the tests' app instead of the double's.
    monkeypatch.setattr(
        host_queues, "connection_with_timeout", lambda of, timeout: connection_with_timeout(app, timeout)
    )
    held = fetched(*[DELIVER_BATCH] * 8, active=2)

    def waits() -> bool | None:
        real._asks_again_at = float("-inf")
        return host_queues.any_waits(asking)

    # There is no such queue.
    assert waits() is False
    with app.connection_for_write() as connection:
        queue = connection.SimpleQueue(name)
        assert waits() is False
        queue.put("x")
        wait_for(waits, what="the task in its queue")
        queue.get(timeout=10).ack()
        wait_for(lambda: waits() is False, what="its end")
        queue.queue.delete()
    # The pace is that of the answers.
    real._asks_again_at = float("inf")
    assert host_queues.any_waits(asking) is None
    assert held


def test_a_rabbitmq_that_does_not_answer_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def fails(of: Any, timeout: float) -> Any:
        tries.append(timeout)
        raise OSError

    monkeypatch.setattr(host_queues, "connection_with_timeout", fails)
    held = fetched(*[DELIVER_BATCH] * 8, active=2)
    for _ in range(3):
        assert not none_waits(broker="amqp")
        assert not waiting_tasks.some_wait()
    assert len(tries) == 1
    assert held
