"""The rate at which mail is handed over: ``RATE_LIMIT``, and less for a while after a server found it too fast.

A limiter says how long the next mail has to wait; the wait itself is delivery's (``delivery/mail_source.py``).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from threading import Lock

from ..conf import mailer_settings
from ..conf.validation import parse_rate
from ..replies import Reply, asks_to_slow_down
from .permits import PERMIT_LIFETIME, burst_size, permits_to_take
from .slow_down import HALVING_INTERVAL, SlowDown, next_slow_down, rate_in_force
from .store import LimitStore, Snapshot
from .store_choice import limit_stores

logger = logging.getLogger("congressy_mailer.throttling")

# Seconds between two looks at whether a slow-down is in force.
_REFRESH_INTERVAL = 1.0

# Seconds. Less than the clock of a timedelta shows would mean that the permits were taken.
_SHORTEST_WAIT = 0.001


class RateLimiter:
    """How fast one mail backend's mail may be handed over by this process, with all of its threads."""

    def __init__(self, using: str) -> None:
        self._name = using
        self._lock = Lock()
        self._slow_down: SlowDown | None = None
        #: Seconds by which the store's clock is ahead of this process'.
        self._clock_offset = 0.0
        self._next_refresh = 0.0
        self._next_slow_down_at = 0.0
        #: Mails handed over since the last refresh.
        self._handed_over = 0
        self._permits = 0
        #: How many permits were taken the last time, and when.
        self._last_count = 1
        self._last_taken_at = 0.0
        self._retry_at = 0.0

    def acquire(self, before_query: Callable[[], None] = lambda: None) -> timedelta:
        """How long to wait until the next mail may be handed over; zero: now, and its permit is taken.

        Nothing is reserved meanwhile: ask again when the time is over. Redis is asked once a second while mail
        is handed over, and more often only while something limits the rate.

        Args:
            before_query: called before Redis is asked, which may not answer at once.
        """
        with self._lock:
            now = time.monotonic()
            if now >= self._next_refresh:
                before_query()
                self._refresh(now)
            rate = rate_in_force(_configured_limit(), self._slow_down, now + self._clock_offset)
            wait = 0.0 if rate is None else self._wait(rate, now, before_query)
            if not wait:
                self._handed_over += 1
        return timedelta(seconds=wait)

    @property
    def is_limited(self) -> bool:
        """Whether a limit is in force, as far as is known without asking Redis."""
        with self._lock:
            in_force = rate_in_force(_configured_limit(), self._slow_down, time.monotonic() + self._clock_offset)
            return in_force is not None

    @property
    def grants_at_once(self) -> bool:
        """Whether :meth:`acquire` would say now, without asking Redis, that the next mail may be handed over."""
        with self._lock:
            now = time.monotonic()
            in_force = rate_in_force(_configured_limit(), self._slow_down, now + self._clock_offset)
            return in_force is None and now < self._next_refresh

    def observe_replies(self, replies: Iterable[Reply], before_query: Callable[[], None] = lambda: None) -> None:
        """What a server has said to a mail: where that is that mail comes too fast, all workers slow down."""
        refusal = next(filter(asks_to_slow_down, replies), None)
        if refusal is None:
            return
        with self._lock:
            now = time.monotonic()
            if now >= self._next_slow_down_at:
                self._next_slow_down_at = now + HALVING_INTERVAL
                before_query()
                self._apply(limit_stores.run(lambda store: self._slow_down_all(store, refusal)))

    def _wait(self, rate: float, now: float, before_query: Callable[[], None]) -> float:
        if now > self._last_taken_at + PERMIT_LIFETIME:
            self._permits = 0
        if self._permits:
            self._permits -= 1
            return 0.0
        if now < self._retry_at:
            return self._retry_at - now
        count = permits_to_take(rate, self._last_count, now - self._last_taken_at)
        before_query()
        wait = limit_stores.run(lambda store: store.take_permits(self._name, rate, burst_size(rate), count))
        if wait:
            wait = max(wait, _SHORTEST_WAIT)
            self._retry_at = time.monotonic() + wait
        else:
            self._permits, self._last_count, self._last_taken_at = count - 1, count, time.monotonic()
        return wait

    def _refresh(self, now: float) -> None:
        self._next_refresh = now + _REFRESH_INTERVAL
        self._apply(limit_stores.run(self._snapshot))

    def _apply(self, snapshot: Snapshot) -> None:
        self._handed_over = 0
        self._slow_down = snapshot.slow_down
        self._clock_offset = snapshot.now - time.monotonic()

    def _snapshot(self, store: LimitStore) -> Snapshot:
        snapshot = store.snapshot(self._name, self._handed_over)
        slow_down = snapshot.slow_down
        if (
            slow_down is not None
            and slow_down.is_over(snapshot.now)
            and store.replace_slow_down(self._name, snapshot.encoded, "")
        ):
            logger.warning(
                "The mail backend %r is no longer sent to more slowly, after %s.",
                self._name, timedelta(seconds=round(snapshot.now - slow_down.began_at)),
            )  # fmt: skip
        return snapshot

    def _slow_down_all(self, store: LimitStore, refusal: Reply) -> Snapshot:
        snapshot = store.snapshot(self._name, self._handed_over)
        before = snapshot.slow_down
        after = next_slow_down(before, snapshot.now, limit=_configured_limit(), recent_rate=snapshot.measured_rate)
        if after is None or after == before:
            return snapshot
        encoded = after.encode()
        if not store.replace_slow_down(self._name, snapshot.encoded, encoded):
            # Another worker has heard the same, and was faster.
            return store.snapshot(self._name, 0)
        logger.log(
            logging.WARNING if after.began_at == snapshot.now else logging.DEBUG,
            "The mail backend %r says that mail comes too fast: %s. All workers together now send at most %.1f a "
            "second, after %.1f lately, and a tenth more every ten seconds.",
            self._name, refusal, after.rate, snapshot.measured_rate,
        )  # fmt: skip
        return replace(snapshot, encoded=encoded)


def rate_limiter_for(using: str) -> RateLimiter:
    """This process' rate limiter for a mail backend.

    Args:
        using: its alias; empty: the default one.
    """
    name = using or "default"
    return _rate_limiters.get(name) or _rate_limiters.setdefault(name, RateLimiter(name))


def _configured_limit() -> float | None:
    configured = mailer_settings().RATE_LIMIT
    return None if configured is None else parse_rate(configured)


_rate_limiters: dict[str, RateLimiter] = {}

# The permits are the parent's, and another thread of it may have held a lock.
os.register_at_fork(after_in_child=_rate_limiters.clear)
