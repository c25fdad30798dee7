"""The exceptions of this package. Each is a :class:`MailerError`, and a built-in or Django exception where one fits."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from django.core.mail.message import BadHeaderError
from django.db import IntegrityError, InterfaceError, InternalError, OperationalError
from django.template import TemplateDoesNotExist

if TYPE_CHECKING:
    from .replies import Reply


# Django's errors of a database as a whole: away, restarting, read-only. Which of them it is depends on the driver. A
# single statement may raise them too: outbox.is_away() asks the database itself.
DATABASE_AWAY = (OperationalError, InterfaceError, InternalError)


class MailerError(Exception):
    """Base class of all exceptions of ``congressy_mailer``."""


# Raised at the call, before anything is stored.


class NoRecipient(MailerError, ValueError):
    """``to``, ``cc`` and ``bcc`` are all empty: the mail has no recipient."""


class InvalidAddress(MailerError, ValueError):
    """A sender, recipient or reply-to is not a single valid address (RFC 5321, RFC 5322)."""


class InvalidHeader(MailerError, BadHeaderError):
    """A subject or header is not a single line of valid text, or a header of that name may not be set."""


class TemplateNotFound(MailerError, TemplateDoesNotExist):
    """No template of that name exists, in HTML or in text, or its subject is missing."""


class TemplateUnreadable(MailerError, ValueError):
    """A template's file exists, but is not UTF-8."""


class ContextNotSerializable(MailerError, TypeError):
    """A value of the context cannot be stored; the error names the path to it."""


class AttachmentUnreadable(MailerError, OSError):
    """An attachment cannot be read, or has an unsupported form."""


class AttachmentTooLarge(MailerError, ValueError):
    """The attachments of one message together are larger than ``MAX_ATTACHMENT_BYTES``."""


class AttachmentNotStored(MailerError, OSError):
    """The storage of attachments failed or was unreachable. Nothing was stored, and the call may be repeated.

    The ``__cause__`` is the storage's own error.
    """


class InvalidOption(MailerError, ValueError):
    """An argument, or a combination of arguments, is invalid."""


class IdempotencyConflict(MailerError, IntegrityError):
    """Another transaction has just used the same ``idempotency_key``, and this one cannot see its message.

    This happens under the isolation level ``REPEATABLE READ``. Nothing was stored. The same call
    in a new transaction returns that message.
    """


class NotMigrated(MailerError, OperationalError):
    """The database lacks a table or column of this version: run ``python manage.py migrate``."""


# Raised when the state of a message does not allow a change.


class InvalidTransition(MailerError, ValueError):
    """The state of the message does not allow this change."""


# Raised in the worker, while a message is composed.


class ContentError(MailerError):
    """The message cannot be composed, now or later: it fails with this error as its reason."""


class ContentNotReady(MailerError):
    """This worker lacks something that a newer deployment may have, such as a template: the message is tried again."""


class Withhold(MailerError):
    """Raised by one of ``INTERCEPTORS``: the mail is set aside (``held``), with this text as its reason.

    A person releases it by ``retry()``; the interceptor that withheld it is not called again for it.
    """


# Raised where SparkPost's HTTP API is used.


class SparkPostError(MailerError):
    """SparkPost's HTTP API refused a request, or was unreachable."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        codes: tuple[str, ...] = (),
        retry_after: float | None = None,
        in_doubt: bool = False,
    ) -> None:
        super().__init__(message)
        #: Status of the HTTP answer; ``None`` if there was none.
        self.status = status
        #: SparkPost's error codes, such as ``"1902"``.
        self.codes = codes
        #: Seconds of its ``Retry-After``, if any.
        self.retry_after = retry_after
        #: Whether it may have carried out the request, since no answer came.
        self.in_doubt = in_doubt


# Raised by a transport.


class TransportUnavailable(MailerError):
    """The server is unavailable, through no fault of a message: nothing was sent, and everything stays queued."""

    #: How long to wait before it is tried again; ``None`` if that is not decided yet.
    retry_in: timedelta | None = None

    #: The server's reply to a mail, if it was the cause; it may quote the mail's content.
    reply: Reply | None = None


class NoFreeConnection(MailerError):
    """All of the ``MAX_CONNECTIONS`` are in use: nothing was sent, and the mail is put back without an attempt."""

    def __init__(self, using: str, retry_in: timedelta) -> None:
        super().__init__(f"All connections to the mail backend {using or 'default'!r} are in use.")
        #: How long to wait before the next attempt.
        self.retry_in = retry_in


def login_missing_error(reply: Reply) -> TransportUnavailable:
    """The error for a server that refuses every recipient, where no login is configured."""
    error = TransportUnavailable(
        f"The mail server refuses every recipient, and no login is configured: {reply}. Check EMAIL_HOST_USER and "
        "EMAIL_HOST_PASSWORD."
    )
    error.reply = reply
    return error


def account_refused_error(reply: Reply) -> TransportUnavailable:
    """The error for what a server said to a mail, and means for all of the account's."""
    return unavailable_error("The mail server refuses this account:", reply)


def unavailable_error(what: str, reply: Reply) -> TransportUnavailable:
    """The error for what a server said, or what happened instead, while a mail was handed over.

    Args:
        what: the beginning of the message; the reply is appended.
        reply: may repeat what the mail says.
    """
    error = TransportUnavailable(f"{what} {reply}")
    error.reply = reply
    return error
