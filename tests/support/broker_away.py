"""Ways in which a broker can be away."""

from __future__ import annotations

import json
import logging
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from uuid import UUID

import pytest
import redis

from testbed.redis_server import EmbeddedRedis
from tests.support.stopping import stopped

Way = Callable[[EmbeddedRedis], AbstractContextManager[None]]


@contextmanager
def refused(server: EmbeddedRedis) -> Iterator[None]:
    """Nobody listens."""
    server.kill()
    yield
    server.start()


@contextmanager
def hung(server: EmbeddedRedis) -> Iterator[None]:
    """It accepts connections, and answers nothing."""
    with stopped(server.pid):
        yield


@contextmanager
def read_only(server: EmbeddedRedis) -> Iterator[None]:
    """It takes no writes."""
    with redis.Redis(port=server.port) as client:
        client.replicaof("127.0.0.1", 1)
        yield
        client.replicaof("NO", "ONE")


@contextmanager
def out_of_memory(server: EmbeddedRedis) -> Iterator[None]:
    """It has no room."""
    with redis.Redis(port=server.port) as client:
        client.config_set("maxmemory", 1)
        yield
        client.config_set("maxmemory", 0)


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
