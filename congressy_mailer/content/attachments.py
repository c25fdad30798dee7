"""Attachments as callers give them: read at the call, so that what cannot be read is an error there."""

from __future__ import annotations

import hashlib
import mimetypes
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from email.message import Message as MIMEPart
from os import PathLike
from pathlib import Path
from typing import Any

from ..exceptions import AttachmentTooLarge, AttachmentUnreadable

_MIMETYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_CONTENT_ID = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.@-]+")
_UNKNOWN = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that goes with a mail.

    Args:
        filename: the name that the reader sees.
        content: bytes, text (sent as UTF-8), or an open file.
        mimetype: media type such as ``application/pdf``; empty: guessed from the name.
        content_id: makes it an image that the HTML shows as ``<img src="cid:…">`` (RFC 2392).
    """

    # What an attachment says, and often its name, is nobody's business who reads a log.
    filename: str = field(repr=False)
    content: Any = field(repr=False)
    mimetype: str = ""
    content_id: str = ""


@dataclass(frozen=True, slots=True)
class ReadAttachment:
    """An attachment whose content is in hand."""

    filename: str = field(repr=False)
    content: bytes = field(repr=False)
    mimetype: str
    content_id: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def read_attachments(given: object, limit: int) -> list[ReadAttachment]:
    """Read every attachment.

    Args:
        given: a list of :class:`Attachment`, paths, open files, the ``(filename, content, mimetype)`` of Django's
            ``EmailMessage.attach()``, or MIME parts.
        limit: most bytes of all of them together.

    Raises:
        AttachmentUnreadable: one cannot be read or has none of these shapes.
        AttachmentTooLarge: together they are larger than ``limit``.
    """
    if isinstance(given, (str, bytes, PathLike)) or not isinstance(given, Iterable):
        raise AttachmentUnreadable(f"attachments must be a list, not {type(given).__name__}.")
    attachments = []
    total = 0
    for position, one in enumerate(given):
        attachment = _read(one, f"attachments[{position}]", limit)
        total += len(attachment.content)
        if total > limit:
            raise AttachmentTooLarge(
                f"attachments[{position}] ({attachment.filename!r}) brings the attachments to {total:,} bytes; "
                f"the most is {limit:,} (CONGRESSY_MAILER['MAX_ATTACHMENT_BYTES'])."
            )
        attachments.append(attachment)
    return attachments


def _read(given: object, where: str, limit: int) -> ReadAttachment:
    if isinstance(given, Attachment):
        return _build(given.filename, given.content, given.mimetype, given.content_id, where, limit)
    if isinstance(given, MIMEPart):
        return _read_part(given, where)
    if isinstance(given, tuple) and 2 <= len(given) <= 3:
        filename, content, *rest = given
        return _build(filename, content, rest[0] if rest else "", "", where, limit)
    if isinstance(given, (str, PathLike)):
        path = Path(given)
        try:
            with path.open("rb") as file:
                return _build(path.name, file, "", "", where, limit)
        except OSError as error:
            raise AttachmentUnreadable(f"{where}: {error}.") from error
    if hasattr(given, "read"):
        name = Path(str(getattr(given, "name", "") or "")).name
        return _build(name, given, getattr(given, "content_type", "") or "", "", where, limit)
    raise AttachmentUnreadable(
        f"{where} is a {type(given).__name__}; give an Attachment, a path, an open file or "
        "(filename, content, mimetype)."
    )


def _build(filename: object, content: Any, mimetype: object, content_id: str, where: str, limit: int) -> ReadAttachment:
    name = str(filename or "")
    if _CONTROL.search(name):
        raise AttachmentUnreadable(f"{where}: the file name holds a line break or control character: {name!r}.")
    if len(name) > 255:
        raise AttachmentUnreadable(f"{where}: the file name is longer than 255 characters.")
    kind = str(mimetype or "") or mimetypes.guess_type(name)[0] or _UNKNOWN
    if not _MIMETYPE.fullmatch(kind) or kind.startswith(("multipart/", "message/")):
        raise AttachmentUnreadable(f"{where}: {kind!r} is not the media type of a file.")
    if content_id and not _CONTENT_ID.fullmatch(content_id):
        raise AttachmentUnreadable(f"{where}: {content_id!r} is not a content id (RFC 2392).")
    return ReadAttachment(name, _read_content(content, where, limit), kind, content_id)


def _read_content(content: Any, where: str, limit: int) -> bytes:
    if hasattr(content, "read"):
        try:
            if hasattr(content, "seek") and getattr(content, "seekable", lambda: True)():
                content.seek(0)
            # One byte more than is allowed tells that it is too large, without reading it all.
            content = content.read(limit + 1)
        except (OSError, ValueError, TypeError) as error:
            raise AttachmentUnreadable(f"{where} cannot be read: {error}.") from error
    if isinstance(content, str):
        try:
            return content.encode()
        except UnicodeEncodeError as error:
            raise AttachmentUnreadable(f"{where}: the text cannot be written as UTF-8: {error}.") from error
    if isinstance(content, (bytes, bytearray, memoryview)):
        return bytes(content)
    raise AttachmentUnreadable(f"{where}: the content is a {type(content).__name__}, not bytes, text or a file.")


def _read_part(part: MIMEPart, where: str) -> ReadAttachment:
    payload = part.get_payload(decode=True)
    if part.is_multipart() or not isinstance(payload, bytes):
        raise AttachmentUnreadable(f"{where} is a MIME part with parts of its own; attach each file by itself.")
    content_id = str(part.get("Content-ID") or "").strip().strip("<>")
    return _build(part.get_filename() or "", payload, part.get_content_type(), content_id, where, len(payload))
