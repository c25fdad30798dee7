"""The broker away in every way it can be: what the caller pays meanwhile, and that everything arrives afterwards."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import sys
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from uuid import UUID

import pytest
import redis
from celery import Celery
from celery.signals import before_task_publish, celeryd_init
from django.test import override_settings
from django.utils import timezone
from kombu import Producer

from congressy_mailer import outbox, periodic
from congressy_mailer.broker import publisher, sending
from congressy_mailer.models import Message, State
from congressy_mailer.testing.local_sparkpost.replies import Exchange, Stage
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from testbed.processes import Process, free_port
from testbed.redis_server import EmbeddedRedis
from testbed.servers.rabbitmq import RabbitMQ
from testbed.servers.sentinel import RedisUnderSentinel
from tests.conftest import run_concurrently, wait_for
from tests.support.mails import queue
from tests.support.own_time import least_own_seconds, own_seconds
from tests.support.stopping import stopped

pytestmark = pytest.mark.django_db(transaction=True)

StartWorker = Callable[..., Process]
Least = Callable[[Callable[[], float]], float]
Way = Callable[[EmbeddedRedis], AbstractContextManager[None]]

#: Seconds that a caller may have to wait for a broker that is away.
FIRST = 1.0
#: For tests of what a caller does until the broker is tried again, however slow the machine is.
LONG_BREAK = {"BREAKER_TIME": timedelta(minutes=1)}
#: For what the broker has lost to be found soon, by this process and by a worker.
SOON = {"LOST_AFTER": timedelta(seconds=2)}
OFTEN = {
    "MAILER_TEST_BREAKER_TIME_SECONDS": "1",
    "MAILER_TEST_LOST_AFTER_SECONDS": "2",
    "MAILER_TEST_SWEEP_INTERVAL_SECONDS": "1",
}


@contextmanager
def refused(server: EmbeddedRedis) -> Iterator[None]:
    server.kill()
    yield
    server.start()


@contextmanager
def hung(server: EmbeddedRedis) -> Iterator[None]:
    with stopped(server.pid):
        yield


@contextmanager
def hung_for_new_connections(server: EmbeddedRedis) -> Iterator[None]:
    publisher._publisher = publisher._Publisher()
    with stopped(server.pid):
        yield


@contextmanager
def read_only(server: EmbeddedRedis) -> Iterator[None]:
    with redis.Redis(port=server.port) as client:
        client.replicaof("127.0.0.1", 1)
        yield
        client.replicaof("NO", "ONE")


@contextmanager
def out_of_memory(server: EmbeddedRedis) -> Iterator[None]:
    with redis.Redis(port=server.port) as client:
        client.config_set("maxmemory", "1mb")
        yield
        client.config_set("maxmemory", 0)


def cost() -> float:
    """Seconds that one call takes."""
    return own_seconds(queue)


@pytest.fixture
def least(caplog: pytest.LogCaptureFixture) -> Least:
    """The least of several attempts, each of which begins as the first did."""

    def anew(attempt: Callable[[], float]) -> float:
        publisher._publisher = publisher._Publisher()
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
    assert publisher._publisher.breaker.is_open()
    publisher._publisher.breaker.open_until = time.monotonic()


def published(port: int) -> set[UUID]:
    """Ids of messages in the queue of a Redis."""
    with redis.Redis(port=port) as client:
        tasks = [json.loads(raw) for raw in client.lrange("mailer", 0, -1)]
    return {UUID(key) for task in tasks for key in json.loads(b64decode(task["body"]))[0][0]}


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """What an operator reads in the log, of the breaker or of anything else."""
    return [
        (record.levelno, record.message.partition(" (")[0])
        for record in caplog.records
        if record.name.startswith("congressy_mailer") and record.levelno >= logging.WARNING
    ]


AWAY = (logging.ERROR, "The broker does not take messages")
BACK = (logging.WARNING, "The broker takes messages again.")


@pytest.fixture
def publish_to(broker: str, celery_settings: Callable[..., None]) -> Callable[..., None]:
    """Have this process publish to another broker."""

    def change(url: str | list[str], **transport_options: object) -> None:
        celery_settings(
            broker_url=url, broker_write_url=url, broker_read_url=url, broker_transport_options=transport_options
        )

    return change


@pytest.fixture
def under_sentinel(publish_to: Callable[..., None]) -> Iterator[RedisUnderSentinel]:
    """A Redis that another one replaces when it is away."""
    with RedisUnderSentinel() as group:
        publish_to(group.url, **group.transport_options)
        yield group


@pytest.fixture
def silent() -> Iterator[Callable[[], int]]:
    """Ports at which connections are accepted and nothing is ever answered."""
    with ExitStack() as listeners:

        def listen() -> int:
            listener = listeners.enter_context(socket.create_server(("127.0.0.1", 0)))
            return int(listener.getsockname()[1])

        yield listen


# --- what the caller pays ---------------------------------------------------------------------------------------


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
        assert publisher._publisher.breaker.open_until <= time.monotonic() + 30
        end_the_break()
        tries.clear()
        monkeypatch.setattr(publisher, "_connect", connect_last)
        run_concurrently(lambda worker: send_while_one_tries(), 5)
        assert len(tries) == 1
    assert said(caplog) == [AWAY]


def test_a_child_process_finds_out_for_itself(broker: str, redis_server: EmbeddedRedis) -> None:
    breaker = publisher._publisher.breaker
    with refused(redis_server):
        queue()
        assert not breaker.allows_call()
    # Another thread may hold the lock at that moment, and there is no such thread in the child.
    with breaker.lock:
        child = os.fork()
        if child == 0:  # pragma: no cover
            os._exit(0 if publisher._publisher.breaker.allows_call() and sending.publish_sweep() else 1)
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


# --- from the call to the mail server ---------------------------------------------------------------------------


def wait_until_idle(worker: Process, port: int) -> None:
    """Wait until a worker has nothing that it would acknowledge.

    Celery 5.7 ends a worker that had something to acknowledge when its Redis died.
    """
    swept = len(re.findall(r"sweep\[.+succeeded", worker.output()))
    wait_for(lambda: len(re.findall(r"sweep\[.+succeeded", worker.output())) > swept, what="the end of a sweep")
    with redis.Redis(port=port) as client:
        wait_for(lambda: not client.exists("unacked", "mailer"), what="an idle worker")


def wait_until_sweeps_are_missing() -> None:
    """Wait until a worker that sweeps every second has met the outage too."""
    wait_for(
        lambda: timezone.now() - (periodic.last_run(periodic.SWEEP) or timezone.now()) > timedelta(seconds=2),
        what="a missing sweep",
    )


def wait_until_sent(count: int, seconds: float = 40) -> None:
    wait_for(
        lambda: Message.objects.filter(state=State.SENT).count() == count,
        seconds,
        f"{count} sent messages (now: {list(Message.objects.values_list('state', 'reason'))})",
    )


def assert_each_arrived_once(smtp_server: LocalSparkPost) -> None:
    sent = Message.objects.filter(state=State.SENT).values_list("message_id", flat=True)
    assert sorted(mail.message_id for mail in smtp_server.mailbox) == sorted(sent)


@pytest.mark.parametrize("away", [refused, hung, read_only, out_of_memory])
def test_mail_sent_before_during_and_after_an_outage_arrives_once(
    away: Way, start_worker: StartWorker, smtp_server: LocalSparkPost, redis_server: EmbeddedRedis
) -> None:
    worker = start_worker(**OFTEN)
    queue()
    wait_until_sent(1)
    wait_until_idle(worker, redis_server.port)
    with away(redis_server):
        queue(2)
        assert Message.objects.filter(state=State.QUEUED).count() == 2
        wait_until_sweeps_are_missing()
    queue()
    wait_until_sent(4)
    assert_each_arrived_once(smtp_server)
    assert worker.running


@pytest.mark.parametrize("away", [read_only, out_of_memory])
def test_a_redis_that_refuses_commands_is_one_line_in_the_log_of_a_worker(
    away: Way, start_worker: StartWorker, redis_server: EmbeddedRedis
) -> None:
    worker = start_worker(**OFTEN)
    queue()
    wait_until_sent(1)
    wait_until_idle(worker, redis_server.port)
    before = len(worker.output())
    with away(redis_server), redis.Redis(port=redis_server.port) as client:
        if away is out_of_memory:
            # It still gives out what it has, and refuses those that come back.
            client.client_kill_filter(_type="normal", skipme=True)
        wait_for(lambda: "The broker refuses" in worker.output()[before:], what="the line in the log")
        connections = client.info("stats")["total_connections_received"]
        wait_for(lambda: client.info("stats")["total_connections_received"] >= connections + 4, 60, "further tries")
        said = worker.output()[before:]
    # But for what Celery says of a connection that was killed.
    lines = re.findall(r"^(?!.*(?:Connection to broker lost|CPending)).*(?:WARNING|ERROR|CRITICAL).*$", said, re.M)
    refused = [line for line in lines if "The broker refuses what this worker asks of it" in line]
    assert len(refused) == 1, said
    # The other is the publisher's: the sweep is published by the worker, too.
    assert len(lines) <= 2, said
    assert "Traceback" not in said
    queue()
    wait_until_sent(2)


@override_settings(CONGRESSY_MAILER=SOON)
def test_mail_in_the_queue_of_a_redis_that_comes_back_empty_arrives_once(
    start_worker: StartWorker, smtp_server: LocalSparkPost, redis_server: EmbeddedRedis
) -> None:
    worker = start_worker(**OFTEN)
    wait_until_idle(worker, redis_server.port)
    with redis.Redis(port=redis_server.port) as client, stopped(worker.pid):
        # What it has asked for already it would be given.
        wait_for(lambda: not client.info("clients")["blocked_clients"], what="the end of the worker's last request")
        keys = set(queue(2))
        assert keys <= published(redis_server.port)
        redis_server.kill()
        redis_server.start()
        assert not client.exists("mailer")
    wait_until_sent(2)
    assert_each_arrived_once(smtp_server)
    assert worker.running


@override_settings(CONGRESSY_MAILER=SOON)
def test_a_message_that_a_worker_cannot_take_from_a_full_redis_arrives_once(
    start_worker: StartWorker, smtp_server: LocalSparkPost, redis_server: EmbeddedRedis
) -> None:
    worker = start_worker(**OFTEN)
    wait_until_idle(worker, redis_server.port)
    with ExitStack() as outage:
        with redis.Redis(port=redis_server.port) as client, stopped(worker.pid):
            wait_for(lambda: not client.info("clients")["blocked_clients"], what="the end of the worker's last request")
            queue()
            outage.enter_context(out_of_memory(redis_server))
        wait_for(lambda: not published(redis_server.port), what="the message in the worker's hands")
        wait_until_sweeps_are_missing()
    wait_until_sent(1)
    assert_each_arrived_once(smtp_server)
    assert worker.running


def test_mail_sent_before_during_and_after_a_failover_by_sentinel_arrives_once(
    under_sentinel: RedisUnderSentinel, start_worker: StartWorker, smtp_server: LocalSparkPost
) -> None:
    worker = start_worker(
        BROKER_URL=under_sentinel.url,
        BROKER_TRANSPORT_OPTIONS=json.dumps(under_sentinel.transport_options),
        **OFTEN,
    )
    queue()
    wait_until_sent(1)
    wait_until_idle(worker, under_sentinel.master.port)
    under_sentinel.master.kill()
    queue()
    assert Message.objects.filter(state=State.QUEUED).exists()
    wait_for(lambda: under_sentinel.current_master() == under_sentinel.replica.port, what="the failover")
    queue()
    wait_until_sent(3)
    assert_each_arrived_once(smtp_server)
    assert worker.running


@override_settings(CONGRESSY_MAILER=SOON)
def test_mail_in_the_hands_of_a_worker_whose_redis_dies_arrives_once(
    start_worker: StartWorker, smtp_server: LocalSparkPost, redis_server: EmbeddedRedis
) -> None:
    handing_over, dead = threading.Event(), threading.Event()

    def hold(exchange: Exchange) -> None:
        if exchange.stage is Stage.DATA:
            handing_over.set()
            dead.wait(30)

    smtp_server.script = hold
    worker = start_worker(**OFTEN)
    queue()
    assert handing_over.wait(30)
    queue()
    redis_server.kill()
    dead.set()
    redis_server.start()
    wait_until_sent(2)
    assert_each_arrived_once(smtp_server)
    assert worker.running


@pytest.mark.parametrize(("given", "used"), [(None, True), (False, False), (True, True)])
def test_a_worker_outlives_errors_of_redis_unless_the_host_has_decided(given: bool | None, used: bool) -> None:
    app = Celery("host", set_as_current=False)
    app.conf.finalize()
    if given is not None:
        app.conf.broker_channel_error_retry = given
    celeryd_init.send(sender="worker@host", instance=app.Worker, conf=app.conf, options={"queues": "celery"})
    assert app.conf.broker_channel_error_retry is used


@pytest.mark.parametrize("given", [None, "celery.worker.consumer:Consumer"])
def test_a_consumer_of_the_hosts_own_is_kept(given: str | None) -> None:
    app = Celery("host", set_as_current=False)
    app.conf.finalize()
    if given:
        app.conf.worker_consumer = given
    celeryd_init.send(sender="worker@host", instance=app.Worker, conf=app.conf, options={"queues": "celery"})
    assert app.conf.worker_consumer == (given or "congressy_mailer.broker.consumer:ReconnectingConsumer")


def test_mail_sent_before_any_worker_or_redis_runs_is_found_by_the_first_sweep(
    start_worker: StartWorker, smtp_server: LocalSparkPost, redis_server: EmbeddedRedis
) -> None:
    redis_server.kill()
    queue()
    redis_server.start()
    start_worker()
    wait_until_sent(1)
    assert_each_arrived_once(smtp_server)
