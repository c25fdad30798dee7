"""What is agreed on: permits, the slow-down in force, and who has a connection open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from .rates import SlowDown, measured_rate

#: Seconds that a connection counts as open after the last that was heard of it. A connection in use is idle, or waits
#: for one reply, for less: it is left after 50 idle seconds, and SparkPost's SMTP API reference asks for 60 seconds of
#: patience.
LEASE = 75.0

#: Seconds for which it is known that somebody waits for a connection.
WANTED_FOR = 5.0

#: Seconds. A slow-down that nobody has looked at for so long is forgotten, and nobody says that it is over.
FORGOTTEN_AFTER = 3600


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look into the ledger shows."""

    #: The time, by the clock that all times in this ledger are of.
    now: float
    #: The slow-down that was written down last, as :meth:`SlowDown.encode` has it; empty: none.
    noted: str
    #: Mails handed over in the last whole span, and in the one that has begun.
    previous: int
    current: int
    #: When the counting of those began.
    since: float

    @property
    def slow_down(self) -> SlowDown | None:
        """The slow-down, which may be over."""
        return SlowDown.decode(self.noted)

    @property
    def measured(self) -> float:
        """Mails per second that were handed over lately."""
        return measured_rate(self.previous, self.current, self.now - self.since)


@dataclass(frozen=True, slots=True)
class Admission:
    """The answer to somebody who wants a connection, or wants to keep one."""

    granted: bool
    #: Others were refused one lately.
    wanted: bool
    #: Who has one, where it was not granted.
    holders: Sequence[str] = ()


class Ledger(Protocol):
    """Where it is written down. ``name`` is a mail backend's everywhere."""

    def take(self, name: str, rate: float, burst: int, count: int) -> float:
        """Take permits. Returns 0 where they were taken, else the seconds until they can be: none of them was."""
        ...

    def look(self, name: str, handed_over: int) -> Seen:
        """See what is in force, and tell how many mails were handed over since the last look."""
        ...

    def note(self, name: str, instead_of: str, slow_down: str) -> bool:
        """Write down a slow-down, unless somebody else has written down another one meanwhile."""
        ...

    def admit(self, name: str, holder: str, limit: int) -> Admission:
        """Give somebody a connection, or let it keep the one it has for another :data:`LEASE`."""
        ...

    def dismiss(self, name: str, holders: Sequence[str]) -> None:
        """Their connections are closed."""
        ...
