"""Bytes from an SMTP server → its replies (RFC 5321 §4.2)."""

from __future__ import annotations

import re

from ...replies import Reply, printable_text

# Some servers leave out the space before a text that is empty, some the CR.
_REPLY_LINE = re.compile(rb"[2-5][0-9][0-9](?:[ -]|$)")

#: Octets. RFC 5321 §4.5.3.1.5 allows a line 512; servers with long explanations are forgiven, those without end not.
LONGEST_REPLY = 64 * 1024


class InvalidReply(ValueError):
    """The server said something that is no reply: nobody knows any more what its next words are about."""


class ReplyParser:
    """Cuts what comes in, in pieces of any size, into replies."""

    def __init__(self) -> None:
        self._unread = bytearray()
        self._lines: list[bytes] = []
        # Of the lines.
        self._length = 0

    @property
    def empty(self) -> bool:
        """Nothing has come since the last reply that was taken."""
        return not self._unread and not self._lines

    def feed(self, data: bytes) -> None:
        """Take what has come in."""
        self._unread += data

    def next(self) -> Reply | None:
        """The next reply; ``None`` until all of its last line has come.

        Raises:
            InvalidReply: it can be none.
        """
        lines = self.next_lines()
        return _reply(lines) if lines is not None else None

    def next_lines(self) -> list[bytes] | None:
        """The same as it was said, line by line, without line ends.

        Raises:
            InvalidReply: it can be none.
        """
        while (end := self._unread.find(b"\n", 0, LONGEST_REPLY)) >= 0:
            line = bytes(self._unread[:end]).removesuffix(b"\r")
            del self._unread[: end + 1]
            self._length += end
            if not _REPLY_LINE.match(line) or (self._lines and line[:3] != self._lines[0][:3]):
                raise InvalidReply(f"Not a reply: {printable_text(line)[:200]!r}")
            if self._length > LONGEST_REPLY:
                break
            self._lines.append(line)
            if line[3:4] != b"-":
                lines, self._lines, self._length = self._lines, [], 0
                return lines
        if self._length + len(self._unread) > LONGEST_REPLY:
            raise InvalidReply(f"Not a reply, for it has no end: {printable_text(bytes(self._unread))[:200]!r}")
        return None


def _reply(lines: list[bytes]) -> Reply:
    return Reply(int(lines[0][:3]), b" ".join(line[4:] for line in lines).decode(errors="replace"))
