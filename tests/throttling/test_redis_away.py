"""Where Redis is away, or answers with an error, each process counts for itself, and waits for no answer."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
import redis
from celery.exceptions import SoftTimeLimitExceeded
from django.core.exceptions import ImproperlyConfigured
from redis.exceptions import NoPermissionError

from congressy_mailer import throttling
from congressy_mailer.throttling import store_choice
from congressy_mailer.throttling.limiter import RateLimiter
from congressy_mailer.throttling.redis_store import RedisStore
from congressy_mailer.throttling.store import LimitStore
from testbed.redis_server import EmbeddedRedis
from tests.conftest import run_concurrently
from tests.support.own_time import least_own_seconds, own_seconds
from tests.support.stopping import stopped
from tests.support.throttling import CelerySettings, key, permits_at_once, warnings

#: Seconds that a call may take while Redis does not answer, and twice of it where it has to connect first.
BOUND = 0.5


def test_a_redis_that_hangs_holds_nobody_up_for_long(
    redis_server: EmbeddedRedis,
    client: redis.Redis,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings.CONGRESSY_MAILER = {"RATE_LIMIT": "1/h", "MAX_CONNECTIONS": 1}
    # Time enough for what does not try.
    monkeypatch.setattr(store_choice, "_FIRST_BREAK", 60.0)
    assert permits_at_once(throttling.rate_limiter_for("")) == 1
    assert throttling.connection_slot("").acquired

    def wait_on_a_new_connection() -> float:
        store_choice.limit_stores.end_break()
        return own_seconds(lambda: throttling.connection_slot("eu").release())

    with stopped(redis_server.pid):
        # On the open connection; then without trying; then on a new one.
        assert own_seconds(lambda: throttling.connection_slot("eu")) < BOUND
        failures = store_choice.limit_stores.failures
        for _ in range(50):
            throttling.connection_slot("eu").release()
        assert store_choice.limit_stores.failures == failures == 1
        assert least_own_seconds(2 * BOUND, wait_on_a_new_connection) < 2 * BOUND
        # Each process for itself meanwhile.
        assert permits_at_once(RateLimiter("default")) == 1
        assert permits_at_once(RateLimiter("default")) == 0
        assert len(warnings(caplog)) == 1
        assert "Redis does not answer" in warnings(caplog)[0]
    store_choice.limit_stores.end_break()
    assert not throttling.connection_slot("").acquired
    assert len(warnings(caplog)) == 2
    assert "Redis answers again" in warnings(caplog)[1]


def test_a_redis_that_was_restarted_is_used_at_once(
    redis_server: EmbeddedRedis, client: redis.Redis, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.CONGRESSY_MAILER = {"MAX_CONNECTIONS": 1}
    slot = throttling.connection_slot("")
    redis_server.kill()
    redis_server.start()
    assert slot.may_stay_open()
    assert client.zcard(key("connections")) == 1
    assert warnings(caplog) == []


def test_a_forked_process_asks_over_a_connection_of_its_own(client: redis.Redis, settings: Any) -> None:
    settings.CONGRESSY_MAILER = {"MAX_CONNECTIONS": 2, "RATE_LIMIT": "1/h"}
    parent = throttling.connection_slot("")
    assert permits_at_once(throttling.rate_limiter_for("")) == 1
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        said = [
            throttling.connection_slot("").acquired,
            permits_at_once(throttling.rate_limiter_for("")),
            store_choice.limit_stores.failures,
        ]
        os.write(writing, json.dumps(said).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert json.loads(os.read(reading, 1000)) == [True, 0, 0]
    os.close(reading)
    os.close(writing)
    assert parent.may_stay_open()
    assert client.zcard(key("connections")) == 2


@pytest.mark.parametrize("celery", ["another broker", "eager", "none"])
def test_without_a_redis_each_process_counts_for_itself(
    celery: str,
    ask_at: CelerySettings,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def no_app() -> None:
        raise ImproperlyConfigured("No Celery app was found.")

    settings.CONGRESSY_MAILER = {"RATE_LIMIT": "1/h", "MAX_CONNECTIONS": 1}
    ask_at(
        "redis://127.0.0.1:1/0" if celery == "eager" else "amqp://127.0.0.1:1//", task_always_eager=celery == "eager"
    )
    if celery == "none":
        monkeypatch.setattr(store_choice, "find_celery_app", no_app)
    assert permits_at_once(throttling.rate_limiter_for("")) == 1
    slot = throttling.connection_slot("")
    assert slot.acquired
    assert not throttling.connection_slot("").acquired
    slot.release()
    assert throttling.connection_slot("").acquired
    assert warnings(caplog) == []


@pytest.mark.django_db(transaction=True)
def test_threads_that_find_redis_away_at_once_wait_together_and_say_it_once(
    redis_server: EmbeddedRedis, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    with stopped(redis_server.pid):
        waited = run_concurrently(lambda worker: own_seconds(lambda: throttling.connection_slot(str(worker))), 12)
    # One after another, the last would have waited for all of them.
    assert max(waited) < 12 * BOUND / 2
    assert len(warnings(caplog)) == 1
    assert store_choice.limit_stores.failures == 1


def test_where_redis_answers_with_an_error_the_process_counts_for_itself(client: redis.Redis) -> None:
    def ask(store: LimitStore) -> str:
        if isinstance(store, RedisStore):
            raise NoPermissionError("this user has no permissions to run the 'evalsha' command")
        return "local"

    assert store_choice.limit_stores.run(ask) == "local"


def test_who_is_interrupted_while_he_asks_is_interrupted(client: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
    def ask(store: LimitStore) -> None:
        raise SoftTimeLimitExceeded

    store_choice.limit_stores.run(lambda store: store.snapshot("x", 0))
    with pytest.raises(SoftTimeLimitExceeded):
        store_choice.limit_stores.run(ask)
    assert store_choice.limit_stores.run(type) is RedisStore
    assert warnings(caplog) == []
