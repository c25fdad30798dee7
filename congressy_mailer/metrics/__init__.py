"""Counts of outcomes: kept by each process, written about once a second, added up by the sweep.

:mod:`.counters` says what is counted, :mod:`.counting` counts and writes, :mod:`.rollups` adds up and answers,
:mod:`.workers` knows which workers are alive, and :mod:`.spans` tells OpenTelemetry of calls and attempts.
"""

from .counters import BOUNCED, COMPLAINED, DELIVERED
from .counting import (
    count_at_call,
    count_events,
    count_expired,
    count_expired_in_batch,
    count_sent,
    count_state,
    flush,
    flush_and_close,
    flush_if_due,
)
from .rollups import Counts, fold, hours, minutes, totals
from .workers import forget_workers, is_alive, known_workers, record_worker

__all__ = [
    "BOUNCED",
    "COMPLAINED",
    "DELIVERED",
    "Counts",
    "count_at_call",
    "count_events",
    "count_expired",
    "count_expired_in_batch",
    "count_sent",
    "count_state",
    "flush",
    "flush_and_close",
    "flush_if_due",
    "fold",
    "forget_workers",
    "hours",
    "is_alive",
    "known_workers",
    "minutes",
    "record_worker",
    "totals",
]
