"""Delivery through whatever mail backend the host has configured, one mail at a time."""

from __future__ import annotations

import smtplib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import django
from django.core.mail import get_connection
from django.core.mail.backends.base import BaseEmailBackend
from django.utils.module_loading import import_string

from ..conf import mailer_settings
from ..exceptions import TransportUnavailable
from ..retry import Reply, Stage, Verdict, classify
from .base import Composed, Outcome

# RFC 5321 §4.5.3.2 and SparkPost's "SMTP and REST API Injection Best Practices" ask for at least a minute.
# Django's default is none: a silent server would hold a worker for ever.
_TIMEOUT = 60


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
        raise TransportUnavailable(f"The mail backend {using or 'default'!r} cannot be made: {error}") from error
    if getattr(backend, "timeout", _TIMEOUT) is None:
        backend.timeout = _TIMEOUT  # type: ignore[attr-defined]
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
        self._session: _ObservedSession | None = None

    def deliver(self, mails: Iterable[Composed]) -> Iterator[Outcome]:
        """See :meth:`congressy_mailer.transports.base.Transport.deliver`."""
        for composed in mails:
            yield self._deliver_one(composed)

    def close(self) -> None:
        """Close the backend's connection; an error at that point no longer matters to any mail."""
        self._session = None
        with suppress(Exception):
            self._backend.close()

    def _deliver_one(self, composed: Composed) -> Outcome:
        self._open()
        session = self._session
        if session is not None:
            session.begin()
        try:
            count = self._backend.send_messages([composed.mail])
        except smtplib.SMTPRecipientsRefused as error:
            self._end_session()
            return self._outcome(composed, _recipient_replies(error.recipients))
        except smtplib.SMTPResponseException as error:
            self._end_session()
            stage = Stage.MAIL if isinstance(error, smtplib.SMTPSenderRefused) else Stage.CONTENT
            return self._outcome(composed, {}, _reply(error.smtp_code, error.smtp_error), stage)
        except Exception as error:
            # A lost connection, a timeout, or whatever a backend of somebody else's raises. Nobody has said
            # that this mail is wrong, so it is tried again, and one mail never stops the others.
            self._end_session()
            reply = Reply(None, f"{type(error).__name__}: {error}")
            # Of a session that cannot be observed nobody knows how far it came.
            in_doubt = session is None or session.in_doubt
            return self._outcome(composed, {}, reply, Stage.CONTENT, in_doubt=in_doubt)
        if count == 0:
            return self._outcome(composed, {}, Reply(None, "The mail backend reports that it sent nothing."))
        if session is None:
            return self._outcome(composed, {}, Reply(250, "accepted by the mail backend"))
        return self._outcome(composed, _recipient_replies(session.refused), session.reply)

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
            raise TransportUnavailable(_describe_open_error(error)) from error

    def _end_session(self) -> None:
        """After an error the exchange may be anywhere in the middle: the next mail gets a new connection."""
        self.close()

    def _outcome(
        self,
        composed: Composed,
        refused: Mapping[str, Reply],
        reply: Reply | None = None,
        stage: Stage = Stage.CONTENT,
        *,
        in_doubt: bool = False,
    ) -> Outcome:
        """Sort the recipients by what was said of each, or of the mail as a whole."""
        accepted: list[str] = []
        deferred: dict[str, Reply] = {}
        rejected: dict[str, Reply] = {}
        for recipient in composed.mail.envelope:
            own = refused.get(recipient)
            said = own or reply or Reply(None, "No reply.")
            verdict = classify(said.code, said.text, Stage.RCPT if own else stage)
            if verdict is Verdict.UNAVAILABLE:
                raise TransportUnavailable(f"The mail server refuses this account: {said}")
            if verdict is Verdict.SENDER_REFUSED:
                return Outcome(composed.key, reply=said, sender_refused=True)
            if verdict is Verdict.ACCEPTED:
                accepted.append(recipient)
            elif verdict is Verdict.DEFERRED:
                deferred[recipient] = said
            else:
                rejected[recipient] = said
        last = reply or next(iter(refused.values()), Reply(None, ""))
        return Outcome(
            composed.key,
            accepted=tuple(accepted),
            deferred=deferred,
            rejected=rejected,
            reply=last,
            in_doubt=in_doubt and bool(deferred),
        )


class _ObservedSession:
    """Listens to an ``smtplib`` connection for what Django's backend drops: refused recipients, the last reply."""

    def __init__(self, connection: smtplib.SMTP) -> None:
        self.connection = connection
        self._sendmail = connection.sendmail
        self._data = connection.data
        self._getreply = connection.getreply
        connection.sendmail = self.sendmail  # type: ignore[method-assign]
        connection.data = self.data  # type: ignore[method-assign, assignment]
        connection.getreply = self.getreply  # type: ignore[method-assign]
        self.begin()

    def begin(self) -> None:
        """Forget the mail before."""
        #: Recipients refused while others were accepted, as ``smtplib`` gives them.
        self.refused: dict[str, tuple[int, bytes]] = {}
        #: The reply to the content.
        self.reply = Reply(250, "")
        #: The last byte of the content was sent, and the reply to it has not been read.
        self.in_doubt = False
        # Replies asked for since DATA: the first is to the command, the second to the content.
        self._asked_since_data: int | None = None

    def sendmail(self, *args: Any, **options: Any) -> dict[str, tuple[int, bytes]]:
        self.refused = self._sendmail(*args, **options)
        return self.refused

    def data(self, message: Any) -> tuple[int, bytes]:
        self._asked_since_data = 0
        code, text = self._data(message)
        self.reply = _reply(code, text)
        return code, text

    def getreply(self) -> tuple[int, bytes]:
        if self._asked_since_data is not None:
            self._asked_since_data += 1
            self.in_doubt = self._asked_since_data == 2
        try:
            code, text = self._getreply()
        except smtplib.SMTPResponseException as error:
            # smtplib makes up a permanent refusal where a line is too long to be a reply.
            raise smtplib.SMTPServerDisconnected(f"Not a reply: {error.smtp_error!r:.200}") from error
        if code < 0:
            raise smtplib.SMTPServerDisconnected(f"Not a reply: {text!r:.200}")
        self.in_doubt = False
        return code, text


def _reply(code: int, text: bytes | str) -> Reply:
    decoded = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    return Reply(code, " ".join(decoded.split()))


def _recipient_replies(refused: Mapping[str, tuple[int, bytes]]) -> dict[str, Reply]:
    return {recipient: _reply(code, text) for recipient, (code, text) in refused.items()}


def _describe_open_error(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return (
            f"The mail server refuses the login: {_reply(error.smtp_code, error.smtp_error)}. "
            "Check EMAIL_HOST_USER and EMAIL_HOST_PASSWORD (for SparkPost: SMTP_Injection and an API key "
            'with "Send via SMTP").'
        )
    return f"The mail server cannot be reached: {type(error).__name__}: {error}"
