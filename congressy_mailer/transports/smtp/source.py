"""The mails of one delivery, in the order in which connections begin them."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Set
from functools import partial
from itertools import islice
from uuid import UUID

from ...replies import Outcome
from ..base import ComposedMail, MailSource
from ..envelope import Envelope, envelope_for


class Source:
    """The mails to come."""

    def __init__(self, mails: Iterable[ComposedMail], *, for_sparkpost: bool) -> None:
        self._mails = iter(mails)
        self._source = mails if isinstance(mails, MailSource) else None
        if self._source is not None:
            self._source.asks_before_contents = True
        self._envelope_for = partial(envelope_for, for_sparkpost=for_sparkpost)
        self._pending: deque[Envelope] = deque()

    def take_late(self, outcome: Outcome) -> None:
        """See :meth:`congressy_mailer.transports.base.MailSource.take_late`."""
        if self._source is not None:
            self._source.take_late(outcome)

    def start_contents(self, keys: Collection[UUID]) -> Set[UUID]:
        """See :meth:`congressy_mailer.transports.base.MailSource.start_contents`."""
        return self._source.start_contents(keys) if self._source is not None else set(keys)

    def use_wait(self) -> None:
        """See :meth:`congressy_mailer.transports.base.MailSource.use_wait`."""
        if self._source is not None:
            self._source.use_wait()

    def note(self, outcome: Outcome) -> None:
        """See :meth:`congressy_mailer.transports.base.MailSource.note`."""
        if self._source is not None:
            self._source.note(outcome)

    @property
    def ready(self) -> int:
        """How many can be had without composing."""
        return len(self._pending) + (self._source.ready if self._source is not None else 0)

    @property
    def has_room(self) -> bool:
        """See :attr:`congressy_mailer.transports.base.MailSource.has_room`."""
        return bool(self._pending) or self._source is None or self._source.has_room

    @property
    def expected(self) -> int:
        """About how many are to come; 0 where that is not known, and one connection is to serve all."""
        return self._source.expected if self._source is not None else 0

    @property
    def composing_seconds(self) -> float:
        """How long each takes to be composed; 0: not known."""
        return self._source.composing_seconds if self._source is not None else 0.0

    @property
    def width(self) -> int:
        return self._source.width if self._source is not None else 1

    @width.setter
    def width(self, width: int) -> None:
        if self._source is not None:
            self._source.width = width

    def has_next(self) -> bool:
        """Have one at hand; false if there is none left."""
        if not self._pending:
            self._pending.extend(map(self._envelope_for, islice(self._mails, 1)))
        return bool(self._pending)

    def pop(self) -> Envelope:
        """What is at hand."""
        return self._pending.popleft()

    def put_back(self, envelopes: list[Envelope]) -> None:
        """Take these again first."""
        self._pending.extendleft(reversed(envelopes))
