"""The parts of a mail that is written already, as Django's ``EmailMessage`` has them."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage, MIMEPart
from typing import Any

import django

_HEAD_END = b"\r\n\r\n"


@dataclass(slots=True)
class MailParts:
    """What a mail says, part by part. Line breaks of texts are single LF."""

    body: str = ""
    #: ``plain`` or ``html``, as Django's ``content_subtype``.
    subtype: str = "plain"
    #: Further forms of the same, each its content and media type.
    alternatives: list[tuple[Any, str]] = field(default_factory=list)
    #: All other parts, unread.
    files: list[MIMEPart[Any, Any]] = field(default_factory=list)


def read_parts(wire: bytes) -> MailParts:
    """Read a written mail. Never an error: what cannot be read as text is an attachment."""
    # Bytes with single LF, or text would come with CR LF.
    root: Any = email.message_from_bytes(wire.replace(b"\r\n", b"\n"), EmailMessage, policy=email.policy.default)
    parts = MailParts()
    found = False
    for part, is_alternative in _leaves(root, False):
        text = _text(part) if _is_text(part) and (is_alternative or not found) else None
        if text is None:
            parts.files.append(part)
        elif not found:
            parts.body, parts.subtype, found = text, part.get_content_subtype(), True
        else:
            parts.alternatives.append((text, _media_type(part)))
    return parts


def _leaves(part: Any, is_alternative: bool) -> Iterator[tuple[Any, bool]]:
    if part.get_content_maintype() != "multipart" or not part.is_multipart():
        yield part, is_alternative
        return
    for child in part.iter_parts() if hasattr(part, "iter_parts") else part.get_payload():
        yield from _leaves(child, is_alternative or part.get_content_subtype() == "alternative")


def _is_text(part: Any) -> bool:
    return bool(part.get_content_maintype() == "text") and not part.is_attachment() and not part.get_filename()


def _text(part: Any) -> str | None:
    try:
        text = str(part.get_content(errors="replace")).replace("\r\n", "\n")
    except (LookupError, ValueError):
        return None
    # Django 6 ends each text with a line break.
    return text.removesuffix("\n") if django.VERSION >= (6, 0) else text


def _media_type(part: Any) -> str:
    further = {name: value for name, value in part["Content-Type"].params.items() if name != "charset"}
    return "; ".join([part.get_content_type(), *(f"{name}={value}" for name, value in further.items())])


def field_value(wire: bytes, name: str) -> str | None:
    """The value of a mail's header field, unfolded; ``None`` where it has none of that name."""
    for one in _fields(wire):
        if _name(one) == name.lower():
            return one.partition(b":")[2].replace(b"\r\n", b"").decode("ascii", "replace").strip()
    return None


def without_field(wire: bytes, name: str) -> bytes:
    """The mail without its header fields of this name; all other bytes stay."""
    fields = _fields(wire)
    kept = [one for one in fields if _name(one) != name.lower()]
    if len(kept) == len(fields):
        return wire
    # A view: the body of a large mail is copied once.
    return b"".join([b"\r\n".join(kept), memoryview(wire)[len(_head(wire)) :]])


def _head(wire: bytes) -> bytes:
    end = wire.find(_HEAD_END)
    return wire if end < 0 else wire[:end]


def _fields(wire: bytes) -> list[bytes]:
    fields: list[bytes] = []
    for line in _head(wire).split(b"\r\n"):
        if line[:1] in b" \t" and fields:
            fields[-1] += b"\r\n" + line
        else:
            fields.append(line)
    return fields


def _name(one: bytes) -> str:
    return one.partition(b":")[0].decode("ascii", "replace").strip().lower()
