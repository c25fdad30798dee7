"""The ledger of one process, for its threads: where the broker is not Redis, and while Redis does not answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock

from throttled import MemoryStoreBackend
from throttled.rate_limiter.gcra import MemoryLimitAtomicAction

from .rates import SPAN
from .store import LEASE, WANTED_FOR, Admission, Seen


@dataclass
class _Count:
    span: int
    since: float
    previous: int = 0
    current: int = 0
    noted: str = ""


@dataclass
class _Connections:
    #: Until when each counts as open.
    holders: dict[str, float] = field(default_factory=dict)
    wanted_until: float = 0.0


class LocalLedger:
    """See :class:`.ledger.Ledger`."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._permits = MemoryLimitAtomicAction(MemoryStoreBackend())
        self._counts: dict[str, _Count] = {}
        self._connections: dict[str, _Connections] = {}

    def take(self, name: str, rate: float, burst: int, count: int) -> float:
        limited, _, _, retry_after = self._permits.do([name], [1 / rate, burst, count])
        return float(retry_after) if limited else 0.0

    def look(self, name: str, handed_over: int) -> Seen:
        now = time.monotonic()
        with self._lock:
            span = int(now // SPAN)
            count = self._counts.setdefault(name, _Count(span, now))
            if span != count.span:
                consecutive = span == count.span + 1
                count.previous = count.current if consecutive else 0
                count.since = span * SPAN if consecutive else now
                count.span, count.current = span, 0
            count.current += handed_over
            return Seen(now, count.noted, count.previous, count.current, count.since)

    def note(self, name: str, instead_of: str, slow_down: str) -> bool:
        with self._lock:
            count = self._counts.get(name)
            if count is None or count.noted != instead_of:
                return False
            count.noted = slow_down
            return True

    def admit(self, name: str, holder: str, limit: int) -> Admission:
        now = time.monotonic()
        with self._lock:
            known = self._connections.setdefault(name, _Connections())
            known.holders = {one: until for one, until in known.holders.items() if until > now}
            if holder in known.holders or len(known.holders) < limit:
                known.holders[holder] = now + LEASE
                return Admission(True, known.wanted_until > now)
            known.wanted_until = now + WANTED_FOR
            return Admission(False, True, list(known.holders))

    def dismiss(self, name: str, holders: Sequence[str]) -> None:
        with self._lock:
            known = self._connections.get(name, _Connections())
            for holder in holders:
                known.holders.pop(holder, None)
