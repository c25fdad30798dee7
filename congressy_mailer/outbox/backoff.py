"""Exponential backoff between the attempts of a message."""

from __future__ import annotations

from datetime import timedelta

from celery.utils.time import get_exponential_backoff_interval

#: SparkPost asks for at least 5 seconds before the first retry ("SMTP and REST API Injection Best Practices").
FLOOR = timedelta(seconds=5)

#: Longer waits than this are left to the sweep: Redis delivers again what has not been acknowledged within the
#: visibility timeout (an hour by default), and a worker keeps such tasks in memory.
LONGEST_COUNTDOWN = timedelta(minutes=10)


def delay(attempt: int, first: timedelta, longest: timedelta) -> timedelta:
    """The wait after a temporarily refused attempt, exponential, with jitter and a minimum.

    Args:
        attempt: number of attempts so far, from 1.
        first: first step of the backoff.
        longest: longest wait.
    """
    # The exponent is bounded because Celery computes the power before it compares with the maximum.
    seconds = get_exponential_backoff_interval(
        factor=max(1, round(first.total_seconds())),
        retries=min(attempt - 1, 32),
        maximum=max(1, round(longest.total_seconds())),
        full_jitter=True,
    )
    return max(FLOOR, timedelta(seconds=seconds))
