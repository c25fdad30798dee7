"""What a task delivers with, and what one mail backend adds to that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from ..throttling import RateLimiter
from .availability import CircuitBreaker
from .claims import Claims
from .composing_ahead import ComposingAhead
from .deadlines import Deadlines
from .recording import Recorder


@dataclass(frozen=True)
class TaskParts:
    """The same for all mail backends that a task delivers over."""

    #: They hold the messages.
    claims: Claims
    #: It writes down outcomes.
    recorder: Recorder
    #: Of the task.
    deadlines: Deadlines
    #: It composes the messages.
    composing: ComposingAhead
    #: Whether something more urgent waits, asked between two chunks of mails.
    should_yield: Callable[[], bool]
    #: Called before it is looked whether the slice is over.
    before_chunk: Callable[[], None]


@dataclass(frozen=True)
class Route:
    """A mail backend that messages are sent over."""

    #: The backend's alias.
    using: str
    breaker: CircuitBreaker
    rate_limiter: RateLimiter
    #: Puts back, until then, what waits for the backend, or for a sender that it refuses.
    hold_back: Callable[[Sequence[UUID], datetime], None]
