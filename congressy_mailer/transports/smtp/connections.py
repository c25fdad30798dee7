"""The connections of one SMTP transport: how many there are, and opening and leaving them.

Opening takes about seven round trips, and leaving one. So what is not needed at once is done by threads of their own,
and a socket tells when they have come to their end: who waits for servers can wait for it as well.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue

from django.core.mail.backends.smtp import EmailBackend

from ...conf import mailer_settings
from ...exceptions import NoFreeConnection, TransportUnavailable
from ...throttling import connection_slot
from ..base import no_op
from .errors import describe_open_error, too_many_connections
from .lane import Lane
from .round_trips import LONG_WAIT
from .session import Session

# Seconds that goodbyes may take in all.
_GOODBYES = 6.0

# Mails that a further connection is worth, which takes about seven round trips to open.
_MAILS_FOR_ANOTHER = 8


def longest_envelope() -> float:
    """Seconds that the server may take for the recipients of one mail. The others get theirs in another transaction."""
    return mailer_settings().longest_envelope.total_seconds()


def paying_connections(most: int, *, round_trip: float, composing: float, mails: int) -> int:
    """How many connections pay, one at the least.

    Args:
        most: as many as there may be.
        round_trip: seconds; 0: not known.
        composing: seconds that a mail takes to be composed; 0: not known.
        mails: about how many are to be sent.
    """
    if most == 1 or round_trip < LONG_WAIT or not composing:
        return 1
    return max(min(most, math.ceil(round_trip / composing), mails // _MAILS_FOR_ANOTHER), 1)


class Connections:
    """The connections to one server. For one thread."""

    def __init__(
        self, backend: EmailBackend, using: str, *, most: int, another: Callable[[], EmailBackend] | None
    ) -> None:
        """
        Args:
            backend: of the first connection.
            using: its alias.
            most: connections at the same time, where that pays.
            another: makes the same backend again, for a further connection; ``None``: there is no other one.
        """
        self._using = using
        self._most = most if another is not None else 1
        self._another = another
        #: The first is always there, opened or not; it is opened by the caller's own thread.
        self.lanes = [Lane(backend, longest_envelope)]
        #: What threads have opened, or why they could not, and the ends of a socket that tells of it; and the process
        #: that these belong to.
        self._opened: SimpleQueue[tuple[Lane, Session | Exception]] = SimpleQueue()
        #: Can be read when a thread has opened a connection, or failed to; ``None``: none has been asked to.
        self.ear: socket.socket | None = None
        self._mouth: socket.socket | None = None
        self._pid = 0
        self._before_waiting: Callable[[], None] = no_op

    def begin_delivery(self, before_waiting: Callable[[], None]) -> None:
        """Try again what could not be opened in the delivery before.

        Args:
            before_waiting: called before a server or Redis is waited for.
        """
        self._before_waiting = before_waiting
        for lane in self.lanes:
            lane.failed = None

    def open_first(self) -> None:
        """Have the first connection open, unless a thread is at it.

        Raises:
            TransportUnavailable: there is none to be had.
            NoFreeConnection: others have all that are allowed.
        """
        for lane in self.lanes[1:]:
            if lane.session is not None and not lane.busy_aside and not self._is_usable(lane):
                lane.close_aside()
        self.take_opened()
        if not self.lanes[0].busy_aside:
            self.have_session(self.lanes[0])

    def paying(self, *, round_trip: float, composing: float, mails: int) -> int:
        """How many connections pay. Others that are open are used as well.

        Args:
            round_trip: as :func:`paying_connections` has it.
            composing: likewise.
            mails: likewise.
        """
        paying = paying_connections(self._most, round_trip=round_trip, composing=composing, mails=mails)
        while len(self.lanes) < paying:
            assert self._another is not None
            self.lanes.append(Lane(self._another(), longest_envelope))
        return paying

    def have_session(self, lane: Lane) -> bool:
        """Whether a mail can be begun on a connection now; it is opened if not, if need be by another thread.

        Raises:
            TransportUnavailable: there is none to be had.
            NoFreeConnection: others have all that are allowed.
        """
        if self._is_usable(lane):
            return True
        first, *others = self.lanes
        if lane is first and not any(other.session is not None for other in others):
            self._open_here(lane)
            return True
        if lane.failed is None:
            self._open_aside(lane)
        return False

    def take_opened(self) -> None:
        """Have the connections that threads have opened by now."""
        if self.ear is not None:
            with suppress(BlockingIOError):
                self.ear.recv(100)
        while True:
            try:
                lane, result = self._opened.get_nowait()
            except Empty:
                return
            lane.take(None if isinstance(result, Exception) else result)
            if isinstance(result, Exception):
                lane.failed = self._refused(lane, result)

    def keep_or_close(self) -> None:
        """At the end of the mails: leave what can no longer be used, and further connections where others wait."""
        first, *others = self.lanes
        slot = next((lane.slot for lane in self.lanes if lane.slot is not None), None)
        stays = slot is not None and slot.may_stay_open()
        further = any(lane.session is not None for lane in others)
        if not first.busy_aside and not ((stays or further) and first.session is not None and first.session.has_room):
            first.close()
        for lane in others:
            if not lane.busy_aside and not (stays and lane.session is not None and lane.session.has_room):
                lane.close_aside()

    def close_all(self) -> None:
        """Leave all connections, those of other threads excepted; what was announced on them is forgotten."""
        first, *others = self.lanes
        for lane in others:
            if not lane.busy_aside:
                lane.close_aside()
        if not first.busy_aside:
            first.close()

    def close(self) -> None:
        """Leave all connections, also those that are being opened. Never raises."""
        self.close_all()
        until = time.monotonic() + _GOODBYES
        for lane in self.lanes:
            lane.finish_aside(max(until - time.monotonic(), 0.0))
        # Opened meanwhile, for nobody.
        self.take_opened()
        for lane in self.lanes:
            if not lane.busy_aside:
                lane.close()

    def _is_usable(self, lane: Lane) -> bool:
        session, slot = lane.session, lane.slot
        return session is not None and session.usable and slot is not None and slot.renew(self._before_waiting)

    def _open_here(self, lane: Lane) -> None:
        self._before_waiting()
        lane.close()
        lane.slot = connection_slot(self._using)
        if not lane.slot.acquired:
            raise NoFreeConnection(self._using, lane.slot.retry_in)
        try:
            lane.open()
            return
        except Exception as error:
            unavailable = self._refused(lane, error)
        # Not from the error: it may repeat the password, and its frames hold it.
        raise unavailable

    def _refused(self, lane: Lane, error: Exception) -> Exception:
        """Give up a connection that could not be opened; returns what that means."""
        reply, slot = too_many_connections(error), lane.slot
        if reply is not None and slot is not None and slot.refused_by_server(reply):
            lane.close()
            return NoFreeConnection(self._using, slot.retry_in)
        lane.close()
        return TransportUnavailable(describe_open_error(error))

    def _open_aside(self, lane: Lane) -> None:
        if lane.slot is None or not lane.slot.acquired:
            self._before_waiting()
            lane.slot = connection_slot(self._using, extra=True)
            if not lane.slot.acquired:
                lane.failed = NoFreeConnection(self._using, lane.slot.retry_in)
                lane.slot = None
                return
        if self._pid != os.getpid():
            self.ear, self._mouth = socket.socketpair()
            self.ear.setblocking(False)
            self._pid = os.getpid()
        assert self._mouth is not None
        lane.open_aside(partial(_tell, self._opened, self._mouth))


def _tell(
    opened: SimpleQueue[tuple[Lane, Session | Exception]], mouth: socket.socket, lane: Lane, result: Session | Exception
) -> None:
    opened.put((lane, result))
    mouth.send(b".")
