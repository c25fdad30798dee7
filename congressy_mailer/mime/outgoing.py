"""A stored message with its rendered content → the mail that a transport hands over."""

from __future__ import annotations

import copy
import email
import email.policy
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from email.message import EmailMessage as StandardMessage
from email.message import MIMEPart
from email.mime.base import MIMEBase
from types import MappingProxyType
from typing import Any
from uuid import UUID

from django.core.mail import EmailMessage, EmailMultiAlternatives

from .addresses import comparable_address
from .as_written import AS_WRITTEN
from .attachments import LoadedAttachment, read_attachments
from .django_mail import django_mail_bytes
from .headers import further_field, text_field
from .parts import HAS_MODERN_EMAIL, without_field
from .writer import Alternative, MailContent, attachment_bytes, write

_HTML = "text/html"
_NOTHING: Mapping[str, str] = MappingProxyType({})


class _WrittenMessage(StandardMessage):
    """A mail that is written already, as backends want it: Django's own take its bytes, others look into it."""

    def __init__(self, policy: Any = None) -> None:
        super().__init__(policy or AS_WRITTEN)

    def as_bytes(self, unixfrom: bool = False, policy: Any = None, *, linesep: str | None = None) -> bytes:
        """Its bytes as they were written.

        Args:
            unixfrom: put a line in front as mailboxes have it.
            policy: only its line break is used.
            linesep: the same, as Django 5.2 gives it.
        """
        return super().as_bytes(unixfrom, self._policy_with(policy, linesep))

    def as_string(
        self, unixfrom: bool = False, maxheaderlen: int | None = None, policy: Any = None, *, linesep: str | None = None
    ) -> str:
        """The same as text."""
        return super().as_string(unixfrom, maxheaderlen, self._policy_with(policy, linesep))

    def _policy_with(self, policy: Any, linesep: str | None) -> Any:
        linesep = linesep or (policy.linesep if policy is not None else self.policy.linesep)
        return self.policy.clone(linesep=linesep)


class OutgoingMail(EmailMultiAlternatives):
    """A mail ready to be handed over: its envelope apart from its headers, and its bytes written once."""

    #: Envelope recipients, bare. Fewer than the headers name when some have the mail already.
    envelope: list[str]
    #: What goes over the wire but for doubled dots.
    wire: bytes
    #: Its content.
    content: MailContent
    #: Keys for SparkPost, built by :func:`congressy_mailer.sparkpost.headers.sparkpost_keys`; each transport puts them
    #: where they belong.
    sparkpost: Mapping[str, Any] = {}
    #: The files that go with it, as they were read.
    files: Sequence[LoadedAttachment] = ()
    #: Whether its addresses may lack a domain, for mailboxes of the mail server's own host.
    has_local_mailboxes: bool = False
    #: How often it was queued anew by the backend that it was handed to.
    hops: int = 0
    #: The batch that it goes with; ``None``: it goes alone.
    batch: UUID | None = None
    _attachments: list[Any]
    _pending_attachments: Sequence[LoadedAttachment] = ()
    _written_fields: object = None

    def __init__(
        self,
        content: MailContent,
        *,
        envelope: list[str],
        from_email: str,
        to: Sequence[str],
        cc: Sequence[str],
        reply_to: Sequence[str],
        headers: Mapping[str, str],
        files: Sequence[LoadedAttachment],
    ) -> None:
        """
        Args:
            content: its texts and parts.
            envelope: who gets it, bare.
            from_email: in normal form, as all addresses.
            to: for the header.
            cc: for the header.
            reply_to: for the header.
            headers: further ones.
            files: what goes with it.

        Raises:
            ValueError: it cannot be written.
        """
        super().__init__(
            content.subject,
            content.text,
            from_email,
            list(to),
            cc=list(cc),
            reply_to=list(reply_to),
            headers=dict(headers),
        )
        if content.html:
            self.attach_alternative(content.html, _HTML)
        for alternative in content.alternatives:
            self.attach_alternative(*alternative)
        self.envelope, self.content, self.files = envelope, content, files
        self._pending_attachments = files
        self.wire = write(
            content, from_email=from_email, to=to, cc=cc, reply_to=reply_to, headers=headers, attachments=files
        )
        self._written_fields = self._fields()

    # As a backend was given them: to, cc and bcc.
    _given: tuple[list[str], list[str], list[str]] | None = None
    # What To and Cc name, where the envelope is smaller.
    _named: tuple[list[str], list[str]] | None = None

    def recipients(self) -> list[str]:
        """The envelope; what ``to``, ``cc`` and ``bcc`` say by now where a backend has changed them."""
        return super().recipients() if self._is_readdressed() else self.envelope

    def _is_readdressed(self) -> bool:
        return self._given is not None and self._given != (self.to, self.cc, self.bcc)

    def for_backend(self) -> OutgoingMail:
        """A copy for one call of a mail backend, which may read and change it in any way.

        Some backends ask for :meth:`recipients` and :meth:`message`, others read ``to``, ``cc`` and ``bcc``. To those
        the mail must be for its envelope too: not for recipients who have it already, and for those in Bcc.
        """
        mail = copy.copy(self)
        mail.extra_headers, mail.reply_to = dict(self.extra_headers), list(self.reply_to)
        mail.alternatives, mail._attachments = list(self.alternatives), list(self._attachments)
        envelope = {comparable_address(recipient): recipient for recipient in self.envelope}
        named = {comparable_address(address) for address in (*self.to, *self.cc)}
        mail.to, mail.cc = (
            [address for address in addresses if comparable_address(address) in envelope]
            for addresses in (self.to, self.cc)
        )
        mail.bcc = [recipient for key, recipient in envelope.items() if key not in named]
        if not mail.to and (mail.cc or len(mail.bcc) == 1):
            # Many providers refuse a mail without recipients. This header discloses no address.
            source = mail.cc or mail.bcc
            mail.to = [source.pop(0)]
        if (mail.to, mail.cc) != (self.to, self.cc):
            mail._named = self.to, self.cc
        mail._given = list(mail.to), list(mail.cc), list(mail.bcc)
        if self._written_fields == self._fields():
            # What is written names all of them.
            mail._written_fields = mail._fields()
        return mail

    def message(self, *args: Any, **options: Any) -> Any:
        """What backends of Django's and of others ask for. A mail that one of them has changed is written again.

        Raises:
            ValueError: what a backend has put in cannot be written.
        """
        policy = options.get("policy")
        read_with = AS_WRITTEN if policy is None else AS_WRITTEN.clone(linesep=policy.linesep)
        # Line breaks as Python's messages have them: CRLF would be left in what its readers get of a text.
        content = self._written_again().replace(b"\r\n", b"\n")
        return email.message_from_bytes(content, _WrittenMessage, policy=read_with)

    def _fields(self) -> object:
        """Everything that a backend may have changed."""
        return (
            self.subject, self.body, self.from_email, list(self.to), list(self.cc), list(self.reply_to),
            dict(self.extra_headers), list(self.alternatives), [*self._attachments, *self._pending_attachments],
        )  # fmt: skip

    def _written_again(self) -> bytes:
        fields = self._fields()
        if fields != self._written_fields:
            to, cc = self._named if self._named and not self._is_readdressed() else (self.to, self.cc)
            alternatives = [Alternative(str(text), str(mimetype)) for text, mimetype in self.alternatives]
            text, html = (str(self.body), "") if self.content_subtype != "html" else ("", str(self.body))
            self.wire = write(
                MailContent(
                    str(self.subject),
                    text,
                    html + "".join(one.content for one in alternatives if one.mimetype == _HTML),
                    tuple(one for one in alternatives if one.mimetype != _HTML),
                ),
                from_email=self.from_email,
                to=to,
                cc=cc,
                reply_to=self.reply_to,
                headers=self._headers_to_write(),
                attachments=[*self._pending_attachments, *read_attachments(self._attachments, sys.maxsize)],
            )
            self._written_fields = fields
        return self.wire

    def _headers_to_write(self) -> Mapping[str, str]:
        """All headers of a mail that is written again, by name."""
        return self.extra_headers

    def with_head(
        self, *, subject: str | None = None, headers: Mapping[str, str] = _NOTHING, without: Iterable[str] = ()
    ) -> OutgoingMail:
        """A copy with other headers; the body stays byte for byte.

        Args:
            subject: another one; ``None``: the same.
            headers: that it has as well, in the place of those of the same names.
            without: names of headers that it does not have.

        Raises:
            ValueError: one cannot be written.
        """
        mail = copy.copy(self)
        fields = [further_field(name, value) for name, value in headers.items()]
        replaced = [*without, *headers]
        if subject is not None:
            fields.append(text_field("Subject", subject))
            replaced.append("Subject")
            mail.subject, mail.content = subject, replace(self.content, subject=subject)
        for name in replaced:
            mail.wire = without_field(mail.wire, name)
        mail.wire = "".join(fields).encode("ascii") + mail.wire
        gone = {name.lower() for name in replaced}
        kept = {name: value for name, value in self.extra_headers.items() if name.lower() not in gone}
        mail.extra_headers = {**kept, **headers}
        mail._written_fields = mail._fields()
        return mail

    def wire_without(self, name: str) -> bytes:
        """What goes over the wire, without the header fields of this name."""
        # The caller cannot have given it: such names are refused at the call.
        return self.wire

    def add_header(self, name: str, value: str) -> None:
        """Add a header to what a backend gets.

        Args:
            name: of the header; one that is there already is replaced.
            value: plain ASCII.
        """
        self.extra_headers = {**self.extra_headers, name: value}

    @property
    def attachments(self) -> list[Any]:
        """As Django has them: MIME parts, made on first access."""
        if self._pending_attachments:
            unchanged = self._fields() == self._written_fields
            # A new list, since a backend may have made a copy of the mail.
            pending = map(attachment_bytes, self._pending_attachments)
            self._attachments = [*map(django_part, pending), *self._attachments]
            self._pending_attachments = ()
            if unchanged:
                self._written_fields = self._fields()
        return self._attachments

    @attachments.setter
    def attachments(self, attachments: list[Any]) -> None:
        self._attachments = attachments


def django_part(content: bytes, *, is_base: bool = not HAS_MODERN_EMAIL) -> Any:
    """A part as the installed Django knows parts, from its bytes: so nothing of it is read before.

    Args:
        content: the part.
        is_base: a ``MIMEBase``, which is what Django before 6.0 knows; else a ``MIMEPart``.
    """
    if not is_base:
        return email.message_from_bytes(content, MIMEPart, policy=AS_WRITTEN)
    parsed = email.message_from_bytes(content, policy=email.policy.compat32)
    part = MIMEBase(parsed.get_content_maintype(), parsed.get_content_subtype())
    for name, _ in part.items():
        del part[name]
    for name, value in parsed.raw_items():
        part[name] = value
    part.set_payload(parsed.get_payload())
    return part


def as_bytes(mail: EmailMessage) -> bytes:
    """A mail with CRLF line breaks, as it arrives: dots are not doubled.

    Args:
        mail: one of ours, or any of Django's.

    Raises:
        InvalidHeader: Django would write header fields or parts that the mail was not given.
    """
    return mail.wire if isinstance(mail, OutgoingMail) else django_mail_bytes(mail)
