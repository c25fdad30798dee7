"""The journal of a worker process: what mail servers have accepted, from before it goes on until that is recorded.

A process that is killed loses its memory, and what it has written into a file stays with the system: whoever recovers
its claims on the same host reads there what need not be sent again.

A file begins with :data:`_MAGIC` and a generation, a number that grows each time the file is emptied. Entries follow,
each of them a state, the length of its body, a checksum, the generation, and as its body an :class:`Acceptance`. The
first one that is torn, or of another generation, ends them. Integers are little-endian.

The file is written to rather than mapped: a full disk under a mapping is a signal that ends the process, and for a
write it is an error that costs only the note.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2s
from uuid import UUID
from zlib import crc32

from ..replies import Reply

_MAGIC = b"mailer\x00\x01"
_GENERATION = struct.Struct("<Q")
#: Where entries begin.
_START = len(_MAGIC) + _GENERATION.size

# State, length, checksum, generation.
_HEAD = struct.Struct("<BIIQ")
# What the checksum is about, beside the acceptance.
_CHECKED = struct.Struct("<IQ")
# Message, claim, time, code of the reply, number of recipients. Their digests and the reply's text follow.
_BODY = struct.Struct("<16s16sdHH")

_NOTED = b"\x01"
_RECORDED = b"\x02"

#: Most bytes of a journal. All mails that SparkPost's API takes with one call fit in.
SIZE = 1024 * 1024

# Bytes of a digest: as many as it takes to tell the recipients of one mail apart.
_RECIPIENT = 8
# In one entry.
_MOST_RECIPIENTS = 0xFFFF
# Of a reply's text; what is recorded without a crash may be longer.
_LONGEST_TEXT = 500


@dataclass(frozen=True, slots=True)
class Acceptance:
    """That a mail server has taken a mail."""

    #: Key of the message.
    key: UUID
    #: What :func:`claim_digest` makes of the claim's token.
    claim: bytes
    #: When, in seconds since the epoch, by the clock of the outbox's database.
    at: float
    #: What the server said, as it may be stored.
    reply: Reply
    #: Digests of those recipients that it was taken for; empty: all of them.
    recipients: frozenset[bytes] = frozenset()

    def accepted_of(self, envelope: Sequence[str]) -> tuple[str, ...]:
        """Those of a message's recipients that it was taken for.

        Args:
            envelope: of the message, as the claim found it.
        """
        return tuple(
            recipient for recipient in envelope if not self.recipients or recipient_digest(recipient) in self.recipients
        )


def claim_digest(token: str) -> bytes:
    """What stands for the token of a claim."""
    return blake2s(token.encode(errors="surrogatepass"), digest_size=16).digest()


def recipient_digest(recipient: str) -> bytes:
    """What stands for a recipient: no address is in the file."""
    return blake2s(recipient.encode(errors="surrogatepass"), digest_size=_RECIPIENT).digest()


class Journal:
    """A journal that this process writes, for one task at a time."""

    def __init__(self, file: int) -> None:
        """
        Args:
            file: descriptor of an empty file, which is closed with the journal.

        Raises:
            OSError: it cannot be written.
        """
        self._file = file
        self._generation = 1
        self._end = _START
        #: Where acceptances stand that are not recorded.
        self._places: dict[UUID, int] = {}
        self._write(_MAGIC + _GENERATION.pack(self._generation), 0)

    @property
    def is_closed(self) -> bool:
        return self._file < 0

    @property
    def file(self) -> int:
        """Descriptor of the file."""
        return self._file

    def __contains__(self, key: UUID) -> bool:
        """Whether it says of a message that a server has taken it."""
        return key in self._places

    @property
    def is_empty(self) -> bool:
        """Whether all that it has said is recorded."""
        return not self._places

    def note(self, acceptance: Acceptance) -> None:
        """Write down that a server has taken a mail, unless there is no room for it.

        Raises:
            OSError: the file cannot be written.
        """
        if self.is_closed or len(acceptance.recipients) > _MOST_RECIPIENTS:
            return
        text = acceptance.reply.text[:_LONGEST_TEXT].encode(errors="replace")
        code = acceptance.reply.code or 0
        recipients = acceptance.recipients
        head = _BODY.pack(acceptance.key.bytes, acceptance.claim, acceptance.at, code, len(recipients))
        body = b"".join((head, *recipients, text))
        entry = _entry(body, self._generation)
        if self._end + len(entry) > SIZE:
            return
        place = self._end
        self._write(entry, place)
        self._places[acceptance.key] = place
        self._end = place + len(entry)

    def forget(self, keys: Iterable[UUID]) -> None:
        """These are recorded.

        Raises:
            OSError: the file cannot be written.
        """
        places = [place for key in keys if (place := self._places.pop(key, None)) is not None]
        if self.is_closed or not places:
            return
        if self._places:
            for place in places:
                self._write(_RECORDED, place)
            return
        self._generation += 1
        self._end = _START
        self._write(_GENERATION.pack(self._generation), len(_MAGIC))

    def unrecorded(self) -> list[Acceptance]:
        """What is noted and not recorded.

        Raises:
            OSError: the file cannot be read.
        """
        return [] if self.is_closed else list(read_acceptances(os.pread(self._file, SIZE, 0)))

    def discard(self) -> None:
        """Take back all that it says, if the file can be written at all, and write nothing more. Never raises."""
        if not self.is_closed:
            with suppress(OSError):
                os.ftruncate(self._file, 0)
        self.close()

    def close(self) -> None:
        """Write nothing more. Never raises."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def _write(self, data: bytes, place: int) -> None:
        if os.pwrite(self._file, data, place) != len(data):
            raise OSError("not all of it was written")


def _entry(body: bytes, generation: int) -> bytes:
    return _HEAD.pack(_NOTED[0], len(body), _checksum(body, generation), generation) + body


def _checksum(body: bytes, generation: int) -> int:
    return crc32(body, crc32(_CHECKED.pack(len(body), generation)))


def read_acceptances(data: bytes) -> Iterator[Acceptance]:
    """The notes of a journal that were not recorded, even if its process died while writing one.

    Args:
        data: what is in the file.
    """
    if len(data) < _START or not data.startswith(_MAGIC):
        return
    (generation,) = _GENERATION.unpack_from(data, len(_MAGIC))
    place = _START
    while place + _HEAD.size <= len(data):
        state, length, checksum, of = _HEAD.unpack_from(data, place)
        body = data[place + _HEAD.size : place + _HEAD.size + length]
        if of != generation or len(body) != length or _checksum(body, generation) != checksum:
            return
        place += _HEAD.size + length
        if bytes([state]) == _NOTED and (acceptance := _read_body(body)) is not None:
            yield acceptance


def _read_body(body: bytes) -> Acceptance | None:
    """What an entry says; ``None`` where no version of this module can have written it."""
    if len(body) < _BODY.size:
        return None
    key, claim, at, code, number = _BODY.unpack_from(body)
    text_at = _BODY.size + number * _RECIPIENT
    if not math.isfinite(at) or text_at > len(body):
        return None
    recipients = frozenset(body[place : place + _RECIPIENT] for place in range(_BODY.size, text_at, _RECIPIENT))
    reply = Reply(code or None, body[text_at:].decode(errors="replace"))
    return Acceptance(UUID(bytes=key), claim, at, reply, recipients)
