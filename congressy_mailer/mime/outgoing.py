"""A stored message with its rendered content → the mail that a transport hands over."""

from __future__ import annotations

import email.policy
from collections.abc import Mapping, Sequence
from email.encoders import encode_base64
from email.message import MIMEPart
from email.mime.base import MIMEBase
from email.utils import format_datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

import django
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.core.mail import EmailMultiAlternatives

from ..content.templates import Rendered
from ..exceptions import ContentError
from ..models import Message
from .attachments import ReadAttachment
from .headers import LOOKS_ENCODED, encoded_words, further_field
from .writer import write

# Django 6.0 moved its mail to the standard library's modern interface.
_MODERN = django.VERSION >= (6, 0)


class _Policy(email.policy.EmailPolicy):
    """Headers of plain ASCII folded at their spaces.

    The standard library encodes words that are longer than its line (RFC 2047), such as the URL of a List-Unsubscribe,
    where readers of most fields decode nothing.
    """

    def fold(self, name: str, value: Any) -> str:
        try:
            return further_field(name, str(value))
        except ValueError:
            return str(super().fold(name, value))

    def fold_binary(self, name: str, value: Any) -> bytes:
        try:
            return further_field(name, str(value)).encode("ascii")
        except ValueError:
            return bytes(super().fold_binary(name, value))


# The other values are those of email.policy.SMTP.
_POLICY = _Policy(linesep="\r\n")


class OutgoingMail(EmailMultiAlternatives):
    """A mail ready to be handed over: its envelope apart from its headers, its MIME form built once, on demand."""

    #: Envelope recipients, bare. Fewer than the headers name when some have the mail already.
    envelope: list[str]
    #: What goes over the wire but for doubled dots; ``None`` for a mail that Django has to write.
    wire: bytes | None = None
    #: What SparkPost is told of it, as :func:`congressy_mailer.sparkpost.headers.told` has it. Transports put it where
    #: it belongs.
    sparkpost: Mapping[str, Any] = {}
    #: What it says.
    rendered: Rendered | None = None
    #: The files that go with it, as they were read.
    files: Sequence[ReadAttachment] = ()
    #: The batch that it goes with; ``None``: it goes alone.
    batch: UUID | None = None
    _built: Any = None
    _attachments: list[Any]
    _unattached: Sequence[ReadAttachment] = ()

    def recipients(self) -> list[str]:
        return self.envelope

    def message(self, *args: Any, **options: Any) -> Any:
        if self._built is None:
            # Whoever asks, so that what compose() has tried is what a backend gets.
            self._built = super().message(policy=_POLICY) if _MODERN else super().message()
        return self._built

    def add_header(self, name: str, value: str) -> None:
        """Add a header to what a backend gets that has the mail written by Django.

        Args:
            name: of the header; one that is there already is replaced.
            value: plain ASCII.
        """
        self.extra_headers = {**self.extra_headers, name: value}
        self._built = None

    def attach_later(self, attachments: Sequence[ReadAttachment]) -> None:
        """Attach these when somebody wants to see them."""
        self._unattached = attachments

    @property
    def attachments(self) -> list[Any]:
        """As Django has them: MIME parts."""
        if self._unattached:
            # A new list, since a backend may have made a copy of the mail.
            self._attachments = [*self._attachments, *map(_attachment_part, self._unattached)]
            self._unattached = ()
        return self._attachments

    @attachments.setter
    def attachments(self, attachments: list[Any]) -> None:
        self._attachments = attachments


def compose(
    message: Message,
    rendered: Rendered,
    attachments: Sequence[ReadAttachment],
    further_headers: Mapping[str, str] = MappingProxyType({}),
) -> OutgoingMail:
    """Build the mail.

    Args:
        message: envelope and headers.
        rendered: subject, text and HTML; HTML may be empty.
        attachments: read and checked. Give the same object for the same file of several mails: it is encoded once.
        further_headers: beside those that the message has, ASCII.

    Raises:
        ContentError: no MIME message can be built of it.
    """
    try:
        return _compose(message, rendered, attachments, further_headers)
    except (MemoryError, SoftTimeLimitExceeded):
        raise
    except Exception as error:
        raise ContentError(f"The mail cannot be composed: {type(error).__name__}: {error}") from error


def _compose(
    message: Message,
    rendered: Rendered,
    attachments: Sequence[ReadAttachment],
    further_headers: Mapping[str, str],
) -> OutgoingMail:
    headers = {"Message-ID": message.message_id, "Date": format_datetime(message.queued_at or message.created_at)}
    given = {name.lower() for name in message.headers}
    # Names are the same in any case (RFC 5322 §1.2.2), and neither of the two may stand twice (§3.6).
    headers = (
        {name: value for name, value in headers.items() if name.lower() not in given}
        | message.headers
        | dict(further_headers)
    )
    mail = OutgoingMail(
        subject=_for_django(rendered.subject),
        body=rendered.text,
        from_email=message.from_email,
        to=message.to,
        cc=message.cc,
        reply_to=message.reply_to,
        headers=headers,
    )
    if rendered.html:
        mail.attach_alternative(rendered.html, "text/html")
    mail.attach_later(attachments)
    mail.envelope = message.envelope
    mail.wire = _wire(mail, rendered, attachments)
    mail.rendered, mail.files = rendered, attachments
    if mail.wire is None:
        # Built here, so that an error is this message's and not the transport's.
        mail.message()
    return mail


def _for_django(subject: str) -> str:
    """A subject that Django writes so that readers see it as it is, also where it looks encoded."""
    if LOOKS_ENCODED not in subject:
        return subject
    # Once for the reader, and once for the modern interface, which reads what it is given before it writes.
    for _ in range(2 if _MODERN else 1):
        subject = " ".join(encoded_words(subject.strip()))
    return subject


def _wire(mail: OutgoingMail, rendered: Rendered, attachments: Sequence[ReadAttachment]) -> bytes | None:
    if settings.DEFAULT_CHARSET != "utf-8":
        # Django would write it so.
        return None
    try:
        return write(
            rendered,
            from_email=mail.from_email,
            to=mail.to,
            cc=mail.cc,
            reply_to=mail.reply_to,
            headers=mail.extra_headers,
            attachments=attachments,
        )
    except ValueError:
        return None


def _attachment_part(attachment: ReadAttachment) -> Any:
    """The attachment as Base64, whatever its type: text would have its line ends changed on the way."""
    disposition = "inline" if attachment.content_id else "attachment"
    kind, parameters = attachment.written_type
    maintype, _, subtype = kind.partition("/")
    if _MODERN:
        part = MIMEPart(policy=email.policy.SMTP)
        part.set_content(
            attachment.content,
            maintype=maintype,
            subtype=subtype,
            cte="base64",
            disposition=disposition,
            filename=attachment.filename or None,
            cid=f"<{attachment.content_id}>" if attachment.content_id else None,
            params=dict(parameters),
        )
        return part
    legacy = MIMEBase(maintype, subtype, policy=None)
    for name, value in parameters.items():
        legacy.set_param(name, value)
    legacy.set_payload(attachment.content)
    encode_base64(legacy)
    filename = attachment.filename
    named = {"filename": filename if filename.isascii() else ("utf-8", "", filename)} if filename else {}
    legacy.add_header("Content-Disposition", disposition, **named)
    if attachment.content_id:
        legacy.add_header("Content-ID", f"<{attachment.content_id}>")
    return legacy
