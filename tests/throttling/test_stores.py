"""What both stores promise, the one in Redis and the one in memory."""

from __future__ import annotations

import time

import pytest
import redis

from congressy_mailer.throttling import store_choice
from congressy_mailer.throttling.memory_store import MemoryStore
from congressy_mailer.throttling.redis_store import RedisStore
from congressy_mailer.throttling.slow_down import COUNT_WINDOW, SlowDown
from congressy_mailer.throttling.store import LimitStore, Snapshot
from tests.support.throttling import key


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
    shared, local = RedisStore(client, store_choice.throttling_group()), MemoryStore()
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
    store = RedisStore(client, store_choice.throttling_group())
    for owner in ("a", "b"):
        store.acquire("news", owner, 10)
    store.learn_limit("news", "b")
    name = key("connections", "news")
    assert not store.acquire("news", "b", 10).granted
    client.zadd(name, {"limit:1": client.time()[0] + 3600 - 601})
    assert store.acquire("news", "b", 10).granted
    assert client.ttl(name) > 75
