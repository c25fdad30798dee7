"""A Redis that this process asks, and processes that share it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from congressy_mailer.throttling import store_choice
from congressy_mailer.throttling.memory_store import MemoryStore
from congressy_mailer.throttling.redis_store import RedisStore
from congressy_mailer.throttling.store import LimitStore
from testbed.redis_server import EmbeddedRedis
from tests.conftest import reset_throttling
from tests.support.throttling import CelerySettings, workers


@pytest.fixture
def ask_at(celery_settings: CelerySettings) -> Iterator[CelerySettings]:
    """Have this process ask at a broker."""

    def ask(url: str, **settings: Any) -> None:
        reset_throttling()
        celery_settings(broker_url=url, broker_write_url=url, broker_read_url=url, **settings)

    yield ask
    reset_throttling()


@pytest.fixture
def client(redis_server: EmbeddedRedis, ask_at: CelerySettings) -> Iterator[redis.Redis]:
    """The Redis that this process asks, to look into."""
    ask_at(redis_server.url)
    with redis.Redis(port=redis_server.port, decode_responses=True) as client:
        yield client


@pytest.fixture(params=["shared", "local"])
def store(request: pytest.FixtureRequest) -> LimitStore:
    """Both stores must do the same."""
    if request.param == "local":
        return MemoryStore()
    return RedisStore(request.getfixturevalue("client"), store_choice.throttling_group())


@pytest.fixture(scope="package")
def three_workers() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that share a Redis and these limits."""
    with EmbeddedRedis() as server, workers(server.url, 3, RATE_LIMIT="200/s", MAX_CONNECTIONS=2) as processes:
        yield processes
