"""Delivery over Django's SMTP backend with pipelining (RFC 2920): one round trip for a mail on an open connection.

The backend opens the connection and logs in; what is said on it then is :mod:`.session`'s.
"""

from __future__ import annotations

import smtplib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice

from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.smtp import EmailBackend

from ...exceptions import NoFreeConnection, TransportUnavailable
from ...replies import Outcome
from ...sparkpost import headers
from ...throttling import ConnectionSlot, connection_slot
from ..base import ComposedMail, no_op
from ..envelope import Envelope, envelope_for
from .errors import describe_open_error
from .session import Attempt, Session

# What a subclass may have changed about how a mail is sent; opening and logging in are as free as they are in Django.
_SENDING_METHODS = ("send_messages", "_send", "prep_address", "connection_class")


def sends_as_django_does(backend: BaseEmailBackend) -> bool:
    """Whether it is Django's SMTP backend, or one that differs from it in opening and closing at the most."""
    return isinstance(backend, EmailBackend) and all(
        getattr(type(backend), name, None) is getattr(EmailBackend, name, None) for name in _SENDING_METHODS
    )


class SmtpTransport:
    """A transport over an SMTP backend that :func:`sends_as_django_does`. The connection stays open for the next use.

    For one thread.
    """

    def __init__(self, backend: EmailBackend, using: str = "") -> None:
        self._backend = backend
        self._using = using
        self._slot: ConnectionSlot | None = None
        self._session: Session | None = None

    def deliver(self, mails: Iterable[ComposedMail], before_waiting: Callable[[], None] = no_op) -> Iterator[Outcome]:
        """See :meth:`congressy_mailer.transports.base.Transport.deliver`.

        A mail is pulled before the content of the one before it is sent, so that its envelope can go along. It is
        never pulled while a content is on its way: whatever composing does to this process, no mail has been sent
        whose outcome is not known. So what has no outcome was not sent either when the generator fails, or when this
        one is closed early.
        """
        try:
            yield from self._deliver(_Source(mails, headers.enabled_for(self._backend)), before_waiting)
        except BaseException:
            # In the middle of a mail nothing else takes back what has been announced of it.
            with suppress(Exception):
                before_waiting()
            self.close()
            raise

    def close(self) -> None:
        """See :meth:`congressy_mailer.transports.base.Transport.close`."""
        session, self._session = self._session, None
        if session is not None:
            session.prepare_close()
        with suppress(Exception):
            self._backend.close()
        slot, self._slot = self._slot, None
        if slot is not None:
            slot.release()

    def _deliver(self, source: _Source, before_waiting: Callable[[], None]) -> Iterator[Outcome]:
        session = self._ready_session(before_waiting)
        sending: Attempt | None = None
        while source.has_next() or sending is not None:
            if sending is None:
                session = self._ready_session(before_waiting)
            beginning = session.begin(source.pop()) if source.has_next() and session.has_room else None
            try:
                session.send(sending, beginning)
            except BaseException as error:
                # A signal handler's, such as Celery's soft time limit.
                session.interrupt(sending, error)
                if sending is not None:
                    yield sending.outcome()
                raise
            if sending is not None and not sending.retries_at_once:
                # Before the next envelope is heard of: however long that takes, this is to be written down now.
                yield sending.outcome()
            if beginning is not None:
                session.read_replies(beginning)
            retried = [attempt for attempt in (sending, beginning) if attempt is not None and attempt.retries_at_once]
            source.put_back([attempt.envelope for attempt in retried])
            sending = None
            if beginning is not None and beginning.awaited_content:
                sending = beginning
            elif beginning is not None and not beginning.retries_at_once:
                yield beginning.outcome()
        # A goodbye may take its time.
        before_waiting()
        if not session.has_room or self._slot is None or not self._slot.may_stay_open():
            self.close()

    def _ready_session(self, before_waiting: Callable[[], None]) -> Session:
        """A session that a mail can be begun on.

        Raises:
            TransportUnavailable: there is none to be had.
            NoFreeConnection: others have all that are allowed.
        """
        session, slot = self._session, self._slot
        if session is not None and session.usable and slot is not None and slot.renew(before_waiting):
            session.before_waiting = before_waiting
            return session
        before_waiting()
        self.close()
        self._slot = connection_slot(self._using)
        if not self._slot.acquired:
            raise NoFreeConnection(self._using, self._slot.retry_in)
        try:
            self._backend.open()
            connection = self._backend.connection
            if not isinstance(connection, smtplib.SMTP):
                # With fail_silently=True the backend keeps the reason to itself.
                raise OSError("the backend has opened no connection, and has not said why")
            self._session = Session(connection)
            self._session.before_waiting = before_waiting
        except Exception as error:
            self.close()
            raise TransportUnavailable(describe_open_error(error)) from error
        return self._session


class _Source:
    """The mails to come."""

    def __init__(self, mails: Iterable[ComposedMail], for_sparkpost: bool) -> None:
        self._mails = iter(mails)
        self._envelope_for = partial(envelope_for, for_sparkpost=for_sparkpost)
        self._pending: deque[Envelope] = deque()

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
