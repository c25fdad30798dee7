"""The broker away in every way it can be: everything that is sent meanwhile arrives afterwards, and once."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta

import pytest
import redis
from celery import Celery
from celery.signals import celeryd_init
from django.test import override_settings
from django.utils import timezone

from congressy_mailer import periodic
from congressy_mailer.models import Message, State
from congressy_mailer.testing.local_sparkpost.replies import Exchange, Stage
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from testbed.processes import Process
from testbed.redis_server import EmbeddedRedis
from testbed.servers.sentinel import RedisUnderSentinel
from tests.conftest import wait_for
from tests.support.broker_away import Way, hung, out_of_memory, published, read_only, refused
from tests.support.mails import queue
from tests.support.stopping import stopped

pytestmark = pytest.mark.django_db(transaction=True)


StartWorker = Callable[..., Process]
#: For what the broker has lost to be found soon, by this process and by a worker.
SOON = {"LOST_AFTER": timedelta(seconds=2)}
OFTEN = {
    "MAILER_TEST_BREAKER_TIME_SECONDS": "1",
    "MAILER_TEST_LOST_AFTER_SECONDS": "2",
    "MAILER_TEST_SWEEP_INTERVAL_SECONDS": "1",
}


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
