"""Pure rules of a slow-down: how it begins where a server finds mail too fast, and how the rate recovers.

All rates are mails per second; all times are seconds since some moment that one clock has given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Even if a server keeps refusing: without any mail its recovery would not be noticed.
MINIMUM_RATE = 1.0

#: Halved at most once in this time: replies that were under way together are one complaint.
HALVING_INTERVAL = 1.0

#: Mails are counted for so long.
COUNT_WINDOW = 5.0

_RECOVERY = 1.1
_RECOVERY_INTERVAL = 10.0


@dataclass(frozen=True, slots=True)
class SlowDown:
    """A server has said that mail comes too fast, and until it is forgotten less is sent."""

    #: When it began.
    began_at: float
    #: When it was last halved.
    halved_at: float
    #: The rate that it was halved to.
    rate: float
    #: The rate at which it is over.
    ends_at_rate: float

    def rate_at(self, now: float) -> float:
        """The rate in force: a tenth more every ten seconds."""
        # Bounded, for the power of something large is an error. A clock that went back has recovered nothing.
        steps = min(max(0.0, now - self.halved_at) / _RECOVERY_INTERVAL, 1000.0)
        return min(self.ends_at_rate, self.rate * math.pow(_RECOVERY, steps))

    def is_over(self, now: float) -> bool:
        """Whether it holds nothing back any more."""
        return self.rate_at(now) >= self.ends_at_rate

    def encode(self) -> str:
        """All of it, as a text."""
        return " ".join(map(repr, (self.began_at, self.halved_at, self.rate, self.ends_at_rate)))

    @classmethod
    def decode(cls, text: str) -> SlowDown | None:
        """What :meth:`encode` has made a text of; ``None`` for anything else."""
        try:
            began_at, halved_at, rate, ends_at_rate = map(float, text.split())
        except ValueError:
            return None
        return cls(began_at, halved_at, rate, ends_at_rate)


def next_slow_down(current: SlowDown | None, now: float, *, limit: float | None, recent_rate: float) -> SlowDown | None:
    """What is in force once a server has said that mail comes too fast: half of what was allowed.

    Args:
        current: the slow-down that is known, whether over or not.
        now: when the server said so.
        limit: the configured rate; ``None`` where there is none.
        recent_rate: how much was handed over lately, which stands for what was allowed where nothing limits it.
    """
    if current is not None and now - current.halved_at < HALVING_INTERVAL:
        return current
    if current is not None and current.is_over(now):
        current = None
    if current is not None:
        allowed, ends_at_rate, began_at = current.rate_at(now), current.ends_at_rate, current.began_at
    elif limit is not None:
        allowed, ends_at_rate, began_at = limit, limit, now
    else:
        # Twice, so that a server whose own limit lies below what was sent does not begin and end one all the time.
        allowed, ends_at_rate, began_at = recent_rate, 2 * max(recent_rate, MINIMUM_RATE), now
    rate = max(min(MINIMUM_RATE, ends_at_rate), allowed / 2)
    return SlowDown(began_at, now, rate, ends_at_rate) if rate < ends_at_rate else current


def rate_in_force(limit: float | None, slow_down: SlowDown | None, now: float) -> float | None:
    """The most that may be handed over; ``None`` where nothing limits it."""
    if slow_down is None or slow_down.is_over(now):
        return limit
    rate = slow_down.rate_at(now)
    return rate if limit is None else min(rate, limit)


def measured_rate(previous: int, current: int, elapsed: float) -> float:
    """How much was handed over lately. What is too much by mistake does little harm: the next complaint halves it.

    Args:
        previous: mails in the last :data:`COUNT_WINDOW`, where something was handed over in it.
        current: mails in the one that has begun.
        elapsed: how long the counting of those has gone on.
    """
    return max(previous / COUNT_WINDOW, current / max(elapsed, 0.25))
