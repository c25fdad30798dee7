"""Round trips on several connections at once, each resumed when its server has answered."""

from __future__ import annotations

import math
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from .lane import Lane
from .stream import Flow

#: Seconds after which a server counts as one that takes longer than usual, and a way as a long one.
LONG_WAIT = 0.02


class Event(NamedTuple):
    """What a round trip has come to."""

    lane: Lane
    #: The reply to a content was read, and replies to the envelope behind it may be to come; otherwise the round trip
    #: is over.
    content_answered: bool


class RoundTrips:
    """The round trips that are under way, by the thread that hears their ends."""

    def __init__(self) -> None:
        #: What they have come to, until somebody takes it.
        self.events: deque[Event] = deque()
        #: Seconds that one takes, by the last ones; 0: not known.
        self.seconds = 0.0

    @property
    def is_far(self) -> bool:
        """Whether the way is a long one."""
        return self.seconds >= LONG_WAIT

    def begin(self, lane: Lane) -> None:
        """Send what the connection has at hand: a content, an envelope, or both."""
        lane.began_at = time.monotonic()
        lane.flying_since = None if lane.sending is None else lane.began_at
        lane.flow = self._round_trip_on(lane)
        self._resume(lane, None)

    def _round_trip_on(self, lane: Lane) -> Flow[None]:
        session, sending, beginning = lane.session, lane.sending, lane.beginning
        assert session is not None
        yield from session.send(sending, beginning)
        if sending is not None:
            lane.flying_since = None
            # Before the next envelope is heard of: however long that takes, this is to be written down now.
            self.events.append(Event(lane, content_answered=True))
        if beginning is not None:
            yield from session.read_replies(beginning)
        self.events.append(Event(lane, content_answered=False))

    def _resume(self, lane: Lane, came: bool | None) -> None:
        assert lane.flow is not None
        try:
            # A generator that has not begun takes nothing but None.
            lane.wait = next(lane.flow) if came is None else lane.flow.send(came)
        except BaseException as error:
            # A flow that has ended, also by an error, yields nothing more.
            lane.wait = None
            if not isinstance(error, StopIteration):
                raise
            took = time.monotonic() - lane.began_at
            # A single one that took long says nothing of the way.
            self.seconds = min(took, self.seconds * 1.25) if self.seconds else took

    def advance(
        self,
        lanes: Iterable[Lane],
        at_most: float,
        *,
        ear: socket.socket | None,
        on_long_wait: Callable[[], None],
    ) -> None:
        """Wait until something can go on, and let it.

        Args:
            lanes: whose round trips are resumed.
            at_most: seconds.
            ear: ends the wait as well when it can be read.
            on_long_wait: called once nothing has come for :data:`LONG_WAIT`; the wait goes on afterwards.
        """
        if self.events:
            return
        waiting = {lane.session.socket.fileno(): lane for lane in lanes if lane.wait and lane.session}
        poll = select.poll()
        for number, lane in waiting.items():
            assert lane.wait is not None
            poll.register(number, lane.wait.events)
        if ear is not None:
            poll.register(ear, select.POLLIN)
        now = time.monotonic()
        times = [lane.wait.until for lane in waiting.values() if lane.wait and lane.wait.until is not None]
        until = min([*times, now + at_most])
        found = poll.poll(_milliseconds(min(until - now, LONG_WAIT)))
        if not found:
            on_long_wait()
            found = poll.poll(_milliseconds(until - time.monotonic()))
        for number, _ in found:
            if number in waiting:
                self._resume(waiting.pop(number), True)
        now = time.monotonic()
        for lane in waiting.values():
            if lane.wait is not None and lane.wait.until is not None and lane.wait.until <= now:
                self._resume(lane, False)


def _milliseconds(seconds: float) -> int:
    return max(math.ceil(seconds * 1000), 0)
