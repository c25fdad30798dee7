"""A rate that all processes keep to together, and their slow-down after a complaint."""

from __future__ import annotations

import subprocess
import time
from typing import Any

import pytest
import redis

from congressy_mailer import throttling
from congressy_mailer.replies import Reply
from congressy_mailer.throttling import slow_down
from congressy_mailer.throttling.limiter import RateLimiter
from congressy_mailer.throttling.permits import burst_size
from congressy_mailer.throttling.redis_store import RedisStore
from congressy_mailer.throttling.slow_down import MINIMUM_RATE, SlowDown
from tests.conftest import run_concurrently
from tests.support.throttling import key, ordered, permits_at_once, warnings

TOO_FAST = Reply(451, "4.7.1 Rate limit exceeded, try again later")


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
    monkeypatch.setattr(slow_down, "HALVING_INTERVAL", 60)
    rate_limiters = [RateLimiter("default") for _ in range(4)]
    assert [permits_at_once(rate_limiter) for rate_limiter in rate_limiters] == [500] * 4
    run_concurrently(lambda worker: rate_limiters[worker].observe_replies([Reply(250, "2.0.0 OK"), TOO_FAST]))
    (said,) = warnings(caplog)
    assert "'default' says that mail comes too fast: 451 4.7.1 Rate limit exceeded, try again later." in said
    noted = SlowDown.decode(client.hget(key("pace"), "noted") or "")
    assert noted is not None
    assert noted.rate > 2 * MINIMUM_RATE
    # Nothing else than too fast counts.
    elsewhere = RateLimiter("default")
    elsewhere.observe_replies([Reply(451, "4.7.1 Greylisted"), Reply(250, "2.0.0 OK")])
    # Complaints that were under way together are one.
    elsewhere.observe_replies([TOO_FAST])
    assert SlowDown.decode(client.hget(key("pace"), "noted") or "") == noted
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


def test_who_complains_after_another_follows_him(
    client: redis.Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_slow_down = RedisStore.replace_slow_down

    def too_late(store: RedisStore, name: str, expected: str, slow_down: str) -> bool:
        replace_slow_down(store, name, expected, SlowDown(0, 9e9, 7, 70).encode())
        return replace_slow_down(store, name, expected, slow_down)

    permits_at_once(throttling.rate_limiter_for(""))
    monkeypatch.setattr(RedisStore, "replace_slow_down", too_late)
    throttling.rate_limiter_for("").observe_replies([TOO_FAST])
    assert warnings(caplog) == []
    assert permits_at_once(throttling.rate_limiter_for("")) == 1
