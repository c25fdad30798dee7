"""Delivery over Django's SMTP backend with pipelining (RFC 2920): one round trip for a mail on an open connection.

The backend opens the connection and logs in; what is said on it then is :mod:`.session`'s. Over a long way several
:mod:`.connections` are used at once, all of them by the thread that composes and records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from celery.exceptions import SoftTimeLimitExceeded
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.smtp import EmailBackend

from ...exceptions import TransportUnavailable
from ...replies import Outcome
from ...sparkpost import headers
from ..base import ComposedMail, no_op
from . import pipelining
from .connections import Connections
from .lane import Lane
from .outcomes import Outcomes
from .round_trips import LONG_WAIT, RoundTrips
from .source import Source

# What a subclass may have changed about how a mail is sent; opening and logging in are as free as they are in Django.
_SENDING_METHODS = ("send_messages", "_send", "prep_address", "connection_class")

# Seconds after which the mails of other connections are composed without waiting for a content's reply.
_STRAGGLING = 1.0

# Seconds that contents on their way get for their replies when a delivery is broken off, and when its time is over.
_DRAIN, _LAST_DRAIN = 10.0, 1.0


def sends_as_django_does(backend: BaseEmailBackend) -> bool:
    """Whether it is Django's SMTP backend, or one that differs from it in opening and closing at the most."""
    return isinstance(backend, EmailBackend) and all(
        getattr(type(backend), name, None) is getattr(EmailBackend, name, None) for name in _SENDING_METHODS
    )


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
        self._logged_in = bool(backend.username and backend.password)
        self._server = (str(backend.host), int(backend.port or 0))
        self._for_sparkpost = headers.enabled_for(backend)
        self._connections = Connections(backend, using, most=most, another=another)
        self._round_trips = RoundTrips()
        # Of one delivery.
        self._source = Source((), for_sparkpost=False)
        self._outcomes = Outcomes(self._source, self._server, logged_in=self._logged_in)
        self._before_waiting: Callable[[], None] = no_op
        self._pulling = False

    def deliver(self, mails: Iterable[ComposedMail], before_waiting: Callable[[], None] = no_op) -> Iterator[Outcome]:
        """See :meth:`congressy_mailer.transports.base.Transport.deliver`.

        A mail is pulled before the content of the one before it is sent, so that its envelope can go along. None is
        composed while a content is on its way, on any connection: whatever composing does to this process, no mail
        has been sent whose outcome is not known. So what has no outcome was not sent either when the generator fails,
        or when this one is closed early, which may be while other connections wait for replies: those outcomes are
        :meth:`~congressy_mailer.transports.base.MailSource.take_late`'s.
        """
        self._begin_delivery(mails, before_waiting)
        try:
            self._connections.open_first()
            while True:
                self._hand_out()
                if not any(lane.is_under_way for lane in self._connections.lanes) and not self._has_next():
                    break
                self._hear()
                self._sort_out()
                yield from self._outcomes.take()
        except BaseException as error:
            with suppress(Exception):
                before_waiting()
            self._wind_up(error)
            # In the middle of a mail nothing else takes back what has been announced of it.
            self._connections.close_all()
            if isinstance(error, GeneratorExit):
                for outcome in self._outcomes.take():
                    self._source.take_late(outcome)
                raise
            interrupted = self._outcomes.interrupted
            yield from self._outcomes.take()
            if not interrupted:
                raise
            return
        # A goodbye may take its time.
        before_waiting()
        self._connections.keep_or_close()

    def _begin_delivery(self, mails: Iterable[ComposedMail], before_waiting: Callable[[], None]) -> None:
        self._source = Source(mails, for_sparkpost=self._for_sparkpost)
        self._outcomes = Outcomes(self._source, self._server, logged_in=self._logged_in)
        self._before_waiting = before_waiting
        self._connections.begin_delivery(before_waiting)
        self._round_trips.events.clear()
        self._pulling = False

    @property
    def contents_on_their_way(self) -> int:
        """On how many connections a content was sent whose reply was not read."""
        return sum(lane.flying_since is not None for lane in self._connections.lanes)

    def close(self) -> None:
        """See :meth:`congressy_mailer.transports.base.Transport.close`."""
        self._connections.close()

    # Handing out

    def _hand_out(self) -> None:
        """Begin a round trip on each connection that something can be said on."""
        usable = self._usable_connections()
        self._source.width = len(usable)
        ready = [lane for lane in usable if lane.flow is None and not lane.busy_aside]
        begun = self._with_contents_started([lane for lane in ready if self._prepare(lane)])
        if self._outcomes.unwritten and self._round_trips.is_far and any(lane.sending is not None for lane in begun):
            # So that no more than one mail of each connection is known to this process alone.
            self._write_down()
        for lane in begun:
            self._round_trips.begin(lane)

    def _usable_connections(self) -> list[Lane]:
        source = self._source
        paying = self._connections.paying(
            round_trip=self._round_trips.seconds, composing=source.composing_seconds, mails=source.expected
        )
        several = source.expected > 1
        return [
            lane for place, lane in enumerate(self._connections.lanes)
            if place < paying or lane.is_under_way or (several and lane.session is not None)
        ]  # fmt: skip

    def _prepare(self, lane: Lane) -> bool:
        """Find out what is to be said next; returns whether there is something."""
        sending = lane.sending
        if sending is not None and not sending.envelope.composed.may_send():
            # Another worker has it now. Nothing of it was sent, and the server waits for it in vain.
            lane.close()
            sending = None
        if sending is None:
            if not (self._may_pull() and self._has_next() and self._connections.have_session(lane)):
                return False
        else:
            assert lane.session is not None
            if not (pipelining.spans_mails(*self._server) and lane.session.has_room):
                return True
            if not self._source.has_room:
                # It leaves alone, and makes room for the next.
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
        """Whether mails can be had without composing, or fit into memory while no content is on its way."""
        if self._source.ready > 0:
            return True
        return self._source.has_room and not any(lane.is_flying(_STRAGGLING) for lane in self._connections.lanes)

    def _has_next(self) -> bool:
        self._pulling = True
        has_next = self._source.has_next()
        self._pulling = False
        return has_next

    # Hearing

    def _hear(self, at_most: float = _STRAGGLING, *, winds_up: bool = False) -> None:
        """Wait until a round trip can go on, and let it.

        Args:
            at_most: seconds.
            winds_up: nothing follows any more.
        """

        def use_wait() -> None:
            self._write_down()
            if self._round_trips.is_far and not winds_up:
                self._source.use_wait()

        connections = self._connections
        self._round_trips.advance(connections.lanes, at_most, ear=connections.ear, on_long_wait=use_wait)
        connections.take_opened()

    def _write_down(self) -> None:
        self._outcomes.unwritten = False
        self._before_waiting()

    def _sort_out(self) -> None:
        """Find out what the replies mean that have come."""
        events = self._round_trips.events
        while events:
            event = events.popleft()
            if event.content_answered:
                self._outcomes.take_content_reply(event.lane)
            else:
                self._outcomes.end_round_trip(event.lane)
        if not self.contents_on_their_way:
            self._outcomes.release_told_later()

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
                self._sort_out()
                if not any(lane.wait and lane.is_flying(drain) for lane in self._connections.lanes):
                    break
                self._hear(LONG_WAIT, winds_up=True)
        self._outcomes.release_told_later()
        for lane in self._connections.lanes:
            if lane.flow is None or lane.session is None:
                continue
            sending = lane.sending if lane.flying_since is not None else None
            lane.session.interrupt(sending, lane.beginning, error)
            for attempt in (sending, lane.beginning if time_is_over else None):
                if attempt is not None:
                    self._outcomes.add_interrupted(attempt, time_is_over=time_is_over)
