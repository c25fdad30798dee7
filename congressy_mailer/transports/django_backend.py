"""Delivery through any mail backend that the host has configured, one mail at a time."""

from __future__ import annotations

import inspect
import smtplib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, BinaryIO, cast

import django
from asgiref.sync import async_to_sync
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.core.mail import get_connection
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.locmem import EmailBackend as LocmemBackend
from django.core.mail.backends.smtp import EmailBackend as SmtpBackend
from django.utils.module_loading import import_string

from ..conf import import_problem, mailer_settings
from ..credentials import remember_those_of
from ..exceptions import TransportUnavailable, account_refused_error, unavailable_error
from ..mime.outgoing import OutgoingMail
from ..replies import Outcome, Reply, Stage, Verdict, error_text
from ..sparkpost import headers
from .aliases import collects_for_tests, delivery_alias, mailers
from .backend_reports import BackendReport, provider_ids, read_report
from .base import Answer, ComposedMail, no_op, outcome_of
from .foreign_errors import failure_of
from .guard import handing_over
from .http_answers import Failure
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
    except TransportUnavailable:
        raise
    except Exception as error:
        path = _configured_path(using)
        problem = error_text(error) if path is None else import_problem(path, error_text(error))
    else:
        problem = ""
    if problem:
        # Without the cause: its frames hold the password.
        raise TransportUnavailable(f"The mail backend {using or 'default'!r} cannot be made: {problem}")
    remember_those_of(backend)
    if getattr(backend, "timeout", DEFAULT_TIMEOUT) is None:
        backend.timeout = DEFAULT_TIMEOUT  # type: ignore[attr-defined]
    if _fails_silently(backend):
        # Silence would leave the worker to guess what became of a mail.
        backend.fail_silently = False
    return backend


def _fails_silently(backend: BaseEmailBackend) -> bool:
    # Not the attribute of Django's base class, which is deprecated.
    return bool(vars(backend).get("fail_silently"))


def _make_backend(using: str) -> BaseEmailBackend:
    alias = delivery_alias(using)
    transports = mailer_settings().TRANSPORTS
    # As MAILERS makes its own: get_connection() is deprecated there, and refuses once MAILERS is set.
    named: dict[str, Any] = {"alias": alias} if django.VERSION >= (6, 1) else {}
    if alias is None:
        return LocmemBackend(**named) if collects_for_tests(None) else SmtpBackend(**named)
    if alias in transports and alias not in (mailers() or ()):
        if collects_for_tests(alias):
            return LocmemBackend(**named)
        path, options = transports[alias]["BACKEND"], transports[alias].get("OPTIONS", {})
        if not named:
            return get_connection(path, **options)
        return cast(BaseEmailBackend, import_string(path)(**named, **options))
    if not named:
        if alias:
            raise KeyError(alias)
        return get_connection()
    from django.core.mail import mailers as configured

    backend: BaseEmailBackend = configured[alias or "default"]
    return backend


def _configured_path(using: str) -> object:
    """What stands in ``BACKEND``; ``None`` where nothing does."""
    if mailers() is None and not using:
        return settings.EMAIL_BACKEND
    found = (mailers() or {}).get(using or "default") or mailer_settings().TRANSPORTS.get(using)
    return found.get("BACKEND") if isinstance(found, Mapping) else None


class DjangoTransport:
    """A transport over any Django mail backend."""

    def __init__(self, backend: BaseEmailBackend) -> None:
        self._backend = backend
        self._for_sparkpost = headers.enabled_for(backend)
        self._session: _ObservedSession | None = None
        # What broke off the last exchange from outside, such as the end of the process.
        self._interrupted: BaseException | None = None
        # The last mail got no answer that could be read.
        self._lost: TransportUnavailable | None = None

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
            if self._lost is not None:
                raise self._lost

    def close(self) -> None:
        """Close the backend's connection; an error at that point no longer matters to any mail."""
        self._session = None
        with suppress(Exception):
            _awaited(self._backend.close())  # type: ignore[func-returns-value]

    def _deliver_one(self, composed: ComposedMail) -> Outcome:
        self._open()
        if self._for_sparkpost and composed.mail.sparkpost:
            composed.mail.add_header(headers.NAME, headers.header_value(composed.mail.sparkpost))
        session = self._session
        if session is not None:
            session.begin()
        mail = composed.mail.for_backend()
        error: Exception | None = None
        count: Any = 0
        try:
            with handing_over(mail):
                count = _awaited(self._backend.send_messages([mail]))
        except SoftTimeLimitExceeded as raised:
            # What is known of the mail is said first.
            self._interrupted = raised
        except TransportUnavailable as raised:
            # The backend has given the mail back to the queue that it came from.
            self.close()
            raise TransportUnavailable(str(raised)) from None
        except Exception as raised:
            # A refusal, a lost connection, a timeout, or an error that only this backend knows: one mail never stops
            # the others.
            error = raised
        except BaseException as raised:
            self._interrupted = raised
        if self._interrupted is not None:
            error = InterruptedError(type(self._interrupted).__name__)
        sent = error is None and (count is None or bool(count))
        if session is None:
            if not sent:
                self.close()
            return self._outcome_without_session(composed, mail, count, error)
        if session.unused and error is not None and not isinstance(error, smtplib.SMTPException):
            # What the backend needs beside its connection, such as a token for the login.
            failure = failure_of(error)
            if failure.verdict is Verdict.UNAVAILABLE:
                self.close()
                raise _unavailable(failure)
        answer = session.answer(sent, error)
        if not sent:
            # The exchange may be anywhere in the middle: the next mail gets a new connection.
            if answer.reply.code is None or answer.reply.code < 400:
                # It was no refusal that ended it: nobody would answer to QUIT, or it would be taken for content.
                session.connection.close()
            self.close()
        return outcome_of(composed, answer)

    def _outcome_without_session(
        self, composed: ComposedMail, mail: OutgoingMail, count: Any, error: Exception | None
    ) -> Outcome:
        """What a backend tells whose session cannot be observed.

        Raises:
            TransportUnavailable: it sent nothing, through no fault of the mail.
        """
        ids = provider_ids(mail, composed.mail.extra_headers)
        accepted = _accepted_reply(ids)
        report = read_report(mail, error, composed.mail.envelope)
        if report is not None and (error is None or report.accepted or report.rejected or report.failed):
            return _reported_outcome(composed, report, accepted)
        if ids and report is None:
            # An error that came up after the provider's answer was read changes nothing about it.
            return Outcome(composed.key, tuple(composed.mail.envelope), reply=accepted)
        if self._interrupted is not None:
            reply = Reply(None, f"Interrupted: {type(self._interrupted).__name__}")
            return _outcome_for_all(composed, Failure(Verdict.DEFERRED, reply, in_doubt=True))
        if error is not None:
            return self._failed_outcome(composed, failure_of(error))
        if count is None and _fails_silently(self._backend):
            # It may have failed, or only not say that it has not.
            return _outcome_for_all(composed, Failure(Verdict.DEFERRED, _NOTHING_SAID, in_doubt=True))
        if count is None or count:
            return Outcome(composed.key, tuple(composed.mail.envelope), reply=accepted)
        return _outcome_for_all(composed, Failure(Verdict.DEFERRED, _NOT_SENT))

    def _failed_outcome(self, composed: ComposedMail, failure: Failure) -> Outcome:
        if failure.verdict is Verdict.UNAVAILABLE:
            raise _unavailable(failure)
        if failure.lost:
            # Those after this one need not find it out again, and be in doubt too. The words of the error may repeat
            # what this mail says, and are kept with it alone.
            kind = failure.reply.text.partition(":")[0]
            self._lost = TransportUnavailable(f"The mail server gave no answer to the last mail: {kind}")
            self._lost.retry_in = failure.retry_in
        if failure.recipients:
            return outcome_of(composed, Answer(failure.reply, Stage.RCPT, failure.recipients))
        return _outcome_for_all(composed, failure)

    def _open(self) -> None:
        try:
            _awaited(self._backend.open())
            connection = getattr(self._backend, "connection", None)
            observed = self._session.connection if self._session is not None else None
            if isinstance(connection, smtplib.SMTP) and observed is not connection:
                # Without TLS and login smtplib would greet with the first mail, and a fault would look like its own.
                connection.ehlo_or_helo_if_needed()
                self._session = _ObservedSession(connection)
            return
        except smtplib.SMTPException as error:
            self.close()
            unavailable = TransportUnavailable(describe_open_error(error))
        except Exception as error:
            self.close()
            unavailable = _unavailable(failure_of(error))
        # Not from the error: it may repeat the password, and its frames, of clients of others too, hold it.
        raise unavailable


_SENT = Reply(250, "accepted by the mail backend")
_NOT_SENT = Reply(None, "The mail backend reports that it sent nothing.")
_NOTHING_SAID = Reply(None, "The mail backend fails silently, and did not say whether it sent anything.")
_NO_RESULT = Reply(None, "The mail backend did not say what became of this recipient.")


def _awaited(value: Any) -> Any:
    """What a backend has returned; where its methods are coroutines, what they return."""
    if not inspect.isawaitable(value):
        return value

    async def result() -> Any:
        return await value

    return async_to_sync(result)()


# Of HTTP, and of SMTP (RFC 4954 §6).
_ACCOUNT_REFUSED = frozenset({401, 402, 403, 530, 534, 535, 538})


def _unavailable(failure: Failure) -> TransportUnavailable:
    if failure.reply.code in _ACCOUNT_REFUSED:
        error = account_refused_error(failure.reply)
    else:
        cannot = "used" if failure.reply.code is not None else "reached"
        error = unavailable_error(f"The mail server cannot be {cannot}:", failure.reply)
    error.retry_in = failure.retry_in
    return error


def _accepted_reply(ids: str) -> Reply:
    return Reply(_SENT.code, f"{_SENT.text}: {ids}") if ids else _SENT


def _outcome_for_all(composed: ComposedMail, failure: Failure) -> Outcome:
    """The same for each recipient."""
    if failure.verdict is Verdict.SENDER_REFUSED:
        return Outcome(composed.key, reply=failure.reply, sender_refused=True)
    replies = dict.fromkeys(composed.mail.envelope, failure.reply)
    rejected = failure.verdict is Verdict.REJECTED
    return Outcome(
        composed.key,
        deferred={} if rejected else replies,
        rejected=replies if rejected else {},
        reply=failure.reply,
        in_doubt=failure.in_doubt,
    )


def _reported_outcome(composed: ComposedMail, report: BackendReport, accepted: Reply) -> Outcome:
    deferred = {**report.failed, **dict.fromkeys(report.unknown, _NO_RESULT)}
    refused = [*report.rejected.values(), *deferred.values()]
    return Outcome(
        composed.key,
        report.accepted,
        deferred=deferred,
        rejected=report.rejected,
        reply=accepted if report.accepted else next(iter(refused), accepted),
        in_doubt=bool(report.unknown),
    )


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
        self._used = False

    @property
    def unused(self) -> bool:
        """The backend has said nothing of this mail on it."""
        return not self._used

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
        self._used = True
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
