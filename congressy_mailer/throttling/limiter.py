"""The rate at which mail is handed over: ``RATE_LIMIT``, and less for a while after a server found it too fast."""

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
from ..replies import Reply, says_too_fast
from .rates import HALVING_INTERVAL, LONGEST_HELD, SlowDown, batch, burst, rate_in_force, slowed
from .store import Ledger, Seen
from .stores import ledgers

logger = logging.getLogger("congressy_mailer.pacing")

# Seconds between two looks at whether a slow-down is in force.
_LOOK_INTERVAL = 1.0

# Seconds. Less than the clock of a timedelta shows would mean that the permits were taken.
_SHORTEST_WAIT = 0.001


class Pace:
    """How fast one mail backend's mail may be handed over by this process, with all of its threads."""

    def __init__(self, using: str) -> None:
        self._name = using
        self._lock = Lock()
        self._slow_down: SlowDown | None = None
        #: What the ledger's clock is ahead of this process' by.
        self._ahead = 0.0
        self._next_look = 0.0
        self._next_complaint = 0.0
        #: Since the last look.
        self._handed_over = 0
        self._permits = 0
        #: How many were taken the last time, and when.
        self._taken = 1
        self._taken_at = 0.0
        self._not_before = 0.0

    def wait_for_turn(self, before_asking: Callable[[], None] = lambda: None) -> timedelta:
        """How long to wait until the next mail may be handed over; zero: now, and its permit is taken.

        Nothing is reserved for whoever waits: ask again when the time is over. Redis is asked once a second while mail
        is handed over, and more often only while something limits the rate.

        Args:
            before_asking: called before Redis is asked, which may not answer at once.
        """
        with self._lock:
            now = time.monotonic()
            if now >= self._next_look:
                before_asking()
                self._look(now)
            rate = rate_in_force(_limit(), self._slow_down, now + self._ahead)
            wait = 0.0 if rate is None else self._wait(rate, now, before_asking)
            if not wait:
                self._handed_over += 1
        return timedelta(seconds=wait)

    def heard(self, replies: Iterable[Reply], before_asking: Callable[[], None] = lambda: None) -> None:
        """What a server has said to a mail: where that is that mail comes too fast, all workers slow down."""
        complaint = next(filter(says_too_fast, replies), None)
        if complaint is None:
            return
        with self._lock:
            now = time.monotonic()
            if now >= self._next_complaint:
                self._next_complaint = now + HALVING_INTERVAL
                before_asking()
                self._show(ledgers.ask(lambda ledger: self._complain(ledger, complaint)))

    def _wait(self, rate: float, now: float, before_asking: Callable[[], None]) -> float:
        if now > self._taken_at + LONGEST_HELD:
            self._permits = 0
        if self._permits:
            self._permits -= 1
            return 0.0
        if now < self._not_before:
            return self._not_before - now
        count = batch(rate, self._taken, now - self._taken_at)
        before_asking()
        wait = ledgers.ask(lambda ledger: ledger.take(self._name, rate, burst(rate), count))
        if wait:
            wait = max(wait, _SHORTEST_WAIT)
            self._not_before = time.monotonic() + wait
        else:
            self._permits, self._taken, self._taken_at = count - 1, count, time.monotonic()
        return wait

    def _look(self, now: float) -> None:
        self._next_look = now + _LOOK_INTERVAL
        self._show(ledgers.ask(self._look_into))

    def _show(self, seen: Seen) -> None:
        self._handed_over = 0
        self._slow_down = seen.slow_down
        self._ahead = seen.now - time.monotonic()

    def _look_into(self, ledger: Ledger) -> Seen:
        seen = ledger.look(self._name, self._handed_over)
        slow_down = seen.slow_down
        if slow_down is not None and slow_down.is_over(seen.now) and ledger.note(self._name, seen.noted, ""):
            logger.warning(
                "The mail backend %r is no longer sent to more slowly, after %s.",
                self._name, timedelta(seconds=round(seen.now - slow_down.began_at)),
            )  # fmt: skip
        return seen

    def _complain(self, ledger: Ledger, complaint: Reply) -> Seen:
        seen = ledger.look(self._name, self._handed_over)
        before = seen.slow_down
        after = slowed(before, seen.now, limit=_limit(), measured=seen.measured)
        if after is None or after == before:
            return seen
        noted = after.encode()
        if not ledger.note(self._name, seen.noted, noted):
            # Another worker has heard the same, and was faster.
            return ledger.look(self._name, 0)
        logger.log(
            logging.WARNING if after.began_at == seen.now else logging.DEBUG,
            "The mail backend %r says that mail comes too fast: %s. All workers together now send at most %.1f a "
            "second, after %.1f lately, and a tenth more every ten seconds.",
            self._name, complaint, after.rate, seen.measured,
        )  # fmt: skip
        return replace(seen, noted=noted)


def pace_for(using: str) -> Pace:
    """This process' pace for a mail backend.

    Args:
        using: its alias; empty: the default one.
    """
    name = using or "default"
    return _paces.get(name) or _paces.setdefault(name, Pace(name))


def _limit() -> float | None:
    configured = mailer_settings().RATE_LIMIT
    return None if configured is None else parse_rate(configured)


_paces: dict[str, Pace] = {}

# The permits are the parent's, and another thread of it may have held a lock.
os.register_at_fork(after_in_child=_paces.clear)
