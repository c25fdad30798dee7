"""Delivery through whatever mail backend the host has configured, one mail at a time."""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, BinaryIO

import django
from django.core.mail import get_connection
from django.core.mail.backends.base import BaseEmailBackend
from django.utils.module_loading import import_string

from ..conf import mailer_settings
from ..exceptions import TransportUnavailable
from ..replies import Outcome, Reply, Stage, error_text
from ..sparkpost import headers
from .base import Answer, ComposedMail, no_op, outcome_of
from .smtp.errors import describe_open_error, error_reply, reply_of
from .smtp.replies import LONGEST_REPLY, InvalidReply, ReplyParser

# RFC 5321 §4.5.3.2 and SparkPost's "SMTP and REST API Injection Best Practices" ask for at least a minute.
# Django's default is none: a silent server would hold a worker for ever.
#: Seconds that a server may be silent where the host has set no timeout.
DEFAULT_TIMEOUT = 60


def open_backend(using: str) -> BaseEmailBackend:
    """The host's mail backend.

    Args:
        using: alias in ``MAILERS`` (Django 6.1 and later) or ``CONGRESSY_MAILER["TRANSPORTS"]``; empty: the
            default one.

    Raises:
        TransportUnavailable: there is no such alias, or its backend cannot be made.
    """
    try:
        backend = _make_backend(using)
    except Exception as error:
        raise TransportUnavailable(
            f"The mail backend {using or 'default'!r} cannot be made: {error_text(error)}"
        ) from error
    if getattr(backend, "timeout", DEFAULT_TIMEOUT) is None:
        backend.timeout = DEFAULT_TIMEOUT  # type: ignore[attr-defined]
    return backend


def _make_backend(using: str) -> BaseEmailBackend:
    transports = mailer_settings().TRANSPORTS
    if django.VERSION < (6, 1):
        if not using:
            return get_connection()
        return get_connection(transports[using]["BACKEND"], **transports[using].get("OPTIONS", {}))
    from django.core.mail import mailers

    backend: BaseEmailBackend
    if using in transports and using not in mailers:
        # As MAILERS makes its own: get_connection() is deprecated there, and refuses once MAILERS is set.
        backend = import_string(transports[using]["BACKEND"])(alias=using, **transports[using].get("OPTIONS", {}))
    else:
        backend = mailers[using or "default"]
    return backend


class DjangoTransport:
    """A transport over any Django mail backend."""

    def __init__(self, backend: BaseEmailBackend) -> None:
        self._backend = backend
        self._for_sparkpost = headers.enabled_for(backend)
        self._session: _ObservedSession | None = None
        # What broke off the last exchange from outside, such as the end of the process.
        self._interrupted: BaseException | None = None

    def deliver(self, mails: Iterable[ComposedMail], before_waiting: Callable[[], None] = no_op) -> Iterator[Outcome]:
        """See :meth:`congressy_mailer.transports.base.Transport.deliver`."""
        source = iter(mails)
        while True:
            # How long a backend waits, and when, is not known.
            before_waiting()
            composed = next(source, None)
            if composed is None:
                return
            yield self._deliver_one(composed)
            if self._interrupted is not None:
                raise self._interrupted

    def close(self) -> None:
        """Close the backend's connection; an error at that point no longer matters to any mail."""
        self._session = None
        with suppress(Exception):
            self._backend.close()

    def _deliver_one(self, composed: ComposedMail) -> Outcome:
        self._open()
        if self._for_sparkpost and composed.mail.sparkpost:
            composed.mail.add_header(headers.NAME, headers.header_value(composed.mail.sparkpost))
        session = self._session
        if session is not None:
            session.begin()
        error: Exception | None = None
        count = 0
        try:
            count = self._backend.send_messages([composed.mail])
        except Exception as raised:
            # A refusal, a lost connection, a timeout, or whatever a backend of somebody else's raises: one mail never
            # stops the others.
            error = raised
        except BaseException as raised:
            # What is known of the mail is said first.
            self._interrupted = raised
            error = InterruptedError(type(raised).__name__)
        sent = error is None and count != 0
        answer = session.answer(sent, error) if session is not None else _answer_of_backend(sent, error)
        if not sent:
            # The exchange may be anywhere in the middle: the next mail gets a new connection.
            if session is not None and (answer.reply.code is None or answer.reply.code < 400):
                # It was no refusal that ended it: nobody would answer to QUIT, or it would be taken for content.
                session.connection.close()
            self.close()
        return outcome_of(composed, answer)

    def _open(self) -> None:
        try:
            self._backend.open()
            connection = getattr(self._backend, "connection", None)
            observed = self._session.connection if self._session is not None else None
            if isinstance(connection, smtplib.SMTP) and observed is not connection:
                # Without TLS and login smtplib would greet with the first mail, and a fault would look like its own.
                connection.ehlo_or_helo_if_needed()
                self._session = _ObservedSession(connection)
        except Exception as error:
            self.close()
            raise TransportUnavailable(describe_open_error(error)) from error


_SENT = Reply(250, "accepted by the mail backend")
_NOT_SENT = Reply(None, "The mail backend reports that it sent nothing.")


def _answer_of_backend(sent: bool, error: Exception | None) -> Answer:
    """What a backend tells whose session cannot be observed."""
    if sent:
        return Answer(_SENT, Stage.CONTENT)
    if error is None:
        return Answer(_NOT_SENT, Stage.CONTENT)
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        replies = {recipient: reply_of(code, text) for recipient, (code, text) in error.recipients.items()}
        return Answer(error_reply(error), Stage.RCPT, replies)
    if isinstance(error, smtplib.SMTPResponseException):
        for kind, stage in _STAGES.items():
            if isinstance(error, kind):
                return Answer(reply_of(error.smtp_code, error.smtp_error), stage)
    if isinstance(error, smtplib.SMTPDataError) and 400 <= error.smtp_code < 600:
        return Answer(reply_of(error.smtp_code, error.smtp_error), Stage.CONTENT)
    # Nobody knows how far it came. smtplib makes up replies too: 500 for a line that is too long, -1 for garbage.
    return Answer(error_reply(error), Stage.CONTENT, in_doubt=True)


#: What a backend that connects by itself may fail at before the content.
_STAGES: dict[type[smtplib.SMTPResponseException], Stage] = {
    smtplib.SMTPConnectError: Stage.CONNECT,
    smtplib.SMTPHeloError: Stage.CONNECT,
    smtplib.SMTPAuthenticationError: Stage.AUTH,
    smtplib.SMTPSenderRefused: Stage.MAIL,
}


class _ObservedSession:
    """Listens to an ``smtplib`` connection for what Django's backend drops, and for what ``smtplib`` mistakes."""

    def __init__(self, connection: smtplib.SMTP) -> None:
        self.connection = connection
        self._mail = connection.mail
        self._rcpt = connection.rcpt
        self._data = connection.data
        connection.mail = self.mail  # type: ignore[method-assign]
        connection.rcpt = self.rcpt  # type: ignore[method-assign]
        connection.data = self.data  # type: ignore[method-assign, assignment]
        connection.getreply = self.getreply  # type: ignore[method-assign]
        self.begin()

    def begin(self) -> None:
        """Forget the mail before."""
        self._recipients: dict[str, Reply] = {}
        # The last reply about this mail; RSET and its like are not about it.
        self._last_reply: tuple[Stage, Reply] | None = None
        # The last byte of the content is on its way.
        self._content_sent = False
        # Replies read since DATA: the first is to the command, the second to the content.
        self._replies_since_data: int | None = None

    def answer(self, sent: bool, error: Exception | None) -> Answer:
        """What was said of this mail.

        Args:
            sent: the backend reports that it is sent.
            error: what the backend raised.
        """
        stage, reply = self._last_reply or (Stage.MAIL, _NOT_SENT)
        if self._content_sent and stage is Stage.CONTENT and reply.code is not None and reply.code // 100 != 3:
            return Answer(reply, stage, self._recipients)
        if sent:
            # Over another connection than this one.
            return Answer(_SENT, Stage.CONTENT, self._recipients)
        if error is None:
            # A backend that fails silently: a refusal tells why, any other reply does not.
            reply = reply if reply.code is not None and reply.code >= 400 else _NOT_SENT
        elif not isinstance(error, smtplib.SMTPResponseException | smtplib.SMTPRecipientsRefused):
            # It is not a reply that ended it.
            reply = error_reply(error)
        return Answer(reply, stage, self._recipients, in_doubt=self._content_sent)

    def mail(self, *args: Any, **options: Any) -> tuple[int, bytes]:
        code, text = self._mail(*args, **options)
        self._last_reply = Stage.MAIL, reply_of(code, text)
        return code, text

    def rcpt(self, recip: str, *args: Any, **options: Any) -> tuple[int, bytes]:
        code, text = self._rcpt(recip, *args, **options)
        self._recipients[recip] = reply_of(code, text)
        self._last_reply = Stage.RCPT, self._recipients[recip]
        return code, text

    def data(self, message: Any) -> tuple[int, bytes]:
        self._replies_since_data = 0
        try:
            code, text = self._data(message)
        except smtplib.SMTPDataError as error:
            self._last_reply = Stage.DATA, reply_of(error.smtp_code, error.smtp_error)
            raise
        finally:
            self._replies_since_data = None
        self._last_reply = Stage.CONTENT, reply_of(code, text)
        return code, text

    def getreply(self) -> tuple[int, bytes]:
        """As ``smtplib`` has it, but only a whole reply is one.

        ``smtplib`` takes ``250`` without an end of line for a reply, the last of several lines whose codes differ,
        and ``2505`` for 250; where a line is too long it makes up a permanent refusal.
        """
        if self._replies_since_data is not None:
            self._replies_since_data += 1
            self._content_sent = self._replies_since_data == 2
        connection = self.connection
        try:
            if connection.file is None:
                connection.file = connection.sock.makefile("rb")  # type: ignore[union-attr]
            return _read_reply(connection.file)
        except OSError as error:
            connection.close()
            if isinstance(error, smtplib.SMTPServerDisconnected):
                raise
            raise smtplib.SMTPServerDisconnected(f"Connection unexpectedly closed: {error}") from error


def _read_reply(file: BinaryIO) -> tuple[int, bytes]:
    """Code and text of one reply, as ``smtplib`` wants them.

    Raises:
        smtplib.SMTPServerDisconnected: what comes is not a whole reply. Whatever it was, the exchange is over.
    """
    parser = ReplyParser()
    try:
        while (lines := parser.next_lines()) is None:
            line = file.readline(LONGEST_REPLY)
            if not line:
                raise smtplib.SMTPServerDisconnected("Connection unexpectedly closed")
            parser.feed(line)
    except InvalidReply as error:
        raise smtplib.SMTPServerDisconnected(str(error)) from error
    return int(lines[0][:3]), b"\n".join(line[4:].strip() for line in lines)
