"""The mails of a delivery as a transport asks for them, and what it may know of those to come."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Set
from uuid import UUID

from ..replies import Outcome
from ..throttling import RateLimiter
from ..transports.base import ComposedMail, MailSource
from .availability import CircuitBreaker
from .composing_ahead import ComposingAhead

# Mails that a full claim lets one expect behind it.
_MANY = 1000


class Mails(MailSource):
    """The mails of one delivery."""

    def __init__(
        self,
        mails: Iterator[ComposedMail],
        composing: ComposingAhead,
        rate_limiter: RateLimiter,
        breaker: CircuitBreaker,
        start_contents: Callable[[Collection[UUID]], Set[UUID]],
        note: Callable[[Outcome], None],
        take_late: Callable[[Outcome], None],
        use_wait: Callable[[], None],
        has_room: Callable[[], bool],
    ) -> None:
        self._mails = mails
        self._breaker = breaker
        self._composing = composing
        self._rate_limiter = rate_limiter
        self._start_contents = start_contents
        self._note = note
        self._take_late = take_late
        self._use_wait = use_wait
        self._has_room = has_room
        #: Composed, and not handed over.
        self.composed = 0
        #: Claimed, and not composed.
        self.claimed = 0
        #: As many were claimed as there may be: most likely there are more.
        self.more_to_claim = False

    @property
    def ready(self) -> int:
        # A wait for the rate would keep replies from being read, and so may the store that is asked for it.
        return self.composed if self._rate_limiter.grants_at_once else 0

    @property
    def has_room(self) -> bool:
        return self.composed > 0 or self._has_room()

    @property
    def is_paced(self) -> bool:
        return self._rate_limiter.is_limited

    @property
    def expected(self) -> int:
        if self._breaker.is_probing:
            # A probe sends one mail before all others, and its result goes to the receivers of a signal.
            return 1
        return self.composed + self.claimed + (_MANY if self.more_to_claim else 0)

    @property
    def composing_seconds(self) -> float:
        return self._composing.seconds

    def __next__(self) -> ComposedMail:
        return next(self._mails)

    def start_contents(self, keys: Collection[UUID]) -> Set[UUID]:
        return self._start_contents(keys)

    def use_wait(self) -> None:
        self._use_wait()

    def note(self, outcome: Outcome) -> None:
        self._note(outcome)

    def take_late(self, outcome: Outcome) -> None:
        self._take_late(outcome)
