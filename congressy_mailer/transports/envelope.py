"""A composed mail → what goes over the wire: ASCII addresses, and bytes that end in the final dot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..mime.addresses import LOCAL_MAILBOX, MAILBOX, bare_address
from ..mime.headers import further_field
from ..mime.syntax import MAX_ADDRESS
from ..replies import Reply
from ..sparkpost import headers
from .base import ComposedMail

#: Content that goes to nobody: what RFC 2920 §3.1 has a client send when no recipient was accepted, but DATA was.
LONE_DOT = b".\r\n"

# Bytes; a larger content is not copied to be sent.
_SENT_AS_ONE = 256 * 1024


@dataclass(frozen=True, slots=True)
class Envelope:
    """A mail with its envelope as commands carry it."""

    #: Where it came from, with its key.
    composed: ComposedMail
    #: For ``MAIL FROM``.
    sender: str = ""
    #: Envelope recipients as the outcome names them → as ``RCPT TO`` does.
    recipients: Mapping[str, str] = field(default_factory=dict)
    #: Envelope recipients that no server needs to be asked about, with the reason.
    refused: Mapping[str, Reply] = field(default_factory=dict)
    #: Why no server needs to be asked about the mail at all.
    problem: Reply | None = None
    #: A header field that goes before all others, with its line break.
    first_field: bytes = b""

    @property
    def sendable(self) -> bool:
        """Whether the envelope has a recipient."""
        return self.problem is None and bool(self.recipients)

    def without(self, refused: Mapping[str, Reply]) -> Envelope:
        """The same with these recipients refused already, so that the server is not asked about them again."""
        recipients = {recipient: address for recipient, address in self.recipients.items() if recipient not in refused}
        return replace(self, recipients=recipients, refused={**self.refused, **refused})

    def write_out(self) -> bytes:
        """The content with doubled dots (RFC 5321 §4.5.2) and the final dot."""
        return b"".join(self.content_parts())

    def content_parts(self) -> Sequence[bytes]:
        """The same in parts: of a large mail the bytes that are there already, where no dot is to be doubled."""
        mail = self.composed.mail
        wire = mail.wire_without(headers.NAME) if self.first_field else mail.wire
        parts = _dot_stuffed(self.first_field, wire)
        # As one, a small mail leaves in one piece.
        return parts if len(wire) > _SENT_AS_ONE else (b"".join(parts),)


def envelope_for(composed: ComposedMail, *, for_sparkpost: bool = False) -> Envelope:
    """Put a mail's envelope into the form that commands need. What is wrong with it is in the result.

    Args:
        composed: the mail.
        for_sparkpost: add the ``X-MSYS-API`` header.
    """
    local = composed.mail.has_local_mailboxes
    try:
        sender = command_address(bare_address(composed.mail.from_email), local)
    except ValueError as error:
        return Envelope(composed, problem=Reply(553, f"5.1.7 Not sent: {error}"))
    recipients: dict[str, str] = {}
    refused: dict[str, Reply] = {}
    for recipient in composed.mail.envelope:
        try:
            recipients[recipient] = command_address(recipient, local)
        except ValueError as error:
            refused[recipient] = Reply(553, f"5.1.3 Not sent: {error}")
    first_field = _sparkpost_field(composed) if for_sparkpost else b""
    return Envelope(composed, sender, recipients, refused, first_field=first_field)


def _sparkpost_field(composed: ComposedMail) -> bytes:
    keys = composed.mail.sparkpost
    return further_field(headers.NAME, headers.header_value(keys)).encode("ascii") if keys else b""


def command_address(address: str, local: bool) -> str:
    """The address, if it can stand in a command (RFC 5321 §4.1.2). The call lets no other pass: a row may be older.

    Raises:
        ValueError: it cannot.
    """
    if not address.rpartition("@")[0].isascii():
        raise ValueError(f"the part before the @ of {address!r} needs SMTPUTF8 (RFC 6531), which is not used")
    known = MAILBOX.fullmatch(address) or (local and LOCAL_MAILBOX.fullmatch(address))
    if not known or len(address) > MAX_ADDRESS:
        # What else it holds could end the command, and begin another.
        raise ValueError(f"{address!r} is not an address that a command can hold")
    return address


def _dot_stuffed(first_field: bytes, wire: bytes) -> Sequence[bytes]:
    # The same object where there is none; the first field is followed by a line break.
    content = wire.replace(b"\r\n.", b"\r\n..")
    dot = b"." if content.startswith(b".") else b""
    end = LONE_DOT if content.endswith(b"\r\n") else b"\r\n" + LONE_DOT
    return first_field, dot, content, end
