"""A composed mail → what goes over the wire: ASCII addresses, and bytes that end in the final dot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..mime.addresses import MAILBOX, MAX_ADDRESS, bare_address
from ..mime.headers import extra_field
from ..mime.writer import as_bytes
from ..replies import Reply
from ..sparkpost import headers
from .base import ComposedMail

#: Content that goes to nobody: what RFC 2920 §3.1 has a client send when no recipient was accepted, but DATA was.
LONE_DOT = b".\r\n"


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
        """There is somebody to ask the server about."""
        return self.problem is None and bool(self.recipients)

    def write_out(self, *, eight_bit: bool) -> bytes:
        """The content with CRLF line breaks, doubled dots (RFC 5321 §4.5.2) and the final dot.

        Args:
            eight_bit: the server offers ``8BITMIME`` (RFC 6152).
        """
        return _dot_stuffed(self.first_field + as_bytes(self.composed.mail, eight_bit=eight_bit))


def envelope_for(composed: ComposedMail, *, for_sparkpost: bool = False) -> Envelope:
    """Put a mail's envelope into the form that commands need. What is wrong with it is in the result.

    Args:
        composed: the mail.
        for_sparkpost: it carries what SparkPost is told of it.
    """
    try:
        sender = _command_address(bare_address(composed.mail.from_email))
    except ValueError as error:
        return Envelope(composed, problem=Reply(553, f"5.1.7 Not sent: {error}"))
    recipients: dict[str, str] = {}
    refused: dict[str, Reply] = {}
    for recipient in composed.mail.envelope:
        try:
            recipients[recipient] = _command_address(recipient)
        except ValueError as error:
            refused[recipient] = Reply(553, f"5.1.3 Not sent: {error}")
    first_field = _sparkpost_field(composed) if for_sparkpost else b""
    return Envelope(composed, sender, recipients, refused, first_field=first_field)


def _sparkpost_field(composed: ComposedMail) -> bytes:
    keys = composed.mail.sparkpost
    return extra_field(headers.NAME, headers.header_value(keys)).encode("ascii") if keys else b""


def _command_address(address: str) -> str:
    """The address, if it can stand in a command (RFC 5321 §4.1.2). The call lets no other pass: a row may be older.

    Raises:
        ValueError: it cannot.
    """
    if not address.rpartition("@")[0].isascii():
        raise ValueError(f"the part before the @ of {address!r} needs SMTPUTF8 (RFC 6531), which is not used")
    if not MAILBOX.fullmatch(address) or len(address) > MAX_ADDRESS:
        # What else it holds could end the command, and begin another.
        raise ValueError(f"{address!r} is not an address that a command can hold")
    return address


def _dot_stuffed(content: bytes) -> bytes:
    content = content.replace(b"\r\n.", b"\r\n..")
    if content.startswith(b"."):
        content = b"." + content
    end = LONE_DOT if content.endswith(b"\r\n") else b"\r\n" + LONE_DOT
    return content + end
