"""What the server has accepted: every mail with its envelope, in memory and, if wanted, in a folder."""

from __future__ import annotations

import email.policy
import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from .heads import read_head

#: One line of JSON for each mail: the envelope, which the ``.eml`` file does not hold.
_JOURNAL = "envelopes.jsonl"


@dataclass(frozen=True, kw_only=True)
class ReceivedMail:
    """One accepted mail."""

    #: 1 for the first mail of the mailbox, and so on.
    number: int
    #: Envelope sender (``MAIL FROM``).
    sender: str
    #: Envelope recipients that were accepted (``RCPT TO``), in order.
    recipients: tuple[str, ...]
    #: Its ``Message-ID`` header; empty if it has none.
    message_id: str
    #: The server's own id of it, as in its reply.
    queue_id: str
    #: When it was accepted, UTC, ISO 8601.
    received_at: str
    #: Number of the connection it came over, from 1.
    connection: int
    #: The bytes as they were sent, without the dots that RFC 5321 §4.5.2 adds.
    content: bytes = field(repr=False)

    @property
    def message(self) -> EmailMessage:
        """The content, parsed."""
        return email.message_from_bytes(self.content, policy=email.policy.default)

    @property
    def file_name(self) -> str:
        """Name of its file in the mailbox's folder."""
        return f"{self.number:06}.eml"


class Mailbox:
    """All accepted mail. Safe to use from several threads."""

    def __init__(self, directory: Path | None = None) -> None:
        """Open an empty mailbox.

        Args:
            directory: where each mail is stored as ``000001.eml`` and so on, and its envelope in a line of
                ``envelopes.jsonl``; nowhere if ``None``.
        """
        self._directory = directory
        self._mails: list[ReceivedMail] = []
        self._last_number = 0
        self._changed = threading.Condition()
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)

    def __len__(self) -> int:
        with self._changed:
            return len(self._mails)

    def __iter__(self) -> Iterator[ReceivedMail]:
        with self._changed:
            return iter(self._mails.copy())

    def add(
        self, *, sender: str, recipients: tuple[str, ...], content: bytes, connection: int, queue_id: str
    ) -> ReceivedMail:
        """Keep a mail."""
        with self._changed:
            self._last_number += 1
            mail = ReceivedMail(
                number=self._last_number,
                sender=sender,
                recipients=recipients,
                message_id=_message_id(content),
                queue_id=queue_id,
                received_at=datetime.now(UTC).isoformat(),
                connection=connection,
                content=content,
            )
            if self._directory is not None:
                _store(self._directory, mail)
            self._mails.append(mail)
            self._changed.notify_all()
        return mail

    def copies(self) -> Counter[tuple[str, str]]:
        """How often each recipient got each mail: (``Message-ID``, recipient) → number of copies."""
        return count_copies(self)

    def to(self, recipient: str) -> list[ReceivedMail]:
        """The mails that this envelope recipient got."""
        return [mail for mail in self if recipient in mail.recipients]

    def wait_for(self, count: int, seconds: float = 10) -> list[ReceivedMail]:
        """Wait until there are at least so many mails.

        Raises:
            TimeoutError: there are not, after that time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._mails) >= count, seconds):
                raise TimeoutError(f"{len(self._mails)} mails of {count} came within {seconds} s.")
            return self._mails.copy()

    def clear(self) -> None:
        """Forget all mail; files stay, and the numbers go on."""
        with self._changed:
            self._mails.clear()


def read_mailbox(directory: Path) -> list[ReceivedMail]:
    """The mails that a server has stored in a folder, perhaps in another process, oldest first."""
    journal = directory / _JOURNAL
    if not journal.exists():
        return []
    mails = []
    # A line that has no end yet is still being written.
    for line in journal.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            stored: dict[str, Any] = json.loads(line)
            content = (directory / f"{stored['number']:06}.eml").read_bytes()
            mails.append(ReceivedMail(**{**stored, "recipients": tuple(stored["recipients"])}, content=content))
    return mails


def count_copies(mails: Mailbox | list[ReceivedMail]) -> Counter[tuple[str, str]]:
    """How often each recipient got each mail: (``Message-ID``, recipient) → number of copies."""
    return Counter((mail.message_id, recipient) for mail in mails for recipient in mail.recipients)


def _store(directory: Path, mail: ReceivedMail) -> None:
    (directory / mail.file_name).write_bytes(mail.content)
    envelope = asdict(mail)
    del envelope["content"]
    with (directory / _JOURNAL).open("a") as journal:
        journal.write(json.dumps(envelope) + "\n")


def _message_id(content: bytes) -> str:
    header = read_head(content)["Message-ID"]
    # Folded where it is long.
    return "".join(str(header or "").split())
