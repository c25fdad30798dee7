"""Delivery through any mail backend that the host has configured, one mail at a time."""

from __future__ import annotations

import inspect
import smtplib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from asgiref.sync import async_to_sync
from celery.exceptions import SoftTimeLimitExceeded
from django.core.mail.backends.base import BaseEmailBackend

from ..exceptions import TransportUnavailable, account_refused_error, unavailable_error
from ..mime.outgoing import OutgoingMail
from ..replies import Outcome, Reply, Stage, Verdict
from ..sparkpost import headers
from .backend_reports import BackendReport, provider_ids, read_report
from .base import Answer, ComposedMail, no_op, outcome_of
from .foreign_errors import failure_of
from .guard import handing_over
from .host_backends import fails_silently
from .http_answers import Failure
from .observed_session import NOT_SENT, SENT, ObservedSession
from .smtp.errors import describe_open_error


class DjangoTransport:
    """A transport over any Django mail backend."""

    def __init__(self, backend: BaseEmailBackend) -> None:
        self._backend = backend
        self._for_sparkpost = headers.enabled_for(backend)
        self._session: ObservedSession | None = None
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
                # The exchange did not end by a refusal: QUIT would get no answer, or be taken for content.
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
        if count is None and fails_silently(self._backend):
            # It may have failed, or only not say that it has not.
            return _outcome_for_all(composed, Failure(Verdict.DEFERRED, _NOTHING_SAID, in_doubt=True))
        if count is None or count:
            return Outcome(composed.key, tuple(composed.mail.envelope), reply=accepted)
        return _outcome_for_all(composed, Failure(Verdict.DEFERRED, NOT_SENT))

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
                self._session = ObservedSession(connection)
            return
        except smtplib.SMTPException as error:
            self.close()
            unavailable = TransportUnavailable(describe_open_error(error))
        except Exception as error:
            self.close()
            unavailable = _unavailable(failure_of(error))
        # Not from the error: it may repeat the password, and its frames, of clients of others too, hold it.
        raise unavailable


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
    return Reply(SENT.code, f"{SENT.text}: {ids}") if ids else SENT


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
