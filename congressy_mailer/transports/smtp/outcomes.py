"""What becomes of the mails of one delivery, by what the server says of each on one connection or another."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from uuid import UUID

from ...replies import Outcome, Reply
from . import pipelining
from .attempt import Attempt
from .lane import Lane
from .source import Source


class Outcomes:
    """Outcomes that nobody has taken yet, and mails that are begun again instead."""

    def __init__(self, source: Source, server: tuple[str, int], *, logged_in: bool) -> None:
        """
        Args:
            source: takes back what is begun again, and is told of each outcome when it is known.
            server: host and port.
            logged_in: the account has a login.
        """
        self._source = source
        self._server = server
        self._logged_in = logged_in
        self._known: deque[Outcome] = deque()
        #: Those that run code of the host's, such as receivers of signals.
        self._told_later: list[Outcome] = []
        #: Some were found since what is known was written down.
        self.unwritten = False
        #: By key, what the server has said in place of waiting for the content that it had asked for.
        self._refused_unasked: dict[UUID, Reply] = {}
        #: By key, envelopes that have to be begun again for what stood before them.
        self._misplaced: dict[UUID, Attempt] = {}

    def take(self) -> Iterator[Outcome]:
        """All that are known, each of them once."""
        while self._known:
            yield self._known.popleft()

    @property
    def interrupted(self) -> bool:
        """Whether one of them was cut off by the time limit."""
        return any(outcome.interrupted for outcome in self._known)

    def release_told_later(self) -> None:
        """No content is on its way: the host's code may take its time."""
        self._known += self._told_later
        self._told_later.clear()

    def take_content_reply(self, lane: Lane) -> None:
        """The server has said what becomes of the content that was sent."""
        sending = lane.sending
        assert sending is not None
        if sending.refused_unasked is not None:
            key = sending.envelope.composed.key
            sending.settle_unasked(self._refused_unasked.get(key))
            self._refused_unasked[key] = sending.refused_unasked
        lane.sending = None
        if sending.retries_at_once:
            lane.again.append(sending)
        else:
            self._add(sending)

    def end_round_trip(self, lane: Lane) -> None:
        """All has been said that was to be said in this round trip."""
        beginning, lane.beginning, lane.flow = lane.beginning, None, None
        again, lane.again = lane.again, []
        if beginning is not None and beginning.retries_at_once:
            again.append(beginning)
        self._source.put_back([attempt.envelope_again for attempt in again])
        if beginning is None:
            return
        key = beginning.envelope.composed.key
        misplaced = self._misplaced.pop(key, None)
        if misplaced is not None and beginning.sender_accepted and not beginning.went_along:
            pipelining.restrict_to_envelopes(*self._server, misplaced.first_refusal)
        if beginning.misplaced:
            self._misplaced[key] = beginning
        if beginning.awaited_content:
            lane.sending = beginning
        elif not beginning.retries_at_once:
            self._add(beginning)

    def _add(self, attempt: Attempt) -> None:
        outcome = attempt.outcome(logged_in=self._logged_in)
        self.unwritten = True
        if outcome.sender_refused:
            # Receivers of a signal may take any time, and the replies of other connections would not be read.
            self._told_later.append(outcome)
        else:
            self._known.append(outcome)
            # Now: before this one is taken, what others have said may have to wait for the database.
            self._source.note(outcome)

    def add_interrupted(self, attempt: Attempt, *, time_is_over: bool) -> None:
        """A mail was broken off.

        Args:
            attempt: what was said of it until then.
            time_is_over: for Celery's time limit.
        """
        outcome = attempt.outcome(logged_in=self._logged_in)
        self._known.append(replace(outcome, interrupted=time_is_over))
