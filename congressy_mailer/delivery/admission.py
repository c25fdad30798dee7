"""Which claimed messages may be sent now: none that is paused, and none to suppressed recipients."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from .. import outbox
from ..models import Message, Pause
from ..suppressions.lookup import suppressed_recipients
from .claims import Claims


class Admission:
    """Takes out of what one task has claimed what may not be sent, and looks after it."""

    def __init__(self, claims: Claims) -> None:
        """
        Args:
            claims: which hold the messages.
        """
        self._claims = claims
        #: The pauses, as they were when the first messages were claimed.
        self._pauses = outbox.ActivePauses()

    def look_up_pauses(self) -> None:
        """Go by what is paused now."""
        self._pauses = outbox.active_pauses()

    @property
    def is_current(self) -> bool:
        """Whether the same is paused still."""
        return outbox.active_pauses() == self._pauses

    def is_paused(self, route: str) -> bool:
        """Whether this mail backend is."""
        return self._pauses.backend(route) is not None

    def admit(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Those that may be sent; the others are put back or ended.

        Args:
            messages: which are claimed.
        """
        return self._without_suppressed(self._without_paused(messages))

    def _without_paused(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The messages that are not paused; the others are put back. Batches are paused before they are claimed."""
        paused: dict[UUID, tuple[Pause, list[Message]]] = {}
        for message in messages:
            pause = None if message.waits_with_batch else self._pauses.of_message(message)
            if pause is not None:
                paused.setdefault(pause.pk, (pause, []))[1].append(message)
        for pause, held in paused.values():
            self._claims.hold(held, pause)
        return [message for message in messages if message.id in self._claims.waiting] if paused else messages

    def _without_suppressed(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The messages that have a recipient who is not suppressed; the others are ended."""
        suppressed = suppressed_recipients([message for message in messages if outbox.may_be_suppressed(message)])
        if not suppressed:
            return messages
        self._claims.remove_suppressed(
            [(message, suppressed[message.id]) for message in messages if message.id in suppressed]
        )
        return [message for message in messages if message.id in self._claims.waiting]
