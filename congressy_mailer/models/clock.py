"""The clock of the outbox's database: all workers, on all hosts, go by one time.

Leases, due times and probes are compared by workers on several hosts. By their own clocks, two hosts that are some
minutes apart would take each other's messages away while they are being sent.
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from django.db import Error, connections
from django.utils import timezone

from ..broker import host_clock
from .transactions import database

#: Seconds after which the database is asked again. In this time no clock goes wrong by more than milliseconds.
_VALID_FOR = 30.0
# After an error, so many seconds go by without another question.
_PAUSE_AFTER_ERROR = 5.0
# Seconds by which a clock was set, forwards or backwards: asked again at once.
_STEP = 0.5
#: Less than this is the time that the question takes, and no difference.
_TOLERANCE = timedelta(milliseconds=50)

#: Two hosts whose clocks are so far apart need not bother anybody.
WORTH_TELLING = timedelta(seconds=2)

# SQLite's clock is the host's.
_STATEMENTS = {"postgresql": "SELECT clock_timestamp()", "mysql": "SELECT UTC_TIMESTAMP(6)"}


class _Known(NamedTuple):
    difference: timedelta
    #: By :func:`elapsed`, until when it holds.
    valid_until: float
    #: The host's clock by :func:`elapsed`: it changes where the clock is set.
    base: float


_known: dict[str, _Known] = {}


def forget() -> None:
    """Ask the database again at the next time."""
    _known.clear()


def now() -> datetime:
    """The time by the clock of the outbox's database; never raises."""
    return timezone.now() + difference()


def difference() -> timedelta:
    """How far the database's clock is ahead of this host's; zero where that is less than 50 ms, or cannot be asked.

    Zero as well while a test holds the time, with freezegun or time-machine.
    """
    alias = database()
    statement = _STATEMENTS.get(connections[alias].vendor)
    if statement is None or _is_set_by_a_test():
        return timedelta(0)
    passed = elapsed()
    base = time.time() - passed
    known = _known.get(alias)
    if known is None or passed > known.valid_until or abs(base - known.base) > _STEP:
        known = _measure(alias, statement, known)
        if known is None:
            return timedelta(0)
        _known[alias] = known
    return known.difference


def _is_set_by_a_test() -> bool:
    """Whether freezegun or time-machine hold the time of this process: by the database's, they would not."""
    freezegun, time_machine = sys.modules.get("freezegun.api"), sys.modules.get("time_machine")
    return bool(
        (freezegun is not None and freezegun.freeze_factories)
        or (time_machine is not None and time_machine.escape_hatch.is_travelling())
    )


def _measure(alias: str, statement: str, known: _Known | None) -> _Known | None:
    passed = elapsed()
    before = time.time()
    base = before - passed
    try:
        with connections[alias].cursor() as cursor:
            cursor.execute(statement)
            (moment,) = cursor.fetchone()
    except Error:
        # A database that is away, or a transaction that is broken: the caller's own statements will say so.
        if known is None:
            # Asked again by the next caller, who may find the database back: what is written with a wrong time would
            # wait until then.
            return None
        return _Known(known.difference, passed + _PAUSE_AFTER_ERROR, base)
    took = time.time() - before
    theirs = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    found = theirs - datetime.fromtimestamp(before + took / 2, UTC)
    if abs(found) <= _TOLERANCE + timedelta(seconds=took / 2):
        found = timedelta(0)
    host_clock.tell(found.total_seconds())
    return _Known(found, passed + _VALID_FOR, base)


def elapsed() -> float:
    """Seconds since an arbitrary moment, independent of changes of the clock.

    They go on while a virtual machine is suspended, where the system has such a clock.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
