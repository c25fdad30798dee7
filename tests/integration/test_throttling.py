"""The rate, the slow-down and the number of connections, for several processes with one real Redis."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from celery.exceptions import SoftTimeLimitExceeded
from django.core.exceptions import ImproperlyConfigured
from redis.exceptions import NoPermissionError

from congressy_mailer import throttling
from congressy_mailer.replies import Reply
from congressy_mailer.throttling import connections, stores
from congressy_mailer.throttling.limiter import RateLimiter
from congressy_mailer.throttling.memory_store import MemoryStore
from congressy_mailer.throttling.rates import COUNT_WINDOW, SlowDown, burst_size
from congressy_mailer.throttling.redis_store import RedisStore
from congressy_mailer.throttling.store import LimitStore, Snapshot
from testbed.redis_server import EmbeddedRedis
from testbed.servers.sentinel import RedisUnderSentinel
from tests.conftest import reset_throttling, run_concurrently, wait_for

CelerySettings = Callable[..., None]

ROOT = Path(__file__).parent.parent.parent
TOO_FAST = Reply(451, "4.7.1 Rate limit exceeded, try again later")
#: What a call may take while Redis does not answer.
BOUND = 0.5


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
    return RedisStore(request.getfixturevalue("client"))


@contextmanager
def workers(url: str, count: int, **configured: Any) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that wait for orders: see :mod:`tests.support.throttling_worker`."""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "BROKER_URL": url}
    command = [sys.executable, "-m", "tests.support.throttling_worker"]
    started = [
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        for _ in range(count)
    ]
    try:
        assert ordered(started, CELERY_APP="tests.project:app", **configured) == ["ready"] * count
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def three_workers() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that share a Redis and these limits."""
    with EmbeddedRedis() as server, workers(server.url, 3, RATE_LIMIT="200/s", MAX_CONNECTIONS=2) as processes:
        yield processes


def ordered(processes: list[subprocess.Popen[str]], **order: Any) -> list[Any]:
    """Give all the same order, and return what they answer."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(json.dumps(order) + "\n")
    return [json.loads(process.stdout.readline()) for process in processes if process.stdout is not None]


@contextmanager
def stopped(process: int) -> Iterator[None]:
    """A process that exists and does nothing."""
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def took(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def permits_at_once(rate_limiter: RateLimiter) -> int:
    """How many mails may be handed over without waiting; at most 500."""
    count = 0
    while count < 500 and not rate_limiter.acquire():
        count += 1
    return count


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_all_processes_together_keep_to_the_rate(three_workers: list[subprocess.Popen[str]]) -> None:
    rate, seconds = 200, 1.5
    answers = ordered(three_workers, do="turns", seconds=seconds)
    assert all(answers)
    times = sorted(moment for answer in answers for moment in answer)
    for window in (0.05, 0.2, 0.5, 1.0):
        most = max(bisect_left(times, moment + window) - index for index, moment in enumerate(times))
        # What may add up, what the three hold for their next mails, and what the machine delays.
        assert most <= rate * window + burst_size(rate) + rate * 0.05, (window, most)
    assert len(times) >= rate * seconds * 0.5


def test_without_a_limit_redis_is_asked_once_a_second_and_with_one_for_several_mails_at_a_time(
    client: redis.Redis, settings: Any
) -> None:
    def calls() -> int:
        return int(client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"])

    began = time.monotonic()
    free = throttling.rate_limiter_for("")
    before = calls()
    assert not any(free.acquire() for _ in range(10_000))
    assert calls() - before <= 1 + time.monotonic() - began + 1
    settings.CONGRESSY_MAILER = {"RATE_LIMIT": "100000/s"}
    limited = throttling.rate_limiter_for("other")
    before = calls()
    for _ in range(1000):
        limited.observe_replies([TOO_FAST])
    assert calls() - before <= 4
    limited = throttling.rate_limiter_for("third")
    before = calls()
    assert sum(not limited.acquire() for _ in range(2000)) == 2000
    assert calls() - before < 100


def test_after_a_pause_no_second_s_allowance_comes_at_once(client: redis.Redis, settings: Any) -> None:
    settings.CONGRESSY_MAILER = {"RATE_LIMIT": "500/s"}
    began = time.monotonic()
    count = permits_at_once(throttling.rate_limiter_for(""))
    assert 1 <= count <= burst_size(500) + 500 * (time.monotonic() - began) + 1
    settings.CONGRESSY_MAILER = {"RATE_LIMIT": "1/m"}
    hourly = throttling.rate_limiter_for("other")
    assert permits_at_once(hourly) == 1
    assert 50 < hourly.acquire().total_seconds() <= 60


def test_each_mail_backend_has_a_rate_of_its_own(client: redis.Redis, settings: Any) -> None:
    settings.CONGRESSY_MAILER = {"RATE_LIMIT": "1/h"}
    assert [permits_at_once(throttling.rate_limiter_for(using)) for using in ("", "eu", "")] == [1, 1, 0]
    assert throttling.rate_limiter_for("") is throttling.rate_limiter_for("default")


@pytest.mark.django_db(transaction=True)
def test_a_complaint_slows_all_down_and_is_said_once(client: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
    rate_limiters = [RateLimiter("default") for _ in range(4)]
    assert [permits_at_once(rate_limiter) for rate_limiter in rate_limiters] == [500] * 4
    run_concurrently(lambda worker: rate_limiters[worker].observe_replies([Reply(250, "2.0.0 OK"), TOO_FAST]))
    (said,) = warnings(caplog)
    assert "'default' says that mail comes too fast: 451 4.7.1 Rate limit exceeded, try again later." in said
    slow_down = SlowDown.decode(client.hget("congressy_mailer:pace:default", "noted") or "")
    assert slow_down is not None
    assert slow_down.rate >= 50
    # Nothing else than too fast counts.
    elsewhere = RateLimiter("default")
    elsewhere.observe_replies([Reply(451, "4.7.1 Greylisted"), Reply(250, "2.0.0 OK")])
    # Complaints that were under way together are one.
    elsewhere.observe_replies([TOO_FAST])
    assert SlowDown.decode(client.hget("congressy_mailer:pace:default", "noted") or "") == slow_down
    assert permits_at_once(RateLimiter("eu")) == 500
    # Somebody who has heard nothing himself.
    now = float(client.time()[0])
    client.hset("congressy_mailer:pace:default", "noted", SlowDown(now, now, 2, 100).encode())
    assert permits_at_once(RateLimiter("default")) <= 1


@pytest.mark.django_db(transaction=True)
def test_the_end_of_a_slow_down_is_said_once(client: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
    now = float(client.time()[0])
    client.hset("congressy_mailer:pace:default", "noted", SlowDown(now - 400, now - 200, 50, 100).encode())
    assert run_concurrently(lambda worker: permits_at_once(RateLimiter("default"))) == [500] * 4
    (said,) = warnings(caplog)
    assert "'default' is no longer sent to more slowly, after 0:06:4" in said
    assert client.hget("congressy_mailer:pace:default", "noted") is None


def test_what_makes_no_sense_in_redis_limits_nothing(client: redis.Redis) -> None:
    client.hset("congressy_mailer:pace:default", "noted", "of another version")
    assert permits_at_once(throttling.rate_limiter_for("")) == 500


def test_no_more_connections_than_allowed_and_none_unused(three_workers: list[subprocess.Popen[str]]) -> None:
    answers = ordered(three_workers, do="connections", seconds=0.6)
    events = sorted(
        (moment, step)
        for answer in answers
        for open_for in answer
        for moment, step in zip(open_for, (1, -1), strict=True)
    )
    open_now = most = 0
    for _, step in events:
        open_now += step
        most = max(most, open_now)
    assert most == 2


def test_the_connection_of_a_killed_process_is_free_at_once(
    redis_server: EmbeddedRedis, client: redis.Redis, settings: Any
) -> None:
    settings.CONGRESSY_MAILER = {"MAX_CONNECTIONS": 1}
    with workers(redis_server.url, 1, MAX_CONNECTIONS=1) as processes:
        assert ordered(processes, do="hold") == [True]
        refused = throttling.connection_slot("")
        assert not refused.acquired
        assert 1 <= refused.retry_in.total_seconds() <= 3
        # Without asking again.
        with stopped(redis_server.pid):
            assert not throttling.connection_slot("").acquired
        processes[0].kill()
        processes[0].wait(10)
        connections._refused_until.clear()
        assert throttling.connection_slot("").acquired


def test_the_connection_of_another_host_is_free_when_its_time_is_over(client: redis.Redis, settings: Any) -> None:
    settings.CONGRESSY_MAILER = {"MAX_CONNECTIONS": 1}
    seconds, microseconds = client.time()
    client.zadd("congressy_mailer:connections:default", {"another host": seconds + microseconds / 1e6 + 0.8})

    def acquired() -> bool:
        connections._refused_until.clear()
        return throttling.connection_slot("").acquired

    assert not acquired()
    wait_for(acquired, 5)


def test_a_connection_at_rest_is_given_up_where_others_wait(client: redis.Redis, settings: Any) -> None:
    settings.CONGRESSY_MAILER = {"MAX_CONNECTIONS": 1}
    slot = throttling.connection_slot("")
    assert slot.acquired
    assert slot.renew()
    assert slot.may_stay_open()
    assert not throttling.connection_slot("").acquired
    assert throttling.connection_slot("eu").acquired
    assert not slot.may_stay_open()
    # It is still held until it is closed.
    assert slot.renew()
    slot.release()
    assert not slot.renew()
    assert throttling.connection_slot("").acquired


def test_a_connection_whose_slot_was_lost_is_closed_or_counted_again(
    client: redis.Redis, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CONGRESSY_MAILER = {"MAX_CONNECTIONS": 1}
    monkeypatch.setattr(connections, "_RENEW_INTERVAL", 0)
    slot = throttling.connection_slot("")
    client.flushall()
    assert slot.renew()
    assert client.zcard("congressy_mailer:connections:default") == 1
    client.flushall()
    assert throttling.connection_slot("").acquired
    assert not slot.renew()
    assert not slot.may_stay_open()


def test_without_a_limit_for_connections_nobody_is_asked(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.CONGRESSY_MAILER = {"MAX_CONNECTIONS": None}
    monkeypatch.setattr(connections, "limit_stores", None)
    slots = [throttling.connection_slot("") for _ in range(20)]
    assert all(slot.acquired and slot.renew() and slot.may_stay_open() for slot in slots)
    slots[0].release()
    assert not slots[0].acquired


def test_a_redis_that_hangs_holds_nobody_up_for_long(
    redis_server: EmbeddedRedis,
    client: redis.Redis,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings.CONGRESSY_MAILER = {"RATE_LIMIT": "1/h", "MAX_CONNECTIONS": 1}
    assert permits_at_once(throttling.rate_limiter_for("")) == 1
    assert throttling.connection_slot("").acquired
    with stopped(redis_server.pid):
        # On the open connection; then without trying; then on a new one.
        assert took(lambda: throttling.connection_slot("eu")) < BOUND
        assert took(lambda: [throttling.connection_slot("eu").release() for _ in range(50)]) < BOUND / 2
        stores.limit_stores._next_try = 0.0
        assert took(lambda: throttling.connection_slot("eu").release()) < 2 * BOUND
        # Each process for itself meanwhile.
        assert permits_at_once(RateLimiter("default")) == 1
        assert permits_at_once(RateLimiter("default")) == 0
        assert len(warnings(caplog)) == 1
        assert "Redis does not answer" in warnings(caplog)[0]
    stores.limit_stores._next_try = 0.0
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
    assert client.zcard("congressy_mailer:connections:default") == 1
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
            stores.limit_stores._failures,
        ]
        os.write(writing, json.dumps(said).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert json.loads(os.read(reading, 1000)) == [True, 0, 0]
    os.close(reading)
    os.close(writing)
    assert parent.may_stay_open()
    assert client.zcard("congressy_mailer:connections:default") == 2


def test_what_is_kept_in_redis_ends_by_itself_and_names_nobody(client: redis.Redis, settings: Any) -> None:
    settings.CONGRESSY_MAILER = {"RATE_LIMIT": "100/s"}
    rate_limiter = throttling.rate_limiter_for("")
    permits_at_once(rate_limiter)
    rate_limiter.observe_replies([Reply(451, "too many messages from ana@example.com")])
    assert throttling.connection_slot("").acquired
    keys = sorted(client.scan_iter())
    assert keys == [f"congressy_mailer:{kind}:default" for kind in ("connections", "pace", "permits")]
    assert all(0 < client.ttl(key) <= 3600 for key in keys)
    assert "ana" not in str([client.hgetall(keys[1]), client.zrange(keys[0], 0, -1)])


def test_the_prefix_of_the_host_s_keys_is_used(
    redis_server: EmbeddedRedis, client: redis.Redis, ask_at: CelerySettings, settings: Any
) -> None:
    settings.CONGRESSY_MAILER = {"RATE_LIMIT": "1/h", "MAX_CONNECTIONS": 1}
    ask_at(redis_server.url, broker_transport_options={"global_keyprefix": "host:"})
    slot = throttling.connection_slot("")
    assert permits_at_once(throttling.rate_limiter_for("")) == 1
    assert {key.partition("congressy_mailer:")[0] for key in client.scan_iter()} == {"host:"}
    slot.release()
    assert client.exists("host:congressy_mailer:connections:default") == 0


def test_with_sentinel_the_master_is_asked(ask_at: CelerySettings, settings: Any) -> None:
    settings.CONGRESSY_MAILER = {"MAX_CONNECTIONS": 1}
    with RedisUnderSentinel() as group:
        ask_at(group.url, broker_transport_options=group.transport_options)
        assert throttling.connection_slot("").acquired
        assert not throttling.connection_slot("").acquired
        with redis.Redis(port=group.master.port) as master:
            assert master.zcard("congressy_mailer:connections:default") == 2
        reset_throttling()


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
        monkeypatch.setattr(stores, "find_celery_app", no_app)
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
        waited = run_concurrently(lambda worker: took(lambda: throttling.connection_slot(str(worker))), 12)
    assert max(waited) < 2 * BOUND
    assert len(warnings(caplog)) == 1
    assert stores.limit_stores._failures == 1


def test_where_redis_answers_with_an_error_the_process_counts_for_itself(client: redis.Redis) -> None:
    def ask(store: LimitStore) -> str:
        if isinstance(store, RedisStore):
            raise NoPermissionError("this user has no permissions to run the 'evalsha' command")
        return "local"

    assert stores.limit_stores.run(ask) == "local"


def test_who_is_interrupted_while_he_asks_is_interrupted(client: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
    def ask(store: LimitStore) -> None:
        raise SoftTimeLimitExceeded

    stores.limit_stores.run(lambda store: store.snapshot("x", 0))
    with pytest.raises(SoftTimeLimitExceeded):
        stores.limit_stores.run(ask)
    assert stores.limit_stores.run(type) is RedisStore
    assert warnings(caplog) == []


def test_who_complains_after_another_follows_him(client: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
    class Late(RedisStore):
        def replace_slow_down(self, name: str, expected: str, slow_down: str) -> bool:
            super().replace_slow_down(name, expected, SlowDown(0, 9e9, 7, 70).encode())
            return super().replace_slow_down(name, expected, slow_down)

    permits_at_once(throttling.rate_limiter_for(""))
    stores.limit_stores._redis = Late(client)
    throttling.rate_limiter_for("").observe_replies([TOO_FAST])
    assert warnings(caplog) == []
    assert permits_at_once(throttling.rate_limiter_for("")) == 1


def test_permits_are_given_evenly(store: LimitStore) -> None:
    assert store.take_permits("x", 1, 2, 2) == 0
    assert 0 < store.take_permits("x", 1, 2, 1) <= 1
    assert 1 < store.take_permits("x", 1, 2, 2) <= 2
    assert store.take_permits("y", 1, 2, 1) == 0
    # Another rate from here on, and what was taken counts.
    assert 1 < store.take_permits("x", 0.5, 1, 1) <= 2


def test_what_was_handed_over_is_counted(store: LimitStore) -> None:
    assert store.snapshot("x", 0).current == 0
    store.snapshot("x", 70)
    seen = store.snapshot("x", 30)
    assert (seen.current + seen.previous, seen.encoded, seen.slow_down) == (100, "", None)
    assert seen.measured_rate >= 20
    assert store.snapshot("y", 1).current == 1


def test_the_last_span_is_remembered_and_no_earlier_one(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    shared, local = RedisStore(client), MemoryStore()
    for store in (shared, local):
        store.snapshot("x", 100)
    now = time.monotonic()
    monkeypatch.setattr("congressy_mailer.throttling.memory_store.time.monotonic", lambda: now + COUNT_WINDOW)
    client.hincrby("congressy_mailer:pace:x", "span", -1)
    for seen in (shared.snapshot("x", 0), local.snapshot("x", 0)):
        assert (seen.previous, seen.current) == (100, 0)
        assert 0 <= seen.now - seen.counted_since < COUNT_WINDOW
    monkeypatch.setattr("congressy_mailer.throttling.memory_store.time.monotonic", lambda: now + 3 * COUNT_WINDOW)
    client.hincrby("congressy_mailer:pace:x", "span", -2)
    for seen in (shared.snapshot("x", 1), local.snapshot("x", 1)):
        assert (seen.previous, seen.current, seen.counted_since) == (0, 1, seen.now)


def test_only_one_of_two_notes_is_taken(store: LimitStore) -> None:
    store.snapshot("x", 0)
    assert store.replace_slow_down("x", "", "first")
    assert not store.replace_slow_down("x", "", "second")
    assert store.snapshot("x", 0).encoded == "first"
    assert store.replace_slow_down("x", "first", "")
    assert store.snapshot("x", 0).encoded == ""


def test_connections_are_given_and_taken_back(store: LimitStore) -> None:
    assert store.acquire("x", "a", 2).granted
    assert store.acquire("x", "b", 2).granted
    assert not store.acquire("x", "a", 2).others_wait
    refused = store.acquire("x", "c", 2)
    assert (refused.granted, {"a", "b"} <= set(refused.owners)) == (False, True)
    kept = store.acquire("x", "a", 2)
    assert (kept.granted, kept.others_wait, list(kept.owners)) == (True, True, [])
    assert store.acquire("y", "c", 2).granted
    store.release("x", ["a", "b"])
    assert store.acquire("x", "c", 1).granted


def test_a_look_shows_the_slow_down() -> None:
    slow_down = SlowDown(1, 2, 3, 4)
    assert Snapshot(5, slow_down.encode(), 0, 0, 0).slow_down == slow_down
