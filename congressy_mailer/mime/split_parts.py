"""Where the parts of a mail stand in what was written of it, by the message that it was written from."""

from __future__ import annotations

from email.message import Message
from typing import Any, NamedTuple


class Parts(NamedTuple):
    """The body of a ``multipart``."""

    #: The line break before the first delimiter, and what stands before that.
    preamble: bytes
    #: Each part as it is written, and the message that it was written from.
    parts: list[tuple[bytes, Message]]
    #: What stands between parts; behind it a line break follows.
    delimiter: bytes
    #: What follows the last delimiter.
    end: bytes

    def join(self, written: list[bytes]) -> bytes:
        """The body with other parts in the place of these."""
        return self.delimiter.join([self.preamble, *(b"\r\n" + part for part in written), self.end])[2:]


def split_head(content: bytes) -> tuple[bytes, bytes]:
    """The head of a mail or part with CRLF line breaks, without its last one, and the body.

    A part without a header field begins with its empty line.
    """
    if content.startswith(b"\r\n"):
        return b"", content[2:]
    head, _, body = content.partition(b"\r\n\r\n")
    return head, body


def split_multipart(body: bytes, message: Message) -> Parts | None:
    """The parts of a ``multipart``; ``None`` where they are not found at the places where they should be.

    Args:
        body: with CRLF line breaks.
        message: what it was written from.
    """
    delimiter = f"\r\n--{message.get_boundary()}".encode("ascii", "replace")
    preamble, *pieces, end = (b"\r\n" + body).split(delimiter)
    parts: Any = message.get_payload()
    if len(pieces) != len(parts) or not end.startswith(b"--"):
        return None
    if not all(piece.startswith(b"\r\n") for piece in pieces):
        return None
    return Parts(preamble, [(piece[2:], part) for piece, part in zip(pieces, parts, strict=True)], delimiter, end)
