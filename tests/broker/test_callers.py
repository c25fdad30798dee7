"""What a caller pays while the broker is away: a second at the most, once."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from uuid import UUID

import pytest
from celery import Celery
from celery.signals import before_task_publish
from django.test import override_settings
from django.utils import timezone
from kombu import Producer

from congressy_mailer import outbox
from congressy_mailer.broker import publisher, sending
from congressy_mailer.models import Message, State
from testbed.processes import free_port
from testbed.redis_server import EmbeddedRedis
from testbed.servers.rabbitmq import RabbitMQ
from testbed.servers.sentinel import RedisUnderSentinel
from tests.conftest import run_concurrently, wait_for
from tests.support.broker_away import Way, hung, out_of_memory, published, read_only, refused, said
from tests.support.mails import queue
from tests.support.own_time import least_own_seconds, own_seconds
from tests.support.stopping import stopped

pytestmark = pytest.mark.django_db(transaction=True)

Least = Callable[[Callable[[], float]], float]

#: Seconds that a caller may have to wait for a broker that is away.
FIRST = 1.0
#: For tests of what a caller does until the broker is tried again, however slow the machine is.
LONG_BREAK = {"BREAKER_TIME": timedelta(minutes=1)}


@contextmanager
def hung_for_new_connections(server: EmbeddedRedis) -> Iterator[None]:
    publisher.forget()
    with stopped(server.pid):
        yield


def cost() -> float:
    """Seconds that one call takes."""
    return own_seconds(queue)


@pytest.fixture
def least(caplog: pytest.LogCaptureFixture) -> Least:
    """The least of several attempts, each of which begins as the first did."""

    def anew(attempt: Callable[[], float]) -> float:
        publisher.forget()
        Message.objects.all().delete()
        caplog.clear()
        return attempt()

    return lambda attempt: least_own_seconds(FIRST, lambda: anew(attempt))


#: Where every connection that this process begins is listed, while somebody wants to know.
_listeners: list[list[str]] = []


def _list_connections(event: str, arguments: object) -> None:
    if _listeners and event in ("socket.connect", "socket.getaddrinfo"):
        for listener in _listeners:
            listener.append(f"{event} {arguments}")


# There is no way to remove an audit hook.
sys.addaudithook(_list_connections)


@contextmanager
def calls_to_the_broker() -> Iterator[list[str]]:
    """Every connection that this process begins meanwhile, and every task that it publishes over an open one."""
    calls: list[str] = []

    def list_task(sender: str, **arguments: object) -> None:
        calls.append(f"publishes {sender}")

    before_task_publish.connect(list_task)
    _listeners.append(calls)
    try:
        yield calls
    finally:
        _listeners.remove(calls)
        before_task_publish.disconnect(list_task)


def assert_calls_nobody(work: Callable[[], object] = queue) -> None:
    """Whoever calls while the broker is known to be away does not turn to it, and so has nothing to wait for."""
    with calls_to_the_broker() as calls:
        for _ in range(5):
            work()
    assert calls == []


def end_the_break() -> None:
    """Let the time pass for which the broker is left alone."""
    assert publisher.breaker().is_open()
    publisher.breaker().open_until = time.monotonic()


AWAY = (logging.ERROR, "The broker does not take messages")
BACK = (logging.WARNING, "The broker takes messages again.")


@pytest.fixture
def silent() -> Iterator[Callable[[], int]]:
    """Ports at which connections are accepted and nothing is ever answered."""
    with ExitStack() as listeners:

        def listen() -> int:
            listener = listeners.enter_context(socket.create_server(("127.0.0.1", 0)))
            return int(listener.getsockname()[1])

        yield listen


@pytest.mark.parametrize("away", [refused, hung, hung_for_new_connections, read_only, out_of_memory])
@override_settings(CONGRESSY_MAILER=LONG_BREAK)
def test_the_caller_waits_a_second_at_most_once_and_not_at_all_after_that(
    away: Way,
    broker: str,
    redis_server: EmbeddedRedis,
    least: Least,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def wait() -> float:
        queue()
        with calls_to_the_broker() as calls:
            queue()
        assert calls == ["publishes congressy_mailer.deliver"]
        stored = set(Message.objects.values_list("pk", flat=True))
        with away(redis_server):
            first = cost()
            assert_calls_nobody()
        meanwhile = Message.objects.exclude(pk__in=stored)
        assert set(meanwhile.values_list("state", flat=True)) == {State.QUEUED}
        assert set(outbox.sweep(timezone.now())) == set(meanwhile.values_list("pk", flat=True))
        end_the_break()
        assert set(queue()) <= published(redis_server.port)
        assert said(caplog) == [AWAY, BACK]
        return first

    assert least(wait) < FIRST


@override_settings(CONGRESSY_MAILER=LONG_BREAK)
def test_the_caller_waits_a_second_at_most_for_sentinel_and_its_master(
    publish_to: Callable[..., None], least: Least, caplog: pytest.LogCaptureFixture
) -> None:
    def wait() -> float:
        with RedisUnderSentinel() as group:
            publish_to(group.url, **group.transport_options)
            queue()
            with stopped(group.master.pid):
                first = cost()
                assert_calls_nobody()
                wait_for(lambda: group.current_master() == group.replica.port, what="the failover")
                end_the_break()
                assert set(queue()) <= published(group.replica.port)
        assert said(caplog) == [AWAY, BACK]
        return first

    assert least(wait) < FIRST


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:{0}/0",
        "rediss://127.0.0.1:{0}/0?ssl_cert_reqs=none",
        "redis://127.0.0.1:{0}/0;redis://127.0.0.1:{1}/0;redis://127.0.0.1:{2}/0",
        "sentinel://127.0.0.1:{0}/0",
        "sentinel://127.0.0.1:{0}/0;sentinel://127.0.0.1:{1}/0;sentinel://127.0.0.1:{2}/0",
        "amqp://guest:guest@127.0.0.1:{0}//",
        "amqp://guest:guest@127.0.0.1:{0}//;amqp://guest:guest@127.0.0.1:{1}//",
    ],
)
@override_settings(CONGRESSY_MAILER=LONG_BREAK)
def test_the_caller_waits_a_second_at_most_for_whoever_accepts_and_never_answers(
    url: str,
    publish_to: Callable[..., None],
    silent: Callable[[], int],
    least: Least,
    caplog: pytest.LogCaptureFixture,
) -> None:
    options = {"master_name": "congressy"} if url.startswith("sentinel") else {}
    publish_to(url.format(silent(), silent(), silent()), **options)

    def wait() -> float:
        first = cost()
        assert_calls_nobody()
        assert said(caplog) == [AWAY]
        return first

    assert least(wait) < FIRST


def test_options_of_the_host_do_not_make_the_caller_wait_longer(
    publish_to: Callable[..., None], redis_server: EmbeddedRedis, least: Least
) -> None:
    patient = {"socket_timeout": 30, "socket_connect_timeout": 30, "max_retries": 5, "retry_on_timeout": True}
    # Every use of the connection begins with a health check.
    publish_to(redis_server.url, **patient, health_check_interval=0.001)

    def wait() -> float:
        queue()
        with hung(redis_server):
            return cost()

    def wait_for_a_new_connection() -> float:
        with hung(redis_server):
            return cost()

    assert least(wait) < FIRST
    assert least(wait_for_a_new_connection) < FIRST


@pytest.mark.parametrize("away", ["refused", "silent"])
def test_the_next_address_of_a_list_is_used(
    away: str,
    redis_server: EmbeddedRedis,
    publish_to: Callable[..., None],
    silent: Callable[[], int],
    least: Least,
) -> None:
    port = free_port() if away == "refused" else silent()
    publish_to(f"redis://127.0.0.1:{port}/0;{redis_server.url}")

    def wait() -> float:
        keys: set[UUID] = set()
        waited = own_seconds(lambda: keys.update(queue(2)))
        assert published(redis_server.port) >= keys
        return waited

    assert least(wait) < FIRST


def test_the_next_sentinel_of_a_list_is_used(
    under_sentinel: RedisUnderSentinel,
    publish_to: Callable[..., None],
    silent: Callable[[], int],
    least: Least,
) -> None:
    publish_to(f"sentinel://127.0.0.1:{silent()}/0;{under_sentinel.url}", **under_sentinel.transport_options)

    def wait() -> float:
        keys: set[UUID] = set()
        waited = own_seconds(lambda: keys.update(queue(2)))
        assert published(under_sentinel.master.port) >= keys
        return waited

    assert least(wait) < FIRST


@override_settings(CONGRESSY_MAILER={"BREAKER_TIME": timedelta(seconds=30)})
def test_callers_at_the_same_time_do_not_wait_for_each_other_and_later_only_one_of_them_tries(
    broker: str, redis_server: EmbeddedRedis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = publisher._connect
    all_try, others_are_done = threading.Barrier(5), threading.Barrier(5)
    tries: list[int] = []

    def connect_together(app: Celery, timeout: float) -> Producer:
        tries.append(threading.get_ident())
        all_try.wait(30)
        return connect(app, timeout)

    def connect_last(app: Celery, timeout: float) -> Producer:
        tries.append(threading.get_ident())
        others_are_done.wait(30)
        return connect(app, timeout)

    def send_while_one_tries() -> None:
        queue()
        if threading.get_ident() not in tries:
            others_are_done.wait(30)

    with hung(redis_server):
        monkeypatch.setattr(publisher, "_connect", connect_together)
        run_concurrently(lambda worker: queue(), 5)
        assert len(tries) == 5
        # All of them failed for one reason, and the break is no longer for it.
        assert publisher.breaker().open_until <= time.monotonic() + 30
        end_the_break()
        tries.clear()
        monkeypatch.setattr(publisher, "_connect", connect_last)
        run_concurrently(lambda worker: send_while_one_tries(), 5)
        assert len(tries) == 1
    assert said(caplog) == [AWAY]


def test_a_child_process_finds_out_for_itself(broker: str, redis_server: EmbeddedRedis) -> None:
    breaker = publisher.breaker()
    with refused(redis_server):
        queue()
        assert not breaker.allows_call()
    # Another thread may hold the lock at that moment, and there is no such thread in the child.
    with breaker.lock:
        child = os.fork()
        if child == 0:  # pragma: no cover
            os._exit(0 if publisher.breaker().allows_call() and sending.publish_sweep() else 1)
    assert os.waitpid(child, 0)[1] == 0


@override_settings(CONGRESSY_MAILER=LONG_BREAK)
def test_a_hung_rabbitmq_costs_a_second_at_most(
    publish_to: Callable[..., None], least: Least, caplog: pytest.LogCaptureFixture
) -> None:
    if not RabbitMQ.is_installed():
        pytest.skip(f"{RabbitMQ.name} is not installed: apt install {RabbitMQ.package}")

    with RabbitMQ() as server:
        publish_to(server.url)

        def wait_on_an_open_connection() -> float:
            queue()
            return wait_on_a_new_connection()

        def wait_on_a_new_connection() -> float:
            with stopped(server.pid):
                first = cost()
                assert_calls_nobody()
            assert said(caplog) == [AWAY]
            assert set(Message.objects.values_list("state", flat=True)) == {State.QUEUED}
            return first

        assert least(wait_on_an_open_connection) < FIRST
        assert least(wait_on_a_new_connection) < FIRST
