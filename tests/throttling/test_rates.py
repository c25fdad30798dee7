"""How fast mail may be handed over: the reading of ``RATE_LIMIT``, slow-downs, and permits that are taken ahead."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from congressy_mailer.conf.validation import parse_rate
from congressy_mailer.throttling.permits import burst_size, permits_to_take
from congressy_mailer.throttling.slow_down import (
    HALVING_INTERVAL,
    MINIMUM_RATE,
    SlowDown,
    measured_rate,
    next_slow_down,
    rate_in_force,
)

rates = st.floats(0.001, 100_000)
limits = st.none() | rates
times = st.floats(0, 4e9)
spans = st.floats(0, 1e6)
slow_downs = st.builds(
    lambda began, later, rate, more: SlowDown(began, began + later, rate, rate * more),
    times, spans, rates, st.floats(1.001, 100),
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "rate"),
    [("100/s", 100), ("1/s", 1), ("1000/m", 1000 / 60), ("20000/h", 20000 / 3600), (" 5 / m ", 5 / 60)],
)
def test_a_rate_is_read(text: str, rate: float) -> None:
    assert parse_rate(text) == pytest.approx(rate)


@given(count=st.integers(1, 999_999_999), period=st.sampled_from([("s", 1), ("m", 60), ("h", 3600)]))
def test_every_rate_is_read_as_it_is_written(count: int, period: tuple[str, int]) -> None:
    assert parse_rate(f"{count}/{period[0]}") == pytest.approx(count / period[1])


@pytest.mark.parametrize("text", ["", "100", "0/s", "-1/s", "1.5/s", "100/d", "100/sec", "/s", "1/s/s", "²/s", "1e3/s"])
def test_what_is_no_rate_is_named(text: str) -> None:
    with pytest.raises(ValueError, match='such as "100/s"'):
        parse_rate(text)


@given(text=st.text())
def test_any_text_is_a_rate_above_zero_or_an_error(text: str) -> None:
    with suppress(ValueError):
        assert parse_rate(text) > 0


def test_a_complaint_halves_the_limit_or_what_was_sent() -> None:
    assert next_slow_down(None, 7, limit=100, recent_rate=100) == SlowDown(7, 7, 50, 100)
    assert next_slow_down(None, 7, limit=None, recent_rate=100) == SlowDown(7, 7, 50, 200)
    # Little sent says little of what may be sent.
    assert next_slow_down(None, 7, limit=100, recent_rate=3) == SlowDown(7, 7, 50, 100)


def test_further_complaints_halve_it_further_once_a_second() -> None:
    first = next_slow_down(None, 0, limit=100, recent_rate=100)
    assert first is not None
    assert next_slow_down(first, 0.9, limit=100, recent_rate=100) == first
    second = next_slow_down(first, 1.0, limit=100, recent_rate=100)
    assert second is not None
    assert second.rate == pytest.approx(25, rel=0.01)
    assert (second.began_at, second.ends_at_rate) == (0, 100)


def test_it_recovers_a_tenth_in_ten_seconds_until_it_is_over() -> None:
    slow_down = SlowDown(0, 0, 50, 100)
    assert slow_down.rate_at(10) == pytest.approx(55)
    assert slow_down.rate_at(20) == pytest.approx(60.5)
    assert not slow_down.is_over(72)
    assert slow_down.is_over(73)
    assert rate_in_force(100, slow_down, 73) == 100
    assert rate_in_force(None, slow_down, 73) is None


@given(current=st.none() | slow_downs, later=spans, limit=limits, recent_rate=st.floats(0, 100_000))
def test_a_complaint_never_makes_it_faster_nor_stops_it(
    current: SlowDown | None, later: float, limit: float | None, recent_rate: float
) -> None:
    now = later if current is None else current.halved_at + later
    before = rate_in_force(limit, current, now)
    after = next_slow_down(current, now, limit=limit, recent_rate=recent_rate)
    rate = rate_in_force(limit, after, now)
    if rate is None:
        # Nothing is known to be too fast.
        assert before is None
        return
    assert rate > 0
    assert before is None or rate <= before * (1 + 1e-9) or rate == pytest.approx(MINIMUM_RATE)
    if after is not None and after != current:
        assert after.halved_at == now
        assert after.rate >= min(MINIMUM_RATE, after.ends_at_rate)
        assert not after.is_over(now)


@given(recent_rate=st.floats(0, 100_000), limit=limits, gaps=st.lists(st.floats(0, 3), max_size=40))
def test_however_many_complaints_it_is_halved_at_most_once_a_second(
    recent_rate: float, limit: float | None, gaps: list[float]
) -> None:
    now, slow_down, halved = 0.0, next_slow_down(None, 0, limit=limit, recent_rate=recent_rate), 1
    for gap in gaps:
        now += gap
        after = next_slow_down(slow_down, now, limit=limit, recent_rate=recent_rate)
        halved += after != slow_down
        slow_down = after
    assert halved <= now / HALVING_INTERVAL + 1
    if slow_down is not None:
        assert slow_down.rate >= min(MINIMUM_RATE, slow_down.ends_at_rate)


@given(slow_down=slow_downs, first=spans, second=spans)
def test_without_complaints_it_only_gets_faster_and_ends(slow_down: SlowDown, first: float, second: float) -> None:
    early, late = sorted((slow_down.halved_at + first, slow_down.halved_at + second))
    assert slow_down.rate <= slow_down.rate_at(early) <= slow_down.rate_at(late) <= slow_down.ends_at_rate
    # 1.1 to the power of 49 is more than 100, the most that these have to recover by.
    assert slow_down.is_over(slow_down.halved_at + 490 + 1)


@given(slow_down=slow_downs, back=spans)
def test_a_clock_that_went_back_recovers_nothing(slow_down: SlowDown, back: float) -> None:
    assert slow_down.rate_at(slow_down.halved_at - back) == slow_down.rate


@given(slow_down=slow_downs, limit=limits, later=spans)
def test_the_rate_in_force_is_never_above_the_limit(slow_down: SlowDown, limit: float | None, later: float) -> None:
    rate = rate_in_force(limit, slow_down, slow_down.halved_at + later)
    assert limit is None or (rate is not None and rate <= limit)


@given(slow_down=slow_downs)
def test_a_slow_down_survives_its_text(slow_down: SlowDown) -> None:
    assert SlowDown.decode(slow_down.encode()) == slow_down


@pytest.mark.parametrize("text", ["", "1", "a b c d", "1 2 3", "1 2 3 4 5"])
def test_another_text_is_no_slow_down(text: str) -> None:
    assert SlowDown.decode(text) is None


@given(rate=rates, taken=st.integers(1, 10_000), lasted=st.floats(0, 100))
def test_permits_are_taken_for_a_short_time_ahead(rate: float, taken: int, lasted: float) -> None:
    most = burst_size(rate)
    count = permits_to_take(rate, taken, lasted)
    assert 1 <= count <= most
    assert most == 1 or most <= rate * 0.04
    assert count == 1 or count <= rate * 0.02
    assert count <= 2 * taken


def test_a_process_takes_as_many_as_it_uses() -> None:
    # Forty milliseconds for each mail: one permit at a time, however high the limit is.
    assert permits_to_take(1000, 1, 0.04) == 1
    assert permits_to_take(1000, 20, 0.8) == 1
    # Two hundred a second: four in a fiftieth of a second.
    assert permits_to_take(1000, 4, 0.02) == 4
    assert permits_to_take(1000, 2, 0.01) == 4


def test_what_was_measured_is_the_more_of_this_span_and_the_last() -> None:
    assert measured_rate(500, 0, 0.1) == 100
    assert measured_rate(0, 100, 1.0) == 100
    assert measured_rate(0, 0, 0.0) == 0
    assert math.isfinite(measured_rate(0, 10**9, 0.0))
