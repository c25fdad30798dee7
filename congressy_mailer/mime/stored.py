"""A mail that the host has written: sent byte for byte, and parsed only for a backend that looks into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from email.message import MIMEPart
from typing import Any

from django.core.mail import EmailMultiAlternatives

from .headers import further_field
from .outgoing import OutgoingMail, django_part
from .parts import HAS_MODERN_EMAIL, as_attachment, field_value, is_mime_base, read_parts, without_field
from .writer import MailContent

#: Position of the headers among the fields that a backend may change.
_HEADERS = 6
# Django writes them itself; a mail that is written anew keeps them.
_WRITTEN_BY_DJANGO = ("Message-ID", "Date")


class StoredMail(OutgoingMail):
    """A mail whose bytes were stored: never written anew, unless the backend that it is handed to changes it."""

    # Django sends to such.
    has_local_mailboxes = True

    def __init__(
        self,
        wire: bytes,
        *,
        envelope: list[str],
        subject: str,
        from_email: str,
        to: Sequence[str],
        cc: Sequence[str],
        reply_to: Sequence[str],
        headers: Mapping[str, str],
        attributes: Mapping[str, Any],
    ) -> None:
        """
        Args:
            wire: as it goes over the wire but for doubled dots.
            envelope: who gets it, bare.
            subject: as its author gave it.
            from_email: the envelope's sender, with or without a name.
            to: as its author gave them.
            cc: likewise.
            reply_to: likewise.
            headers: those that its author gave, and no others.
            attributes: what its author has set for other backends, by name.
        """
        # Not OutgoingMail's, which writes.
        EmailMultiAlternatives.__init__(
            self, subject, "", from_email, list(to), cc=list(cc), reply_to=list(reply_to), headers=dict(headers)
        )
        self.envelope, self.wire, self.content = envelope, wire, MailContent(subject, "", "")
        self._attributes = attributes
        self._written_fields = self._fields()
        self._is_read = False

    def for_backend(self) -> OutgoingMail:
        """A copy for one call of a mail backend, with the body, attachments and attributes that it may look for."""
        # Headers that were added so far are written, so that only the backend's changes count as changes.
        self._written_again()
        self._read()
        mail = super().for_backend()
        for name, value in self._attributes.items():
            setattr(mail, name, value)
        return mail

    def wire_without(self, name: str) -> bytes:
        """What goes over the wire, without the header fields of this name."""
        return without_field(self.wire, name)

    def _read(self) -> None:
        if self._is_read:
            return
        parts = read_parts(self.wire)
        self.body, self.content_subtype = parts.body, parts.subtype
        for content, mimetype in parts.alternatives:
            self.attach_alternative(content, mimetype)
        self._attachments = [_attached(part) for part in parts.files]
        self._is_read = True
        self._written_fields = self._fields()

    def _written_again(self) -> bytes:
        fields, written = self._fields(), self._written_fields
        if fields == written or not isinstance(fields, tuple) or not isinstance(written, tuple):
            return self.wire
        if fields[:_HEADERS] + fields[_HEADERS + 1 :] == written[:_HEADERS] + written[_HEADERS + 1 :]:
            # Only headers have changed: what is signed stays as it is.
            self.wire = _with_headers(self.wire, written[_HEADERS], fields[_HEADERS])
            self._written_fields = fields
            return self.wire
        return super()._written_again()

    def _headers_to_write(self) -> Mapping[str, str]:
        given = {name.lower() for name in self.extra_headers}
        kept = {name: field_value(self.wire, name) for name in _WRITTEN_BY_DJANGO if name.lower() not in given}
        return {**{name: value for name, value in kept.items() if value}, **self.extra_headers}


def _attached(part: MIMEPart[Any, Any]) -> Any:
    """As its author has attached it."""
    if (attachment := as_attachment(part)) is not None:
        return attachment
    return django_part(part.as_bytes(), is_base=not HAS_MODERN_EMAIL or is_mime_base(part))


def _with_headers(wire: bytes, before: Mapping[str, str], after: Mapping[str, str]) -> bytes:
    added = b""
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) == after.get(name):
            continue
        wire = without_field(wire, name)
        if name in after:
            added += further_field(name, str(after[name])).encode("ascii")
    return added + wire
