"""What goes wrong. A fault is a generator: it breaks something, yields how many seconds to wait, and heals it."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import redis

from testbed.redis_server import EmbeddedRedis
from tests.chaos.clocks import APART
from tests.chaos.stage import Stage, Worker
from tests.project import app

_STEP = 0.05
#: A worker that has not stopped by then is killed, as a supervisor would; Celery's own warm shutdown has no limit.
_LONGEST_STOP = 25.0
_LONGEST_START = 12.0

Course = Iterator[float]


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong."""

    name: str
    #: What it happens to; nothing else happens to that until it is healed.
    subject: str
    #: Breaks it, waits, heals it.
    begin: Callable[[], Course]


def deck(stage: Stage, rng: random.Random) -> Iterator[Fault]:
    """Faults without end: each kind once, in random order, then all over again."""
    while True:
        kinds = [*_of_workers(stage, rng), *_of_the_mail_server(stage, rng), *_of_the_servers(stage, rng)]
        rng.shuffle(kinds)
        yield from kinds


def _of_workers(stage: Stage, rng: random.Random) -> Iterator[Fault]:
    for name, course in (
        ("kill -9 of a worker", _kill_worker),
        ("kill -9 of one of its processes", _kill_child),
        ("SIGTERM and restart of a worker", partial(_stop_worker, signal.SIGTERM)),
        ("SIGQUIT and restart of a worker", partial(_stop_worker, signal.SIGQUIT)),
    ):
        worker = rng.choice(stage.workers)
        yield Fault(name, worker.name, partial(course, stage, worker, rng.uniform(0.1, 1.5), rng.random()))
    clock, worker = rng.choice([APART, -APART]), rng.choice(stage.workers)
    if not stage.config.why_no_clocks():
        name = f"clock of a worker an hour {'ahead' if clock > timedelta(0) else 'behind'}"
        yield Fault(name, worker.name, partial(_set_clock, stage, worker, clock))
    yield Fault("slow tasks of the host", "host", partial(_occupy, [rng.uniform(1.5, 2.5) for _ in range(12)]))


def _of_the_mail_server(stage: Stage, rng: random.Random) -> Iterator[Fault]:
    yield Fault("kill -9 of the mail server", "mail server", partial(_kill_mail_server, stage, rng.uniform(0, 2)))
    yield Fault("storm of 4xx replies", "mail server", partial(_storm, stage))


def _of_the_servers(stage: Stage, rng: random.Random) -> Iterator[Fault]:
    broker = stage.config.broker
    if broker is not None:
        yield Fault("kill -9 of the broker", "broker", partial(_kill_broker, stage, rng.uniform(0, 2)))
        yield Fault("SIGSTOP of the broker", "broker", partial(_stop_broker, stage, rng.uniform(1, 4)))
    if isinstance(broker, EmbeddedRedis):
        yield Fault("broker drops all connections", "broker", partial(_drop_connections, broker))
    if stage.config.database is not None:
        yield Fault("kill -9 of the database", "database", partial(_kill_database, stage, rng.uniform(0, 2)))


def _kill_worker(stage: Stage, worker: Worker, wait: float, choice: float) -> Course:
    stage.kill("worker", worker.process.kill)
    yield wait
    worker.start()
    yield from _until_ready(worker)


def _kill_child(stage: Stage, worker: Worker, wait: float, choice: float) -> Course:
    children = worker.children()
    if children:
        child = children[int(choice * len(children))]
        with suppress(ProcessLookupError):
            stage.kill("process of a worker", lambda: os.kill(child, signal.SIGKILL))
    yield 0.5


def _stop_worker(number: signal.Signals, stage: Stage, worker: Worker, wait: float, choice: float) -> Course:
    if choice < 0.5:
        os.kill(worker.process.pid, number)
    else:
        # Its pool processes get it too, as by systemd.
        os.killpg(worker.process.pid, number)
    deadline = time.monotonic() + _LONGEST_STOP
    while worker.process.running and time.monotonic() < deadline:
        yield _STEP
    if worker.process.running:
        stage.kill("worker that did not stop", worker.process.kill)
    worker.process.kill()
    worker.start()
    yield from _until_ready(worker)


def _set_clock(stage: Stage, worker: Worker, clock: timedelta) -> Course:
    """A worker moves to a host with a wrong clock, or back to one with a right one."""
    worker.ahead = clock if worker.ahead != clock else timedelta(0)
    yield from _stop_worker(signal.SIGTERM, stage, worker, 0.0, 0.0)


def _occupy(tasks: Sequence[float]) -> Course:
    """So that our tasks wait longer than ``LOST_AFTER``."""

    def publish() -> None:
        for seconds in tasks:
            # The broker may be away.
            with suppress(Exception):
                app.send_task("tests.chaos.slow", [seconds], retry=False, ignore_result=True)

    # The broker may hang as well, and it is this thread that lets it go on.
    threading.Thread(target=publish, daemon=True).start()
    yield sum(tasks) / 4


def _until_ready(worker: Worker) -> Course:
    deadline = time.monotonic() + _LONGEST_START
    while not worker.ready and time.monotonic() < deadline:
        yield 0.2


def _kill_mail_server(stage: Stage, wait: float) -> Course:
    server = stage.mail_server
    os.kill(server.process.pid, signal.SIGUSR2)
    # It dies in its next mail and says when itself; where none comes, it is killed while it waits.
    deadline = time.monotonic() + 3
    while server.process.running and time.monotonic() < deadline:
        yield _STEP
    if server.process.running:
        stage.kill("mail server", server.process.kill)
    server.process.kill()
    yield wait
    server.start()


def _storm(stage: Stage) -> Course:
    os.kill(stage.mail_server.process.pid, signal.SIGUSR1)
    yield 1.5


def _kill_broker(stage: Stage, wait: float) -> Course:
    """A Redis comes back with nothing in it, a RabbitMQ with what it has stored."""
    broker = stage.config.broker
    assert broker is not None
    broker.kill()
    yield wait
    broker.start()


def _stop_broker(stage: Stage, wait: float) -> Course:
    stage.signal_broker(signal.SIGSTOP)
    yield wait
    stage.signal_broker(signal.SIGCONT)


def _drop_connections(broker: EmbeddedRedis) -> Course:
    with redis.Redis.from_url(broker.url) as client:
        client.client_kill_filter(_type="normal", skipme=True)
        with suppress(redis.RedisError):
            client.client_kill_filter(_type="pubsub")
    yield 0.5


def _kill_database(stage: Stage, wait: float) -> Course:
    database = stage.config.database
    assert database is not None
    stage.kill("database", database.kill)
    yield wait
    database.start()
