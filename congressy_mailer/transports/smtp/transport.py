"""Delivery over Django's SMTP backend with pipelining (RFC 2920): one round trip for a mail on an open connection.

The backend opens the connection and logs in; what is said on it then is :mod:`.session`'s. Over a long way several
connections are used at once, all of them by the thread that composes and records.
"""

from __future__ import annotations

import math
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue
from uuid import UUID

from celery.exceptions import SoftTimeLimitExceeded
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.smtp import EmailBackend

from ...conf import mailer_settings
from ...exceptions import NoFreeConnection, TransportUnavailable
from ...replies import Outcome, Reply
from ...sparkpost import headers
from ...throttling import ConnectionSlot, connection_slot
from ..base import ComposedMail, no_op
from . import pipelining
from .errors import describe_open_error, too_many_connections
from .lane import Lane
from .session import Attempt, Session
from .source import Source
from .stream import Flow

# What a subclass may have changed about how a mail is sent; opening and logging in are as free as they are in Django.
_SENDING_METHODS = ("send_messages", "_send", "prep_address", "connection_class")

#: Seconds after which a server counts as one that takes longer than usual, and a way as a long one.
_USUAL_WAIT = 0.02

# Seconds after which the mails of other connections are composed without waiting for a content's reply.
_STRAGGLING = 1.0

# Seconds that contents on their way get for their replies when a delivery is broken off, and when its time is over.
_DRAIN, _LAST_DRAIN = 10.0, 1.0

# Seconds between two questions whether others wait for a connection: they ask again every one to three seconds.
_OTHERS_ASKED_FOR_EVERY = 1.0

# Seconds that goodbyes may take in all.
_GOODBYES = 6.0

# Mails that a further connection is worth, which takes about seven round trips to open.
_MAILS_FOR_ANOTHER = 8


def sends_as_django_does(backend: BaseEmailBackend) -> bool:
    """Whether it is Django's SMTP backend, or one that differs from it in opening and closing at the most."""
    return isinstance(backend, EmailBackend) and all(
        getattr(type(backend), name, None) is getattr(EmailBackend, name, None) for name in _SENDING_METHODS
    )


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
    if most == 1 or round_trip < _USUAL_WAIT or not composing:
        return 1
    return max(min(most, math.ceil(round_trip / composing), mails // _MAILS_FOR_ANOTHER), 1)


class SmtpTransport:
    """A transport over an SMTP backend that :func:`sends_as_django_does`. Connections stay open for the next use.

    For one thread.
    """

    def __init__(
        self,
        backend: EmailBackend,
        using: str = "",
        *,
        most: int = 1,
        another: Callable[[], EmailBackend] | None = None,
    ) -> None:
        """
        Args:
            backend: of the first connection.
            using: its alias.
            most: connections at the same time, where that pays.
            another: makes the same backend again, for a further connection.
        """
        self._using = using
        self._most = most if another is not None else 1
        self._another = another
        self._logged_in = bool(backend.username and backend.password)
        self._server = (str(backend.host), int(backend.port or 0))
        self._for_sparkpost = headers.enabled_for(backend)
        self._lanes = [Lane(backend, longest_envelope)]
        #: Seconds that the last round trip took.
        self._round_trip = 0.0
        #: What threads have opened, or why they could not, and the ends of a socket that tells of it; and the process
        #: that these belong to.
        self._opened: SimpleQueue[tuple[Lane, Session | Exception]] = SimpleQueue()
        self._ear: socket.socket | None = None
        self._mouth: socket.socket | None = None
        self._pid = 0
        # Of one delivery.
        self._source = Source((), for_sparkpost=False)
        self._before_waiting: Callable[[], None] = no_op
        #: What flows have come to: a content was answered, or a round trip is over.
        self._events: deque[tuple[Lane, bool]] = deque()
        #: Outcomes that nobody has taken yet.
        self._outcomes: deque[Outcome] = deque()
        #: Outcomes that run code of the host's, such as receivers of signals.
        self._told_later: list[Outcome] = []
        #: Outcomes were handed out since what is known was written down.
        self._unwritten = False
        #: By key, what the server has said in place of waiting for the content that it had asked for.
        self._refused_unasked: dict[UUID, Reply] = {}
        #: By key, envelopes that have to be begun again for what stood before them.
        self._misplaced: dict[UUID, Attempt] = {}
        self._pulling = False
        #: When it was last asked whether others wait for a connection, by ``time.monotonic()``.
        self._others_asked_for_at = -math.inf

    def deliver(self, mails: Iterable[ComposedMail], before_waiting: Callable[[], None] = no_op) -> Iterator[Outcome]:
        """See :meth:`congressy_mailer.transports.base.Transport.deliver`.

        A mail is pulled before the content of the one before it is sent, so that its envelope can go along. None is
        composed while a content is on its way, on any connection: whatever composing does to this process, no mail
        has been sent whose outcome is not known. So what has no outcome was not sent either when the generator fails,
        or when this one is closed early, which may be while other connections wait for replies: those outcomes are
        :meth:`~congressy_mailer.transports.base.MailSource.take_late`'s.
        """
        self._source = Source(mails, for_sparkpost=self._for_sparkpost)
        self._before_waiting = before_waiting
        self._events.clear()
        self._outcomes.clear()
        self._told_later.clear()
        self._refused_unasked.clear()
        self._misplaced.clear()
        self._unwritten = self._pulling = False
        for lane in self._lanes:
            lane.failed = None
        try:
            self._open_first()
            while True:
                self._hand_out()
                if not any(lane.is_under_way for lane in self._lanes) and not self._has_next():
                    break
                self._advance(use_wait=self._is_far)
                self._take_events()
                while self._outcomes:
                    yield self._outcomes.popleft()
        except BaseException as error:
            with suppress(Exception):
                before_waiting()
            self._wind_up(error)
            # In the middle of a mail nothing else takes back what has been announced of it.
            self._close_all()
            if isinstance(error, GeneratorExit):
                while self._outcomes:
                    self._source.take_late(self._outcomes.popleft())
                raise
            interrupted = any(outcome.interrupted for outcome in self._outcomes)
            while self._outcomes:
                yield self._outcomes.popleft()
            if not interrupted:
                raise
            return
        # A goodbye may take its time.
        before_waiting()
        self._keep_or_close()

    @property
    def contents_on_their_way(self) -> int:
        """On how many connections a content was sent whose reply was not read."""
        return sum(lane.flying_since is not None for lane in self._lanes)

    def close(self) -> None:
        """See :meth:`congressy_mailer.transports.base.Transport.close`."""
        self._close_all()
        until = time.monotonic() + _GOODBYES
        for lane in self._lanes:
            lane.finish_aside(max(until - time.monotonic(), 0.0))
        # Opened meanwhile, for nobody.
        self._take_opened()
        for lane in self._lanes:
            if not lane.busy_aside:
                lane.close()

    def _close_all(self) -> None:
        first, *others = self._lanes
        for lane in others:
            if not lane.busy_aside:
                lane.close_aside()
        if not first.busy_aside:
            first.close()

    # Handing out

    def _hand_out(self) -> None:
        """Begin a round trip on each connection that something can be said on."""
        paying = self._paying_lanes()
        several = self._source.expected > 1
        usable = [
            lane for place, lane in enumerate(self._lanes)
            if place < paying or lane.is_under_way or (several and lane.session is not None)
        ]  # fmt: skip
        self._source.width = len(usable)
        ready = [lane for lane in usable if lane.flow is None and not lane.busy_aside]
        begun = self._with_contents_started([lane for lane in ready if self._prepare(lane)])
        if self._unwritten and self._is_far and any(lane.sending is not None for lane in begun):
            # So that no more than one mail of each connection is known to this process alone.
            self._write_down()
        for lane in begun:
            self._begin(lane)

    def _prepare(self, lane: Lane) -> bool:
        """Find out what is to be said next; returns whether there is something."""
        sending = lane.sending
        if sending is not None and not sending.envelope.composed.may_send():
            # Another worker has it now. Nothing of it was sent, and the server waits for it in vain.
            lane.close()
            sending = None
        if sending is None:
            if not (self._may_pull() and self._has_next() and self._have_session(lane)):
                return False
        else:
            assert lane.session is not None
            if not (pipelining.spans_mails(*self._server) and lane.session.has_room):
                return True
            if not self._may_pull():
                # The server waits for the content a moment longer.
                return False
        if self._has_next():
            assert lane.session is not None
            lane.beginning = lane.session.begin(self._source.pop())
        return True

    def _with_contents_started(self, lanes: list[Lane]) -> list[Lane]:
        """Say that these contents are about to leave; returns the connections on which something may be said."""
        keys = {lane.sending.envelope.composed.key for lane in lanes if lane.sending is not None}
        if not keys or (allowed := self._source.start_contents(keys)) == keys:
            return lanes
        lost = [lane for lane in lanes if lane.sending and lane.sending.envelope.composed.key not in allowed]
        for lane in lost:
            # Another worker has it now. The server waits for it in vain, and the mail behind it goes elsewhere.
            if lane.beginning is not None:
                self._source.put_back([lane.beginning.envelope])
            lane.beginning = lane.sending = None
            lane.close()
        return [lane for lane in lanes if lane not in lost]

    def _may_pull(self) -> bool:
        """Whether mails can be had without composing, or no content is on its way."""
        return self._source.ready > 0 or not any(lane.is_flying(_STRAGGLING) for lane in self._lanes)

    def _has_next(self) -> bool:
        self._pulling = True
        has_next = self._source.has_next()
        self._pulling = False
        return has_next

    def _begin(self, lane: Lane) -> None:
        lane.began_at = time.monotonic()
        lane.flying_since = None if lane.sending is None else lane.began_at
        lane.flow = self._round_trip_on(lane)
        self._go_on(lane, None)

    def _round_trip_on(self, lane: Lane) -> Flow[None]:
        session, sending, beginning = lane.session, lane.sending, lane.beginning
        assert session is not None
        yield from session.send(sending, beginning)
        if sending is not None:
            lane.flying_since = None
            # Before the next envelope is heard of: however long that takes, this is to be written down now.
            self._events.append((lane, True))
        if beginning is not None:
            yield from session.read_replies(beginning)
        self._events.append((lane, False))

    def _go_on(self, lane: Lane, came: bool | None) -> None:
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
            self._round_trip = min(took, self._round_trip * 1.25) if self._round_trip else took

    # Hearing

    def _advance(self, at_most: float = _STRAGGLING, *, use_wait: bool = False) -> None:
        """Wait until something can go on, and let it.

        Args:
            at_most: seconds.
            use_wait: whether a wait may be used for what the next mails need.
        """
        if self._events:
            return
        waiting = {lane.session.socket.fileno(): lane for lane in self._lanes if lane.wait and lane.session}
        poll = select.poll()
        for number, lane in waiting.items():
            assert lane.wait is not None
            poll.register(number, lane.wait.events)
        if self._ear is not None:
            poll.register(self._ear, select.POLLIN)
        now = time.monotonic()
        times = [lane.wait.until for lane in waiting.values() if lane.wait and lane.wait.until is not None]
        until = min([*times, now + at_most])
        found = poll.poll(_milliseconds(min(until - now, _USUAL_WAIT)))
        if not found:
            self._write_down()
            if use_wait:
                self._source.use_wait()
            found = poll.poll(_milliseconds(until - time.monotonic()))
        for number, _ in found:
            if number in waiting:
                self._go_on(waiting.pop(number), True)
        self._take_opened()
        now = time.monotonic()
        for lane in waiting.values():
            if lane.wait is not None and lane.wait.until is not None and lane.wait.until <= now:
                self._go_on(lane, False)

    def _write_down(self) -> None:
        self._unwritten = False
        self._before_waiting()

    def _take_events(self) -> None:
        while self._events:
            lane, content_answered = self._events.popleft()
            if content_answered:
                self._take_content_reply(lane)
            else:
                self._take_end(lane)
        if self._told_later and not any(lane.flying_since for lane in self._lanes):
            self._outcomes += self._told_later
            self._told_later.clear()

    def _take_content_reply(self, lane: Lane) -> None:
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
            self._add_outcome(sending)

    def _take_end(self, lane: Lane) -> None:
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
            self._add_outcome(beginning)

    def _add_outcome(self, attempt: Attempt) -> None:
        outcome = attempt.outcome(logged_in=self._logged_in)
        self._unwritten = True
        if outcome.sender_refused:
            # Receivers of a signal may take any time, and the replies of other connections would not be read.
            self._told_later.append(outcome)
        else:
            self._outcomes.append(outcome)
            # Now: before this one is taken, what others have said may have to wait for the database.
            self._source.note(outcome)

    def _wind_up(self, error: BaseException) -> None:
        """Hear what is still to be heard of contents on their way, and find an outcome for the others.

        Args:
            error: what broke the delivery off. Celery's time limit defers a mail whose envelope is on its way for a
                slow server; with anything else such a one has no outcome, since nothing of it was sent.
        """
        time_is_over = isinstance(error, SoftTimeLimitExceeded) and not self._pulling
        drain = _LAST_DRAIN if time_is_over else _DRAIN
        while True:
            # The account may be refused, which is no news any more.
            with suppress(TransportUnavailable):
                self._take_events()
                if not any(lane.wait and lane.is_flying(drain) for lane in self._lanes):
                    break
                self._advance(at_most=_USUAL_WAIT)
        self._outcomes += self._told_later
        for lane in self._lanes:
            if lane.flow is None or lane.session is None:
                continue
            sending = lane.sending if lane.flying_since is not None else None
            lane.session.interrupt(sending, lane.beginning, error)
            for attempt in (sending, lane.beginning if time_is_over else None):
                if attempt is not None:
                    outcome = attempt.outcome(logged_in=self._logged_in)
                    self._outcomes.append(replace(outcome, interrupted=time_is_over))

    # Connections

    @property
    def _is_far(self) -> bool:
        return self._round_trip >= _USUAL_WAIT

    def _paying_lanes(self) -> int:
        """How many connections pay. Others that are open are used as well."""
        source = self._source
        paying = paying_connections(
            self._most, round_trip=self._round_trip, composing=source.composing_seconds, mails=source.expected
        )
        while len(self._lanes) < paying:
            assert self._another is not None
            self._lanes.append(Lane(self._another(), longest_envelope))
        return paying

    def _have_session(self, lane: Lane) -> bool:
        """Whether a mail can be begun on a connection now; it is opened if not, if need be by another thread.

        Raises:
            TransportUnavailable: there is none to be had.
            NoFreeConnection: others have all that are allowed.
        """
        if self._is_usable(lane):
            return True
        first, *others = self._lanes
        if lane is first and not any(other.session is not None for other in others):
            self._open_here(lane)
            return True
        if lane.failed is None:
            self._open_aside(lane)
        return False

    def _open_first(self) -> None:
        for lane in self._lanes[1:]:
            if lane.session is not None and not lane.busy_aside and not self._is_usable(lane):
                lane.close_aside()
        self._take_opened()
        if not self._lanes[0].busy_aside:
            self._have_session(self._lanes[0])

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
            self._ear, self._mouth = socket.socketpair()
            self._ear.setblocking(False)
            self._pid = os.getpid()
        assert self._mouth is not None
        lane.open_aside(partial(_tell, self._opened, self._mouth))

    def _take_opened(self) -> None:
        if self._ear is not None:
            with suppress(BlockingIOError):
                self._ear.recv(100)
        while True:
            try:
                lane, result = self._opened.get_nowait()
            except Empty:
                return
            lane.take(None if isinstance(result, Exception) else result)
            if isinstance(result, Exception):
                lane.failed = self._refused(lane, result)

    def _keep_or_close(self) -> None:
        """At the end of the mails: leave what can no longer be used, and further connections where others wait."""
        first, *others = self._lanes
        slot = next((lane.slot for lane in self._lanes if lane.slot is not None), None)
        stays = slot is not None and self._may_stay_open(slot)
        further = any(lane.session is not None for lane in others)
        if not first.busy_aside and not ((stays or further) and first.session is not None and first.session.has_room):
            first.close()
        for lane in others:
            if not lane.busy_aside and not (stays and lane.session is not None and lane.session.has_room):
                lane.close_aside()

    def _may_stay_open(self, slot: ConnectionSlot) -> bool:
        if time.monotonic() - self._others_asked_for_at < _OTHERS_ASKED_FOR_EVERY:
            return slot.acquired
        self._others_asked_for_at = time.monotonic()
        return slot.may_stay_open()


def _tell(
    opened: SimpleQueue[tuple[Lane, Session | Exception]], mouth: socket.socket, lane: Lane, result: Session | Exception
) -> None:
    opened.put((lane, result))
    mouth.send(b".")


def _milliseconds(seconds: float) -> int:
    return max(math.ceil(seconds * 1000), 0)
