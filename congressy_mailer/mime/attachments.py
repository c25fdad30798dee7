"""Attachments as callers give them: read at the call, so that what cannot be read is an error there.

How a file name is encoded in the mail: :mod:`.attachment_fields`.
"""

from __future__ import annotations

import binascii
import codecs
import hashlib
import mimetypes
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message as MIMEPart
from functools import cached_property
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from django.utils.functional import Promise

from ..exceptions import AttachmentTooLarge, AttachmentUnreadable, InvalidAddress, MailerError
from .phrases import decoded_text
from .syntax import CONTROL, shown

_NAME = r"[A-Za-z0-9!#$&^_.+-]+"
_PARAMETER = rf'({_NAME})[ \t]*=[ \t]*("[ !#-\[\]-~]*"|{_NAME})'
_MIMETYPE = re.compile(rf"({_NAME}/{_NAME})((?:[ \t]*;[ \t]*{_PARAMETER})*)[ \t]*;?[ \t]*")
#: RFC 2392 §2, without what would have to be escaped in the HTML.
CONTENT_ID = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.@-]+")
_DEFAULT_MIMETYPE = "application/octet-stream"
# The type of a compressed file is that of the compression.
_COMPRESSED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}
#: Characters of a media type with its parameters.
MAX_MIMETYPE = 255
_MAX_TEXT = 255
# Bytes, a whole number of lines.
_ENCODED_AT_ONCE = 57 * 4096
# RFC 2978 §2.3.
_CHARSET = re.compile(r"[A-Za-z0-9!#$%&'+^_`{}~:.()-]{1,40}")


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that is sent with a mail.

    Args:
        filename: the name that the recipient sees.
        content: bytes, text (sent as UTF-8, or in the ``charset`` of the media type), or an open file.
        mimetype: media type such as ``application/pdf``, optionally with parameters (``text/calendar;
            method=REQUEST``); if empty, it is guessed from the name.
        content_id: id by which the HTML shows it as an image, ``<img src="cid:…">`` (RFC 2392).
        inline: whether mail programs should show it below the text instead of only listing it (RFC 2183 §2.1); an image
            with a ``content_id`` is always inline.
        description: a short description (``Content-Description``, RFC 2045 §8), at most 255 characters.
    """

    # Logs must not have an attachment's content, nor its name, which is often personal.
    filename: str = field(repr=False)
    content: Any = field(repr=False)
    mimetype: str = ""
    content_id: str = ""
    inline: bool = False
    description: str = field(default="", repr=False)


@dataclass(frozen=True)
class LoadedAttachment:
    """An attachment whose content is in hand. What mails need of it is worked out once, for all that it goes with."""

    filename: str = field(repr=False)
    content: bytes = field(repr=False)
    mimetype: str
    content_id: str
    inline: bool = False
    description: str = field(default="", repr=False)
    #: It goes with several mails, and is kept as it was encoded for the first.
    shared: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def base64(self) -> bytes:
        """The content as bytes, for every type: text would have its line ends changed on the way."""
        return self._kept_base64 if self.shared else base64_lines(self.content)

    @cached_property
    def _kept_base64(self) -> bytes:
        return base64_lines(self.content)

    @cached_property
    def content_type(self) -> tuple[str, dict[str, str]]:
        """Its media type and the parameters of it as a mail names them, an encoding of text among them.

        Text whose bytes are not of its encoding is no text: readers would show something else, or nothing.

        Raises:
            ValueError: it has none.
        """
        kind, parameters = media_type(self.mimetype)
        if kind.lower().startswith("text/"):
            charset = parameters.setdefault("charset", "utf-8")
            if not _is_text(self.content, charset):
                return _DEFAULT_MIMETYPE, {}
        return kind, parameters


def read_attachments(sources: object, limit: int) -> list[LoadedAttachment]:
    """Read every attachment.

    Args:
        sources: a list of :class:`Attachment`, paths, open files, the ``(filename, content, mimetype)`` of Django's
            ``EmailMessage.attach()``, or MIME parts.
        limit: most bytes of all of them together.

    Raises:
        AttachmentUnreadable: one cannot be read or has none of these shapes.
        AttachmentTooLarge: together they are larger than ``limit``.
    """
    if isinstance(sources, (str, bytes, PathLike)) or not isinstance(sources, Iterable):
        raise AttachmentUnreadable(f"attachments must be a list, not {type(sources).__name__}.")
    attachments = []
    total = 0
    for position, source in enumerate(sources):
        attachment = _load(source, f"attachments[{position}]", limit)
        total += len(attachment.content)
        if total > limit:
            raise AttachmentTooLarge(
                f"attachments[{position}] ({attachment.filename!r}) brings the attachments to {total:,} bytes; "
                f"the most is {limit:,} (CONGRESSY_MAILER['MAX_ATTACHMENT_BYTES'])."
            )
        attachments.append(attachment)
    return attachments


def media_type(text: str) -> tuple[str, dict[str, str]]:
    """A media type and its parameters, by name in lower case (RFC 2045 §5.1).

    Raises:
        ValueError: it is not one, is longer than 255 characters, or names a parameter twice.
    """
    match = _MIMETYPE.fullmatch(text) if len(text) <= MAX_MIMETYPE else None
    pairs = re.findall(_PARAMETER, match[2]) if match else []
    parameters = {name.lower(): value.strip('"') for name, value in pairs}
    if not match or len(parameters) < len(pairs):
        raise ValueError(f"{text!r} is not a media type")
    return match[1], parameters


def base64_lines(content: bytes) -> bytes:
    """Base64 in lines as mails have them (RFC 2045 §6.8), the last one without a line break."""
    written = BytesIO()
    # A part at a time: as objects, the lines of a large file would take twice its memory.
    for start in range(0, len(content), _ENCODED_AT_ONCE):
        encoded = binascii.b2a_base64(content[start : start + _ENCODED_AT_ONCE], newline=False)
        lines = [encoded[begin : begin + 76] for begin in range(0, len(encoded), 76)]
        written.write(b"\r\n" if start else b"")
        written.write(b"\r\n".join(lines))
    return written.getvalue()


def is_composite(kind: str) -> bool:
    """Whether it is a media type of mails within mails (RFC 2046 §5): Base64 is not allowed there."""
    return kind.lower().startswith(("multipart/", "message/"))


def _is_text(content: bytes, charset: str) -> bool:
    try:
        decoder = codecs.getincrementaldecoder(charset)()
        for start in range(0, len(content), _ENCODED_AT_ONCE):
            decoder.decode(content[start : start + _ENCODED_AT_ONCE])
        decoder.decode(b"", final=True)
    except LookupError:
        # Not one that Python knows: the caller may be right.
        return True
    except ValueError:
        return False
    return True


def _load(source: object, where: str, limit: int) -> LoadedAttachment:
    try:
        return _load_source(source, where, limit)
    except (MailerError, MemoryError, SoftTimeLimitExceeded):
        raise
    except Exception as error:
        # Files come from any storage, each with errors of its own; a FieldFile is opened by being looked at.
        reason = f"{type(error).__name__}: {error}".rstrip(".: ")
        raise AttachmentUnreadable(f"{where}: it cannot be read: {reason}.") from error


def _load_source(source: object, where: str, limit: int) -> LoadedAttachment:
    if isinstance(source, Attachment):
        return _build(source, where, limit)
    if isinstance(source, MIMEPart):
        return _load_part(source, where)
    if isinstance(source, tuple | list) and 2 <= len(source) <= 3:
        filename, content, *rest = source
        return _build(Attachment(filename, content, rest[0] if rest else ""), where, limit)
    if isinstance(source, (str, PathLike)):
        path = Path(source)
        with path.open("rb") as file:
            return _build(Attachment(path.name, file), where, limit)
    if hasattr(source, "read"):
        name = Path(str(getattr(source, "name", "") or "")).name
        return _build(Attachment(name, source, getattr(source, "content_type", "") or ""), where, limit)
    raise AttachmentUnreadable(
        f"{where} is a {type(source).__name__}; give an Attachment, a path, an open file or "
        "(filename, content, mimetype)."
    )


def _build(source: Attachment, where: str, limit: int) -> LoadedAttachment:
    if isinstance(source.filename, bytes):
        raise AttachmentUnreadable(f"{where}: the file name is bytes: decode it first.")
    name = _one_line(source.filename, f"{where}: the file name")
    mimetype = str(source.mimetype or "") or _guess_mimetype(name)
    charset = _charset(mimetype, where)
    content_id = source.content_id
    if content_id and not (isinstance(content_id, str) and CONTENT_ID.fullmatch(content_id) and len(content_id) <= 255):
        raise AttachmentUnreadable(f"{where}: {shown(str(content_id))} is not a content id (RFC 2392).")
    if not isinstance(source.inline, bool):
        raise AttachmentUnreadable(f"{where}: inline must be True or False, not {source.inline!r}.")
    return LoadedAttachment(
        name,
        _load_content(source.content, charset, where, limit),
        mimetype,
        content_id or "",
        source.inline,
        _one_line(source.description, f"{where}: the description"),
    )


def _one_line(value: object, what: str) -> str:
    text = str(value or "")
    if CONTROL.search(text):
        raise AttachmentUnreadable(f"{what} holds a line break or control character: {shown(text)}.")
    if len(text) > _MAX_TEXT:
        raise AttachmentUnreadable(f"{what} is longer than {_MAX_TEXT} characters.")
    return text


def _guess_mimetype(name: str) -> str:
    guessed, compression = mimetypes.guess_type(name)
    if compression is not None:
        return _COMPRESSED.get(compression, _DEFAULT_MIMETYPE)
    return _DEFAULT_MIMETYPE if guessed is None or is_composite(guessed) else guessed


def _charset(mimetype: str, where: str) -> str:
    """The encoding for text of a media type."""
    if len(mimetype) > MAX_MIMETYPE:
        raise AttachmentUnreadable(f"{where}: the media type is longer than {MAX_MIMETYPE} characters.")
    try:
        kind, parameters = media_type(mimetype)
    except ValueError:
        raise AttachmentUnreadable(f"{where}: {mimetype!r} is not the media type of a file.") from None
    if is_composite(kind):
        raise AttachmentUnreadable(
            f"{where}: {mimetype!r} is not the media type of a file but of a mail's part, which must go as it is "
            f"(RFC 2046 §5.2.1) and would not survive it. Attach a mail as {_DEFAULT_MIMETYPE!r}."
        )
    charset = parameters.get("charset", "utf-8")
    if not _CHARSET.fullmatch(charset):
        raise AttachmentUnreadable(f"{where}: {charset!r} is not the name of a character set.")
    return charset


def _load_content(content: Any, charset: str, where: str, limit: int) -> bytes:
    if hasattr(content, "read"):
        if hasattr(content, "seek") and getattr(content, "seekable", lambda: True)():
            content.seek(0)
        content = _read_file(content, limit)
    if isinstance(content, str | Promise):
        try:
            return str(content).encode(charset)
        except (UnicodeEncodeError, LookupError) as error:
            raise AttachmentUnreadable(f"{where}: the text cannot be written as {charset.upper()}: {error}.") from error
    if isinstance(content, (bytes, bytearray, memoryview)):
        return bytes(content)
    raise AttachmentUnreadable(f"{where}: the content is a {type(content).__name__}, not bytes, text or a file.")


def _read_file(file: Any, limit: int) -> bytes | str:
    """All of a file, or enough to tell that it is too large: one byte more than is allowed."""
    chunks = []
    remaining = limit + 1
    chunk: Any = b""
    # A raw stream gives what it has at the moment, and nothing only at its end.
    while remaining > 0 and (chunk := file.read(remaining)):
        chunks.append(chunk)
        remaining -= len(chunk)
    if chunk is None:
        raise BlockingIOError("it has nothing to read yet, and does not wait")
    return "".join(chunks) if isinstance(chunk, str) else b"".join(chunks)


def _load_part(part: MIMEPart, where: str) -> LoadedAttachment:
    payload = part.get_payload(decode=True)
    if part.is_multipart() or not isinstance(payload, bytes):
        raise AttachmentUnreadable(f"{where} is a MIME part with parts of its own; attach each file by itself.")
    source = Attachment(
        part.get_filename() or "",
        payload,
        _part_mimetype(part),
        str(part.get("Content-ID") or "").strip().strip("<>"),
        inline=part.get_content_disposition() == "inline",
        description=_part_description(part),
    )
    return _build(source, where, len(payload))


def _part_description(part: MIMEPart) -> str:
    """What a part says of itself, as one line of text."""
    text = str(part.get("Content-Description") or "")
    with suppress(InvalidAddress):
        text = decoded_text(text, "Content-Description")
    return " ".join(CONTROL.sub(" ", text).split())[:_MAX_TEXT]


def _part_mimetype(part: MIMEPart) -> str:
    """The media type of a part with those of its parameters that can be kept as they are; the name is kept apart."""
    kind = part.get_content_type()
    for name, value in (part.get_params() or [])[1:]:
        candidate = f'{kind}; {name}="{value}"'
        try:
            _, parameters = media_type(candidate)
        except ValueError:
            continue
        if name.lower() != "name" and _CHARSET.fullmatch(parameters.get("charset", "utf-8")):
            kind = candidate
    return kind
