"""The progress of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .choices import FINAL, State


@dataclass(frozen=True, slots=True)
class Progress:
    """The messages of a batch, counted."""

    #: Number of messages by state; states without messages are left out.
    states: Mapping[State, int]
    #: Number of recipients that were skipped as invalid.
    skipped: int
    #: Whether all recipients have been stored, or the batch was cancelled.
    stored: bool

    @property
    def total(self) -> int:
        """Number of stored messages."""
        return sum(self.states.values())

    @property
    def finished(self) -> int:
        """Number of messages in a final state."""
        return sum(count for state, count in self.states.items() if state in FINAL)

    @property
    def sent(self) -> int:
        """Number of messages that the mail server has accepted."""
        return self.states.get(State.SENT, 0)

    @property
    def done(self) -> bool:
        """Whether all recipients are stored and all messages are final."""
        return self.stored and self.finished == self.total
