"""How far a batch has come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .choices import FINAL, State


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a batch is."""

    #: Messages by their state; states that none is in are left out.
    states: Mapping[State, int]
    #: Recipients that were left out.
    skipped: int
    #: The caller has come to the end of the recipients.
    stored: bool

    @property
    def total(self) -> int:
        """Messages that are stored."""
        return sum(self.states.values())

    @property
    def finished(self) -> int:
        """Messages that nothing more will happen to by itself."""
        return sum(count for state, count in self.states.items() if state in FINAL)

    @property
    def sent(self) -> int:
        """Messages that the mail server has accepted."""
        return self.states.get(State.SENT, 0)

    @property
    def done(self) -> bool:
        """Nothing is left to be sent, and no further recipient will come."""
        return self.stored and self.finished == self.total
