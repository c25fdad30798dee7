"""The store of one process, for its threads: where the broker is not Redis, and while Redis does not answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock

from throttled import MemoryStoreBackend
from throttled.rate_limiter.gcra import MemoryLimitAtomicAction

from .slow_down import COUNT_WINDOW
from .store import CONTENTION_TTL, LEASE, LIMIT_FRESH, LIMIT_STEP, LIMIT_TTL, SlotAnswer, Snapshot


@dataclass
class _Count:
    window: int
    counted_since: float
    previous: int = 0
    current: int = 0
    encoded: str = ""


@dataclass
class _Connections:
    #: Until when each counts as open.
    owners: dict[str, float] = field(default_factory=dict)
    others_wait_until: float = 0.0
    learnt_limit: int = 0
    learnt_at: float = 0.0

    def limit_at(self, now: float) -> int:
        """The limit that the server has shown; 0: none."""
        if not self.learnt_limit or now - self.learnt_at >= LIMIT_TTL:
            return 0
        return self.learnt_limit + int((now - self.learnt_at) // LIMIT_STEP)


class MemoryStore:
    """See :class:`.store.LimitStore`."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._permits = MemoryLimitAtomicAction(MemoryStoreBackend())
        self._counts: dict[str, _Count] = {}
        self._connections: dict[str, _Connections] = {}

    def take_permits(self, name: str, rate: float, burst: int, count: int) -> float:
        limited, _, _, retry_after = self._permits.do([name], [1 / rate, burst, count])
        return float(retry_after) if limited else 0.0

    def snapshot(self, name: str, handed_over: int) -> Snapshot:
        now = time.monotonic()
        with self._lock:
            window = int(now // COUNT_WINDOW)
            count = self._counts.setdefault(name, _Count(window, now))
            if window != count.window:
                consecutive = window == count.window + 1
                count.previous = count.current if consecutive else 0
                count.counted_since = window * COUNT_WINDOW if consecutive else now
                count.window, count.current = window, 0
            count.current += handed_over
            return Snapshot(now, count.encoded, count.previous, count.current, count.counted_since)

    def replace_slow_down(self, name: str, expected: str, slow_down: str) -> bool:
        with self._lock:
            count = self._counts.get(name)
            if count is None or count.encoded != expected:
                return False
            count.encoded = slow_down
            return True

    def acquire(self, name: str, owner: str, limit: int, *, quiet: bool = False) -> SlotAnswer:
        now = time.monotonic()
        with self._lock:
            connections = self._connections.setdefault(name, _Connections())
            connections.owners = {other: until for other, until in connections.owners.items() if until > now}
            learnt = connections.limit_at(now)
            is_learnt = 0 < learnt < limit
            if owner in connections.owners or len(connections.owners) < (learnt if is_learnt else limit):
                connections.owners[owner] = now + LEASE
                return SlotAnswer(True, connections.others_wait_until > now, limit_learnt=is_learnt)
            if not quiet:
                connections.others_wait_until = now + CONTENTION_TTL
            return SlotAnswer(False, True, list(connections.owners), limit_learnt=is_learnt)

    def learn_limit(self, name: str, owner: str) -> tuple[int, bool]:
        now = time.monotonic()
        with self._lock:
            connections = self._connections.setdefault(name, _Connections())
            connections.owners.pop(owner, None)
            others = sum(until > now for until in connections.owners.values())
            known = connections.limit_at(now)
            connections.others_wait_until = now + CONTENTION_TTL
            if not others:
                return (known if now - connections.learnt_at < LIMIT_FRESH else 0), False
            connections.learnt_limit = min(known, others) if known else others
            connections.learnt_at = now
            return connections.learnt_limit, not known

    def release(self, name: str, owners: Sequence[str]) -> None:
        with self._lock:
            connections = self._connections.get(name, _Connections())
            for owner in owners:
                connections.owners.pop(owner, None)
