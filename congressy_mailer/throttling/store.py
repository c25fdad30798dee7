"""What is agreed on: permits, the slow-down in force, and who has a connection open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from .slow_down import SlowDown, measured_rate

#: Seconds that a connection counts as open after the last that was heard of it. A connection in use is idle, or waits
#: for one reply, for less: it is left after 50 idle seconds, and SparkPost's SMTP API reference asks for 60 seconds of
#: patience.
LEASE = 75.0

#: Seconds for which a wait for a connection is remembered.
CONTENTION_TTL = 5.0

#: Seconds for which a limit that a server has shown is remembered, and after which one connection more is tried.
LIMIT_TTL = 3600
LIMIT_STEP = 600

#: Seconds after which a server that refuses the only connection does not do so for one that was closed just before.
LIMIT_FRESH = 60

#: Seconds after which an unused slow-down is forgotten, without a line in the log.
SLOW_DOWN_TTL = 3600


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a look into the store shows."""

    #: The time, by the clock that all times in this store are of.
    now: float
    #: The slow-down that was written down last, as :meth:`SlowDown.encode` has it; empty: none.
    encoded: str
    #: Mails handed over in the last whole window, and in the one that has begun.
    previous: int
    current: int
    #: When the counting of those began.
    counted_since: float

    @property
    def slow_down(self) -> SlowDown | None:
        """The slow-down, which may be over."""
        return SlowDown.decode(self.encoded)

    @property
    def measured_rate(self) -> float:
        """Mails per second that were handed over lately."""
        return measured_rate(self.previous, self.current, self.now - self.counted_since)


@dataclass(frozen=True, slots=True)
class SlotAnswer:
    """The answer to a request for a connection, or to keep one."""

    granted: bool
    #: Others were refused one lately.
    others_wait: bool
    #: Who has one, where it was not granted.
    owners: Sequence[str] = ()
    #: The server itself has shown that it allows no more.
    limit_learnt: bool = False


class LimitStore(Protocol):
    """Where it is written down. ``name`` is a mail backend's everywhere."""

    def take_permits(self, name: str, rate: float, burst: int, count: int) -> float:
        """Take permits. Returns 0 where they were taken, else the seconds until they can be: none of them was."""
        ...

    def snapshot(self, name: str, handed_over: int) -> Snapshot:
        """See what is in force, and tell how many mails were handed over since the last look."""
        ...

    def replace_slow_down(self, name: str, expected: str, slow_down: str) -> bool:
        """Store a slow-down, unless another process has stored one meanwhile."""
        ...

    def acquire(self, name: str, owner: str, limit: int, *, quiet: bool = False) -> SlotAnswer:
        """Grant an owner a connection, or let it keep its own for another :data:`LEASE`.

        Args:
            name: of the mail backend.
            owner: of the connection.
            limit: the most connections, unless :meth:`learn_limit` has set a lower one.
            quiet: where it is refused, others need not know.
        """
        ...

    def learn_limit(self, name: str, owner: str) -> tuple[int, bool]:
        """The server has refused a connection as one too many: no more than the others are open.

        Returns:
            The limit that holds for an hour, and one connection more after every ten minutes, and whether it is a new
            one; 0 where no other connection is known.
        """
        ...

    def release(self, name: str, owners: Sequence[str]) -> None:
        """Their connections are closed."""
        ...
