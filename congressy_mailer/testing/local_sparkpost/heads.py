"""The fields at the head of a mail, read without its body, which may have many megabytes."""

from __future__ import annotations

import email.policy
import re
from email.message import Message
from email.parser import BytesHeaderParser

_END_OF_HEAD = re.compile(rb"(?:\A|\r?\n)\r?\n")


def split_head(content: bytes) -> tuple[bytes, bytes]:
    """The head of a mail with the line break of its last field, and the rest."""
    end = _END_OF_HEAD.search(content)
    length = end.start() + len(b"\r\n") if end else len(content)
    return content[:length], content[length:]


def read_head(content: bytes) -> Message:
    """The fields of a mail."""
    return BytesHeaderParser(policy=email.policy.compat32).parsebytes(split_head(content)[0])
