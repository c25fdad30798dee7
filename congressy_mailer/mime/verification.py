"""The last look at what is written: a head is the fields that were asked for, and a body is lines that servers take.

A line break that gets into a head writes a field, or a body, that nobody asked for; a single CR or LF lets one mail
pass for two where servers differ about it (RFC 5321 §2.3.8). Values are checked where they are given and encoded where
they are written. This makes sure of the outcome, whichever of the two was wrong.
"""

from __future__ import annotations

import email
import email.policy
from collections.abc import Sequence
from email.message import Message
from typing import Any

from .split_parts import split_head, split_multipart
from .syntax import HEADER_NAME, MAX_LINE


def checked_head(fields: Sequence[str]) -> bytes:
    """A head of these fields, each with its line break, and without the empty line after it.

    Raises:
        ValueError: one is not exactly one field, stands twice (RFC 5322 §3.6), or has a character or a length that no
            line of a mail may have.
    """
    head = "".join(fields)
    lines = head.split("\r\n")
    names = [line.partition(":")[0] for line in lines if line[:1] != " "]
    # Behind the last line break there is an empty line.
    if names.pop() or len(names) != len(fields):
        raise ValueError("the head of the mail is not the fields that were asked for")
    if len({name.lower() for name in names}) != len(names):
        raise ValueError("the head of the mail has a field twice")
    text = "".join(lines)
    if not (text.isascii() and text.isprintable()):
        raise ValueError("the head of the mail has a character that is not printable ASCII")
    if max(map(len, lines)) > MAX_LINE or not all(map(str.strip, lines[:-1])):
        raise ValueError("the head of the mail has a line that is too long, or empty")
    if not all(map(HEADER_NAME.fullmatch, names)):
        raise ValueError("the head of the mail has a field without a name")
    return head.encode("ascii")


def checked_body(content: bytes) -> bytes:
    """A body in the encoding that the mail has it in.

    Raises:
        ValueError: it has a character or a line that no body may have.
    """
    if not content.isascii() or b"\0" in content:
        raise ValueError("a part of the mail has a character that is not ASCII, or NUL")
    lines = content.split(b"\r\n")
    if max(map(len, lines)) > MAX_LINE:
        raise ValueError("a part of the mail has a line that is too long")
    if not len(lines) - 1 == content.count(b"\r") == content.count(b"\n"):
        raise ValueError("a part of the mail has a line break that is not CR LF")
    return content


def check_as_built(content: bytes, message: Message) -> None:
    """Make sure that what was written is what another writer had built: the same parts with the same fields.

    Raises:
        ValueError: a value has become a field, a part or a body of its own.
    """
    # Reading all of it takes as long as writing it did. For nearly every mail the heads alone show that it is right.
    if not _has_its_heads(content, message) and _outline(
        email.message_from_bytes(content, policy=email.policy.compat32)
    ) != _outline(message):
        raise ValueError("the mail as it is written has other header fields or parts than it was given")


def _has_its_heads(content: bytes, message: Message) -> bool:
    """Whether each part is found where it should be, with exactly its fields; false also where that is not clear."""
    head, body = split_head(content)
    if not head.count(b"\r\n") == head.count(b"\r") == head.count(b"\n"):
        # Readers differ about what a single one ends.
        return False
    lines = head.split(b"\r\n") if head else []
    names = [line.partition(b":")[0].decode("ascii", "replace") for line in lines if line[:1] not in (b" ", b"\t")]
    if [name.lower() for name in names] != [name.lower() for name, _ in message.raw_items()]:
        return False
    if not message.is_multipart():
        return True
    parts: Any = message.get_payload()
    if message.get_content_maintype() != "multipart":
        return len(parts) == 1 and _has_its_heads(body, parts[0])
    found = split_multipart(body, message)
    return found is not None and all(_has_its_heads(piece, part) for piece, part in found.parts)


def _outline(message: Message) -> object:
    names = [name.lower() for name, _ in message.raw_items()]
    parts = message.get_payload() if message.is_multipart() else ()
    return names, [_outline(part) for part in parts if isinstance(part, Message)]
