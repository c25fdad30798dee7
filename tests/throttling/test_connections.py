"""Connections of all processes together, as many as are allowed and as a server shows."""

from __future__ import annotations

import logging
import subprocess
from datetime import timedelta
from typing import Any

import pytest
import redis

from congressy_mailer import throttling
from congressy_mailer.replies import Reply
from congressy_mailer.throttling import connection_slots
from testbed.redis_server import EmbeddedRedis
from tests.support.stopping import stopped
from tests.support.throttling import key, ordered, workers


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
        connection_slots.forget_refusals()
        assert throttling.connection_slot("").acquired


def test_the_connection_of_another_host_is_free_when_its_time_is_over(client: redis.Redis, settings: Any) -> None:
    settings.CONGRESSY_MAILER = {"MAX_CONNECTIONS": 1}
    now, _ = client.time()
    client.zadd(key("connections"), {"another host": now + 60})
    assert not throttling.connection_slot("").acquired
    connection_slots.forget_refusals()
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
    connection_slots.forget_refusals()
    assert not throttling.connection_slot("").acquired
    assert not first.may_stay_open()
    first.release()
    assert throttling.connection_slot("").acquired
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "allows 2 connections at a time" in line
