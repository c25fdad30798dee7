"""Every error of this package: each a :class:`MailerError` and the built-in or Django error a caller would expect."""

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
    """Base of every error raised by ``congressy_mailer``."""


# Raised at the call, before anything is stored.


class NoRecipient(MailerError, ValueError):
    """``to``, ``cc`` and ``bcc`` are all empty: the mail has no recipient."""


class InvalidAddress(MailerError, ValueError):
    """A sender, recipient or reply-to is not one address as RFC 5321 and RFC 5322 know it."""


class InvalidHeader(MailerError, BadHeaderError):
    """A subject or header is not one line of text that a mail can carry, or its name is not one a caller may set."""


class TemplateNotFound(MailerError, TemplateDoesNotExist):
    """No template of that name exists, in HTML or in text, or its subject is missing."""


class TemplateUnreadable(MailerError, ValueError):
    """A template's file exists, but is not in the encoding that templates are read in (UTF-8)."""


class ContextNotSerializable(MailerError, TypeError):
    """A value of the context cannot be stored; the message names the path to it."""


class AttachmentUnreadable(MailerError, OSError):
    """An attachment could not be read, or is not in one of the accepted shapes."""


class AttachmentTooLarge(MailerError, ValueError):
    """The attachments of one message are together larger than ``MAX_ATTACHMENT_BYTES``."""


class AttachmentNotStored(MailerError, OSError):
    """The storage of attachments did not take one, or could not be asked: nothing was stored, the call may be repeated.

    Its cause is the storage's own error.
    """


class InvalidOption(MailerError, ValueError):
    """An argument, or a combination of arguments, has no meaning."""


class IdempotencyConflict(MailerError, IntegrityError):
    """Another transaction has just used the same ``idempotency_key``, and this one does not see its message yet.

    This happens under the isolation level ``REPEATABLE READ``. Nothing was stored. The same call
    in a new transaction returns that message.
    """


class NotMigrated(MailerError, OperationalError):
    """The database lacks a table or column of this version: ``python manage.py migrate`` makes it."""


# Raised when the state of a message does not allow what is asked.


class InvalidTransition(MailerError, ValueError):
    """The message is in a state that the asked change cannot start from."""


# Raised in the worker, while a message is composed.


class ContentError(MailerError):
    """This message can never be composed: it fails with this as its reason."""


class ContentNotReady(MailerError):
    """This worker lacks something the message needs, which a newer deployment may have: try again for a while."""


class Withhold(MailerError):
    """Raised by one of ``INTERCEPTORS``: this mail is set aside (``held``), with the words of this as its reason.

    A person releases it by ``retry()``; after that, the interceptors that withheld it are not asked again.
    """


# Raised where SparkPost's HTTP API is used.


class SparkPostError(MailerError):
    """SparkPost's HTTP API said no, or could not be asked."""

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
        #: Status of the HTTP answer; ``None`` where there was none.
        self.status = status
        #: SparkPost's own codes of what is wrong, such as ``"1902"``.
        self.codes = codes
        #: Seconds after which it wants to be asked again, where it says so.
        self.retry_after = retry_after
        #: It may have done what it was asked to: no answer came.
        self.in_doubt = in_doubt


# Raised by a transport.


class TransportUnavailable(MailerError):
    """The server cannot be used now, through no fault of any message: nothing was sent, everything stays queued."""

    #: How long until it should be tried again; ``None`` while that is not decided.
    retry_in: timedelta | None = None

    #: The server's reply to a mail, if that showed it; the reply may quote the mail's content.
    reply: Reply | None = None


class NoFreeConnection(MailerError):
    """All of the ``MAX_CONNECTIONS`` are in use: nothing was sent, and the mail is put back without an attempt."""

    def __init__(self, using: str, retry_in: timedelta) -> None:
        super().__init__(f"All connections to the mail backend {using or 'default'!r} are in use.")
        #: When it makes sense to ask again.
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
