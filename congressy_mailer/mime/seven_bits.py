"""A mail in eight bits → the same in seven (RFC 2045 §6), which servers without 8BITMIME take as well.

Django before 6.0 writes texts in eight bits. Which server a mail will go to is not known yet when it is written.
"""

from __future__ import annotations

import base64
import email
import email.policy
import re
from email.generator import BytesGenerator
from email.message import Message
from io import BytesIO

from .split_parts import split_head, split_multipart

_SEVEN_BIT = email.policy.compat32.clone(cte_type="7bit")
_EIGHT_BIT = re.compile(rb"^Content-Transfer-Encoding: 8bit(?=\r?$)", re.IGNORECASE | re.MULTILINE)


def flatten(message: Message) -> bytes:
    """A mail as Python writes it, with CRLF line breaks."""
    buffer = BytesIO()
    BytesGenerator(buffer, mangle_from_=False).flatten(message, linesep="\r\n")
    return buffer.getvalue()


def in_seven_bits(content: bytes, message: Message) -> bytes:
    """A mail whose texts that need eight bits are written in Base64; all else stays as it is.

    Args:
        content: the mail with CRLF line breaks, in which each part stands where the message has it.
        message: what it was written from.
    """
    # Reading it back, and writing all of it anew, takes longer than writing it did.
    if (converted := _with_encoded_texts(content, message)) is not None:
        return converted
    return flatten(email.message_from_bytes(content, policy=_SEVEN_BIT))


def _with_encoded_texts(content: bytes, message: Message) -> bytes | None:
    """The same with encoded texts; ``None`` where something else needs eight bits, or its place is not clear."""
    if content.isascii():
        return content
    head, body = split_head(content)
    encodings = _EIGHT_BIT.findall(head)
    if not head.isascii():
        return None
    if not message.is_multipart():
        if len(encodings) != 1 or message.get_content_maintype() != "text" or not _is_decodable(body, message):
            return None
        encoded = base64.encodebytes(body).replace(b"\n", b"\r\n")
        return _EIGHT_BIT.sub(b"Content-Transfer-Encoding: base64", head) + b"\r\n\r\n" + encoded
    if encodings or message.get_content_maintype() != "multipart":
        return None
    found = split_multipart(body, message)
    if found is None or not (found.preamble.isascii() and found.end.isascii()):
        return None
    written = []
    for piece, part in found.parts:
        converted = _with_encoded_texts(piece, part)
        if converted is None:
            return None
        written.append(converted)
    return head + b"\r\n\r\n" + found.join(written)


def _is_decodable(text: bytes, message: Message) -> bool:
    try:
        text.decode(message.get_content_charset("ascii"))
    except (LookupError, ValueError):
        return False
    return True
