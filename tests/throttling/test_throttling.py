"""The rate, the slow-down and the number of connections, for several processes with one real Redis."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from celery.exceptions import SoftTimeLimitExceeded
from django.core.exceptions import ImproperlyConfigured
from redis.exceptions import NoPermissionError

from congressy_mailer import throttling
from congressy_mailer.replies import Reply
from congressy_mailer.throttling import connection_slots, rates, stores
from congressy_mailer.throttling.limiter import RateLimiter
from congressy_mailer.throttling.memory_store import MemoryStore
from congressy_mailer.throttling.rates import COUNT_WINDOW, MINIMUM_RATE, SlowDown, burst_size
from congressy_mailer.throttling.redis_store import RedisStore
from congressy_mailer.throttling.store import LimitStore, Snapshot
from testbed.redis_server import EmbeddedRedis
from testbed.servers.sentinel import RedisUnderSentinel
from tests.conftest import reset_throttling, run_concurrently
from tests.support.own_time import least_own_seconds, own_seconds

CelerySettings = Callable[..., None]

ROOT = Path(__file__).parent.parent.parent
TOO_FAST = Reply(451, "4.7.1 Rate limit exceeded, try again later")
#: Seconds that a call may take while Redis does not answer, and twice of it where it has to connect first.
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
    return RedisStore(request.getfixturevalue("client"), stores.throttling_group())


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


def permits_at_once(rate_limiter: RateLimiter) -> int:
    """How many mails may be handed over without waiting; at most 500."""
    count = 0
    while count < 500 and not rate_limiter.acquire():
        count += 1
    return count


def key(kind: str, name: str = "default") -> str:
    """The key of one of the store's things, of this project."""
    return f"congressy_mailer:{stores.throttling_group()}:{kind}:{name}"


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_all_processes_together_keep_to_the_rate(three_workers: list[subprocess.Popen[str]]) -> None:
    rate, seconds = 200, 1.5
    answers: list[list[tuple[float, float]]] = []
    # A busy machine may give too little time to all three.
    for _ in range(5):
        answers = ordered(three_workers, do="turns", seconds=seconds)
        turns = [turn for answer in answers for turn in answer]
        for window in (0.05, 0.2, 0.5, 1.0):
            # Only those that were surely given within it: between the question and the answer a process may rest.
            most = max(
                sum(began <= asked and answered <= began + window for asked, answered in turns) for began, _ in turns
            )
            # What may add up, and what the three hold for their next mails.
            assert most <= rate * window + burst_size(rate) + 3 * burst_size(rate) / 2, (window, most)
        if all(answers) and len(turns) >= rate * seconds * 0.5:
            return
    raise AssertionError([len(answer) for answer in answers])


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
    began = time.monotonic()
    for _ in range(1000):
        limited.observe_replies([TOO_FAST])
    assert calls() - before <= 4 * (1 + time.monotonic() - began)
    limited = throttling.rate_limiter_for("third")
    before = calls()
    assert sum(not limited.acquire() for _ in range(2000)) == 2000
    # A hundred at a time; on a machine that pauses often, some are asked for again.
    assert calls() - before < 400


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
def test_a_complaint_slows_all_down_and_is_said_once(
    client: redis.Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Time enough for all of this.
    monkeypatch.setattr(rates, "HALVING_INTERVAL", 60)
    rate_limiters = [RateLimiter("default") for _ in range(4)]
    assert [permits_at_once(rate_limiter) for rate_limiter in rate_limiters] == [500] * 4
    run_concurrently(lambda worker: rate_limiters[worker].observe_replies([Reply(250, "2.0.0 OK"), TOO_FAST]))
    (said,) = warnings(caplog)
    assert "'default' says that mail comes too fast: 451 4.7.1 Rate limit exceeded, try again later." in said
    slow_down = SlowDown.decode(client.hget(key("pace"), "noted") or "")
    assert slow_down is not None
    assert slow_down.rate > 2 * MINIMUM_RATE
    # Nothing else than too fast counts.
    elsewhere = RateLimiter("default")
    elsewhere.observe_replies([Reply(451, "4.7.1 Greylisted"), Reply(250, "2.0.0 OK")])
    # Complaints that were under way together are one.
    elsewhere.observe_replies([TOO_FAST])
    assert SlowDown.decode(client.hget(key("pace"), "noted") or "") == slow_down
    assert permits_at_once(RateLimiter("eu")) == 500
    # Somebody who has heard nothing himself.
    now = float(client.time()[0])
    client.hset(key("pace"), "noted", SlowDown(now, now, 0.01, 100).encode())
    assert permits_at_once(RateLimiter("default")) <= 1


@pytest.mark.django_db(transaction=True)
def test_the_end_of_a_slow_down_is_said_once(client: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
    now = float(client.time()[0])
    client.hset(key("pace"), "noted", SlowDown(now - 400, now - 200, 50, 100).encode())
    assert run_concurrently(lambda worker: permits_at_once(RateLimiter("default"))) == [500] * 4
    (said,) = warnings(caplog)
    assert "'default' is no longer sent to more slowly, after 0:06:4" in said
    assert client.hget(key("pace"), "noted") is None


def test_what_makes_no_sense_in_redis_limits_nothing(client: redis.Redis) -> None:
    client.hset(key("pace"), "noted", "of another version")
    assert permits_at_once(throttling.rate_limiter_for("")) == 500


def test_no_more_connections_than_allowed_and_none_unused(three_workers: list[subprocess.Popen[str]]) -> None:
    most = 0
    # On a busy machine they may take turns.
    for _ in range(5):
        answers = ordered(three_workers, do="connections", seconds=0.6)
        events = sorted(
            (moment, step)
            for answer in answers
            for open_for in answer
            for moment, step in zip(open_for, (1, -1), strict=True)
        )
        open_now = 0
        for _, step in events:
            open_now += step
            most = max(most, open_now)
        if most >= 2:
            break
    assert most == 2


def test_the_connection_of_a_killed_process_is_free_at_once(
    redis_server: EmbeddedRedis, client: redis.Redis, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CONGRESSY_MAILER = {"MAX_CONNECTIONS": 1}
    # Time enough for what does not ask again.
    monkeypatch.setattr(connection_slots, "_SHORTEST_WAIT", 60)
    monkeypatch.setattr(connection_slots, "_LONGEST_WAIT", 90)
    with workers(redis_server.url, 1, MAX_CONNECTIONS=1) as processes:
        assert ordered(processes, do="hold") == [True]
        refused = throttling.connection_slot("")
        assert not refused.acquired
        assert 60 <= refused.retry_in.total_seconds() <= 90
        # Without asking again.
        with stopped(redis_server.pid):
            assert not throttling.connection_slot("").acquired
        processes[0].kill()
        processes[0].wait(10)
        connection_slots._refused_until.clear()
        assert throttling.connection_slot("").acquired


def test_the_connection_of_another_host_is_free_when_its_time_is_over(client: redis.Redis, settings: Any) -> None:
    settings.CONGRESSY_MAILER = {"MAX_CONNECTIONS": 1}
    now, _ = client.time()
    client.zadd(key("connections"), {"another host": now + 60})
    assert not throttling.connection_slot("").acquired
    connection_slots._refused_until.clear()
    client.zadd(key("connections"), {"another host": now - 1})
    assert throttling.connection_slot("").acquired


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
    monkeypatch.setattr(connection_slots, "_RENEW_INTERVAL", 0)
    slot = throttling.connection_slot("")
    client.flushall()
    assert slot.renew()
    assert client.zcard(key("connections")) == 1
    client.flushall()
    assert throttling.connection_slot("").acquired
    assert not slot.renew()
    assert not slot.may_stay_open()


def test_without_a_limit_for_connections_all_are_granted_and_counted(client: redis.Redis, settings: Any) -> None:
    settings.CONGRESSY_MAILER = {"MAX_CONNECTIONS": None}
    slots = [throttling.connection_slot("") for _ in range(20)]
    assert all(slot.acquired for slot in slots)
    assert client.zcard(key("connections")) == 20


def test_a_limit_that_a_server_shows_holds_for_all_and_is_said_once(
    client: redis.Redis, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.CONGRESSY_MAILER = {"MAX_CONNECTIONS": 10}
    first, second, third = (throttling.connection_slot("") for _ in range(3))
    reply = Reply(421, "4.7.0 too many connections")
    assert third.refused_by_server(reply)
    assert second.refused_by_server(reply)
    assert not second.acquired
    assert timedelta(seconds=1) <= second.retry_in <= timedelta(seconds=3)
    connection_slots._refused_until.clear()
    assert not throttling.connection_slot("").acquired
    assert not first.may_stay_open()
    first.release()
    assert throttling.connection_slot("").acquired
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "allows 2 connections at a time" in line


def test_a_redis_that_hangs_holds_nobody_up_for_long(
    redis_server: EmbeddedRedis,
    client: redis.Redis,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings.CONGRESSY_MAILER = {"RATE_LIMIT": "1/h", "MAX_CONNECTIONS": 1}
    # Time enough for what does not try.
    monkeypatch.setattr(stores, "_FIRST_BREAK", 60.0)
    assert permits_at_once(throttling.rate_limiter_for("")) == 1
    assert throttling.connection_slot("").acquired

    def wait_on_a_new_connection() -> float:
        stores.limit_stores._next_try = 0.0
        return own_seconds(lambda: throttling.connection_slot("eu").release())

    with stopped(redis_server.pid):
        # On the open connection; then without trying; then on a new one.
        assert own_seconds(lambda: throttling.connection_slot("eu")) < BOUND
        failures = stores.limit_stores._failures
        for _ in range(50):
            throttling.connection_slot("eu").release()
        assert stores.limit_stores._failures == failures == 1
        assert least_own_seconds(2 * BOUND, wait_on_a_new_connection) < 2 * BOUND
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
            stores.limit_stores._failures,
        ]
        os.write(writing, json.dumps(said).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert json.loads(os.read(reading, 1000)) == [True, 0, 0]
    os.close(reading)
    os.close(writing)
    assert parent.may_stay_open()
    assert client.zcard(key("connections")) == 2


def test_what_is_kept_in_redis_ends_by_itself_and_names_nobody(client: redis.Redis, settings: Any) -> None:
    settings.CONGRESSY_MAILER = {"RATE_LIMIT": "100/s"}
    rate_limiter = throttling.rate_limiter_for("")
    permits_at_once(rate_limiter)
    rate_limiter.observe_replies([Reply(451, "too many messages from ana@example.com")])
    assert throttling.connection_slot("").acquired
    keys = sorted(client.scan_iter())
    assert keys == [key(kind) for kind in ("connections", "pace", "permits")]
    assert all(0 < client.ttl(name) <= 3600 for name in keys)
    assert "ana" not in str([client.hgetall(keys[1]), client.zrange(keys[0], 0, -1)])


def test_the_prefix_of_the_host_s_keys_is_used(
    redis_server: EmbeddedRedis, client: redis.Redis, ask_at: CelerySettings, settings: Any
) -> None:
    settings.CONGRESSY_MAILER = {"RATE_LIMIT": "1/h", "MAX_CONNECTIONS": 1}
    ask_at(redis_server.url, broker_transport_options={"global_keyprefix": "host:"})
    slot = throttling.connection_slot("")
    assert permits_at_once(throttling.rate_limiter_for("")) == 1
    assert {name.partition("congressy_mailer:")[0] for name in client.scan_iter()} == {"host:"}
    slot.release()
    assert client.exists(f"host:{key('connections')}") == 0


@pytest.mark.parametrize(("group", "together"), [(None, False), ("one account", True)])
def test_another_project_on_the_same_redis_counts_for_itself_unless_told(
    group: str | None, together: bool, client: redis.Redis, settings: Any
) -> None:
    settings.CONGRESSY_MAILER = {"RATE_LIMIT": "1/h", "MAX_CONNECTIONS": 1, "THROTTLING_GROUP": group}
    assert throttling.connection_slot("").acquired
    assert permits_at_once(throttling.rate_limiter_for("")) == 1
    reset_throttling()
    settings.SECRET_KEY = "of another project"
    assert throttling.connection_slot("").acquired is not together
    assert permits_at_once(throttling.rate_limiter_for("")) == (0 if together else 1)


def test_with_sentinel_the_master_is_asked(ask_at: CelerySettings, settings: Any) -> None:
    settings.CONGRESSY_MAILER = {"MAX_CONNECTIONS": 1}
    with RedisUnderSentinel() as group:
        ask_at(group.url, broker_transport_options=group.transport_options)
        assert throttling.connection_slot("").acquired
        assert not throttling.connection_slot("").acquired
        with redis.Redis(port=group.master.port) as master:
            assert master.zcard(key("connections")) == 2
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
        waited = run_concurrently(lambda worker: own_seconds(lambda: throttling.connection_slot(str(worker))), 12)
    # One after another, the last would have waited for all of them.
    assert max(waited) < 12 * BOUND / 2
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
    stores.limit_stores._redis = Late(client, stores.throttling_group())
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
    shared, local = RedisStore(client, stores.throttling_group()), MemoryStore()
    for store in (shared, local):
        store.snapshot("x", 100)
    now = time.monotonic()
    monkeypatch.setattr("congressy_mailer.throttling.memory_store.time.monotonic", lambda: now + COUNT_WINDOW)
    client.hincrby(key("pace", "x"), "span", -1)
    for seen in (shared.snapshot("x", 0), local.snapshot("x", 0)):
        assert (seen.previous, seen.current) == (100, 0)
        assert 0 <= seen.now - seen.counted_since < COUNT_WINDOW
    monkeypatch.setattr("congressy_mailer.throttling.memory_store.time.monotonic", lambda: now + 3 * COUNT_WINDOW)
    client.hincrby(key("pace", "x"), "span", -2)
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


def test_a_limit_is_learnt_from_what_is_open_and_forgotten_slowly(
    store: LimitStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    owners = ["a", "b", "c", "d"]
    assert all(store.acquire("news", owner, 10).granted for owner in owners)
    # Refused at the same time by a server that allows two.
    assert store.learn_limit("news", "d") == (3, True)
    assert store.learn_limit("news", "c") == (2, False)
    answer = store.acquire("news", "e", 10)
    assert (answer.granted, answer.limit_learnt) == (False, True)
    # Who has one keeps it.
    assert store.acquire("news", "a", 10).granted
    store.release("news", ["a"])
    assert store.acquire("news", "e", 10).granted
    # What is configured may be less.
    assert not store.acquire("news", "f", 1).limit_learnt
    assert not store.acquire("other", "f", 10).limit_learnt


def test_a_server_that_refuses_the_only_connection_cannot_be_used(store: LimitStore) -> None:
    store.acquire("news", "a", 10)
    assert store.learn_limit("news", "a") == (0, False)
    # Unless it counts one that was closed just now.
    store.acquire("news", "a", 10)
    store.acquire("news", "b", 10)
    store.learn_limit("news", "b")
    store.release("news", ["a"])
    store.acquire("news", "b", 10)
    assert store.learn_limit("news", "b") == (1, False)


def test_one_connection_more_is_tried_after_a_while() -> None:
    store = MemoryStore()
    for owner in ("a", "b", "c"):
        store.acquire("news", owner, 10)
    store.learn_limit("news", "c")
    learnt = store._connections["news"]
    began = learnt.learnt_at
    # Not at the very turns: what is added to a long time is rounded.
    assert [learnt.limit_at(began + minutes * 60) for minutes in (0, 9, 11, 25, 59, 61)] == [2, 2, 3, 4, 7, 0]


def test_in_redis_too(client: redis.Redis) -> None:
    store = RedisStore(client, stores.throttling_group())
    for owner in ("a", "b"):
        store.acquire("news", owner, 10)
    store.learn_limit("news", "b")
    name = key("connections", "news")
    assert not store.acquire("news", "b", 10).granted
    client.zadd(name, {"limit:1": client.time()[0] + 3600 - 601})
    assert store.acquire("news", "b", 10).granted
    assert client.ttl(name) > 75
