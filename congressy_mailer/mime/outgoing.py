"""A stored message with its rendered content → the mail that a transport hands over."""

from __future__ import annotations

import copy
import email.policy
from collections.abc import Mapping, Sequence
from email.encoders import encode_base64
from email.message import MIMEPart
from email.mime.base import MIMEBase
from typing import Any
from uuid import UUID

import django
from django.core.mail import EmailMultiAlternatives

from .addresses import ADDRESS_HEADERS, listed_addresses
from .attachments import LoadedAttachment
from .headers import address_value, extra_field, folded_value
from .writer import MailContent

# Django 6.0 moved its mail to the standard library's modern interface.
HAS_MODERN_EMAIL = django.VERSION >= (6, 0)


# Those whose values are written before Django gets them.
_WRITTEN = ADDRESS_HEADERS | {"from", "to", "cc", "reply-to"}


class _Policy(email.policy.EmailPolicy):
    """Headers of plain ASCII folded at their spaces, those with addresses among them.

    The standard library encodes words that are longer than its line (RFC 2047), such as the URL of a List-Unsubscribe,
    where readers of most fields decode nothing. It reads addresses before it writes them, each version of Python in
    another way, and some that are valid not at all.
    """

    def header_store_parse(self, name: str, value: Any) -> tuple[str, Any]:
        return (name, value) if name.lower() in _WRITTEN else super().header_store_parse(name, value)

    def header_fetch_parse(self, name: str, value: str) -> Any:
        try:
            return super().header_fetch_parse(name, value)
        except Exception:
            # The parser trips over some addresses, such as one with nothing in the quotation marks before its @.
            return value

    def fold(self, name: str, value: Any) -> str:
        try:
            return _field(name, str(value))
        except ValueError:
            return str(super().fold(name, value))

    def fold_binary(self, name: str, value: Any) -> bytes:
        try:
            return _field(name, str(value)).encode("ascii")
        except ValueError:
            return bytes(super().fold_binary(name, value))


def _field(name: str, value: str) -> str:
    return folded_value(name, value) if name.lower() in _WRITTEN else extra_field(name, value)


# The other values are those of email.policy.SMTP.
_POLICY = _Policy(linesep="\r\n")


class OutgoingMail(EmailMultiAlternatives):
    """A mail ready to be handed over: its envelope apart from its headers, its MIME form built once, on demand."""

    #: Envelope recipients, bare. Fewer than the headers name when some have the mail already.
    envelope: list[str]
    #: What goes over the wire but for doubled dots; ``None`` for a mail that Django has to write.
    wire: bytes | None = None
    #: Keys for SparkPost, built by :func:`congressy_mailer.sparkpost.headers.sparkpost_keys`; each transport puts them
    #: where they belong.
    sparkpost: Mapping[str, Any] = {}
    #: What it says.
    content: MailContent | None = None
    #: The files that go with it, as they were read.
    files: Sequence[LoadedAttachment] = ()
    #: The batch that it goes with; ``None``: it goes alone.
    batch: UUID | None = None
    _mime_message: Any = None
    _attachments: list[Any]
    _pending_attachments: Sequence[LoadedAttachment] = ()

    def recipients(self) -> list[str]:
        return self.envelope

    def message(self, *args: Any, **options: Any) -> Any:
        if self._mime_message is None:
            # Whoever asks, so that what compose() has tried is what a backend gets.
            mail = self._with_written_addresses()
            build = EmailMultiAlternatives.message
            self._mime_message = build(mail, policy=_POLICY) if HAS_MODERN_EMAIL else build(mail)
        return self._mime_message

    def _with_written_addresses(self) -> OutgoingMail:
        """The same mail, its addresses as headers have them: so Django need not read them.

        Raises:
            ValueError: one cannot be written.
        """
        mail = copy.copy(self)
        mail.from_email = address_value([self.from_email])
        mail.to, mail.cc, mail.reply_to = (
            [address_value(addresses)] if addresses else [] for addresses in (self.to, self.cc, self.reply_to)
        )
        mail.extra_headers = {
            name: address_value(listed_addresses(value, name)) if name.lower() in ADDRESS_HEADERS else value
            for name, value in self.extra_headers.items()
        }
        return mail

    def add_header(self, name: str, value: str) -> None:
        """Add a header to what a backend gets that has the mail written by Django.

        Args:
            name: of the header; one that is there already is replaced.
            value: plain ASCII.
        """
        self.extra_headers = {**self.extra_headers, name: value}
        self._mime_message = None

    def attach_lazily(self, attachments: Sequence[LoadedAttachment]) -> None:
        """Attach these when somebody wants to see them."""
        self._pending_attachments = attachments

    @property
    def attachments(self) -> list[Any]:
        """As Django has them: MIME parts."""
        if self._pending_attachments:
            # A new list, since a backend may have made a copy of the mail.
            self._attachments = [*self._attachments, *map(_attachment_part, self._pending_attachments)]
            self._pending_attachments = ()
        return self._attachments

    @attachments.setter
    def attachments(self, attachments: list[Any]) -> None:
        self._attachments = attachments


def _attachment_part(attachment: LoadedAttachment) -> Any:
    """The attachment as Base64, whatever its type: text would have its line ends changed on the way."""
    disposition = "inline" if attachment.content_id else "attachment"
    kind, parameters = attachment.content_type
    maintype, _, subtype = kind.partition("/")
    if HAS_MODERN_EMAIL:
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
