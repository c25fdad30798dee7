"""A received mail as its page shows it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from pathlib import Path

from congressy_mailer.testing.local_sparkpost.mailbox import ReceivedMail, read_mailbox

_UNSAFE_IN_FILE_NAMES = re.compile(r"[^\w.@+-]+", re.ASCII)


@dataclass(frozen=True)
class File:
    """An attachment."""

    #: Position among the attachments, from 1.
    number: int
    #: Made from the sender's, of ASCII letters, digits and ``._@+-`` only: safe in every file system and header.
    name: str
    media_type: str
    content: bytes

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.content)


@dataclass(frozen=True)
class Envelope:
    """A mail, decoded for people."""

    mail: ReceivedMail
    subject: str
    sender: str
    received_at: datetime
    headers: list[tuple[str, str]]
    #: The HTML part as it came; it is shown in a sandbox only. Empty where there is none.
    html: str
    text: str
    files: list[File]


def read_letters(directory: Path) -> list[Envelope]:
    """All received mails, newest first."""
    return [read_letter(mail) for mail in reversed(read_mailbox(directory))]


def read_letter(mail: ReceivedMail) -> Envelope:
    """Decode a mail."""
    message = mail.message
    return Envelope(
        mail=mail,
        subject=str(message["Subject"] or ""),
        sender=str(message["From"] or ""),
        received_at=datetime.fromisoformat(mail.received_at),
        headers=[(name, str(value)) for name, value in message.items()],
        html=_body(message, "html"),
        text=_body(message, "plain"),
        files=[_file(number, part) for number, part in enumerate(message.iter_attachments(), 1)],
    )


def _body(message: EmailMessage, subtype: str) -> str:
    part = message.get_body((subtype,))
    return str(part.get_content()) if part is not None else ""


def _file(number: int, part: EmailMessage) -> File:
    name = _UNSAFE_IN_FILE_NAMES.sub("_", part.get_filename() or "").strip("._")
    content = part.get_payload(decode=True)
    return File(
        number=number,
        name=name[-100:] or f"{number}.bin",
        media_type=part.get_content_type(),
        content=content if isinstance(content, bytes) else b"",
    )
