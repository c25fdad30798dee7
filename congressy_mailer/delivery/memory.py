"""How much of the mails on their way a process holds: large ones wait until others have left.

A mail with 14 MB of attachments is 19 MB on the wire, and its files are kept beside it for backends that look into it.
Several connections, each with one mail on its way and the next one announced, would hold ten of these.
"""

from __future__ import annotations

import os
import threading
from uuid import UUID

from ..mime.outgoing import OutgoingMail
from ..models import Message

#: Bytes of mails that are composed and have no outcome, of all tasks of a process: three of the largest that the
#: default settings allow. More would not be faster: one of these keeps a line of 100 Mbit/s busy for over a second.
BUDGET = 100_000_000

# Base64 in lines takes 78 bytes for 57.
_WRITTEN_FOR_A_BYTE = 78 / 57

_lock = threading.Lock()
_held_by_process = 0


def _add(size: int) -> None:
    global _held_by_process
    with _lock:
        _held_by_process += size


def _forget() -> None:
    global _held_by_process
    _held_by_process = 0


# What the parent holds is not this process's to release.
os.register_at_fork(after_in_child=_forget)


def expected_size(message: Message) -> int:
    """About how many bytes a message will hold that is not composed; of what its batch says to all, what is written."""
    own = sum(attachment.size for attachment in message.attachments.all())
    if message.mime is not None:
        return own + len(message.mime)
    of_batch = sum(attachment.size for attachment in message.batch.attachments.all()) if message.batch else 0
    return own + int((own + of_batch) * _WRITTEN_FOR_A_BYTE)


class HeldMails:
    """The mails that one delivery holds."""

    def __init__(self) -> None:
        self._sizes: dict[UUID, int] = {}

    def has_room(self, size: int) -> bool:
        """Whether one more of this size may be composed. Where this delivery holds none it may, so that each goes on.

        Args:
            size: in bytes.
        """
        return not self._sizes or _held_by_process + size <= BUDGET

    def hold(self, key: UUID, mail: OutgoingMail) -> None:
        """Count a mail that has been composed."""
        self.release(key)
        size = len(mail.wire) + sum(len(one.content) for one in mail.files if not one.shared)
        self._sizes[key] = size
        _add(size)

    def release(self, key: UUID) -> None:
        """Count it no more: it has its outcome, or was not handed over."""
        _add(-self._sizes.pop(key, 0))

    def release_all(self) -> None:
        """Count none of them any more."""
        for key in list[UUID](self._sizes):
            self.release(key)
