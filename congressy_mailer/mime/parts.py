"""The parts of a mail that is written already, as Django's ``EmailMessage`` has them."""

from __future__ import annotations

import email
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage, MIMEPart
from types import MappingProxyType
from typing import Any

import django
from django.core.mail import EmailAttachment

from .as_written import AS_WRITTEN
from .attachments import media_type

#: Django 6.0 moved its mail to the standard library's modern interface.
HAS_MODERN_EMAIL = django.VERSION >= (6, 0)
_NOTHING: Mapping[str, str] = MappingProxyType({})
_HEAD_END = b"\r\n\r\n"
# What Django writes of an attachment that it was given as a name, a content and a media type.
_FIELDS_OF_ATTACHMENTS = {"content-disposition", "content-transfer-encoding", "content-type", "mime-version"}
# RFC 2045 §5.1.
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+^_`{|}~.-]+")


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

    @property
    def text(self) -> str:
        """Its text, of whatever kind but HTML; empty where there is none."""
        return self._first("plain") if self.subtype == "html" or not self.body else self.body

    @property
    def html(self) -> str:
        """Its HTML; empty where there is none."""
        return self._first("html")

    def _first(self, subtype: str) -> str:
        if self.subtype == subtype:
            return self.body
        return next((str(text) for text, kind in self.alternatives if kind.partition(";")[0] == f"text/{subtype}"), "")


def read_parts(wire: bytes) -> MailParts:
    """Read a written mail. Never an error: what cannot be read as text is an attachment."""
    # Bytes with single LF, or text would come with CR LF.
    root: Any = email.message_from_bytes(wire.replace(b"\r\n", b"\n"), EmailMessage, policy=AS_WRITTEN)
    parts = MailParts()
    found = False
    for part, is_alternative, is_alone in _leaves(root, False, False):
        text = _text(part) if is_shown_text(part) and (is_alternative or not found) else None
        if text is None:
            parts.files.append(part)
        elif found or (is_alone and part.get_content_subtype() != "plain"):
            # Django writes a single alternative where the body is empty.
            parts.alternatives.append((text, _media_type(part, {"name", "charset"})))
            found = True
        else:
            parts.body, parts.subtype, found = text, part.get_content_subtype(), True
    return parts


def read_fields(wire: bytes) -> list[tuple[str, str]]:
    """The header fields of a written mail, decoded. Never an error: what cannot be decoded stays as it was written."""
    head = email.message_from_bytes(_head(wire) + _HEAD_END, EmailMessage, policy=AS_WRITTEN)
    return [(name, str(value)) for name, value in head.items()]


def file_content(part: MIMEPart[Any, Any]) -> bytes:
    """The content of a part that is no text; of a mail within the mail, that mail as it is written."""
    content = part.get_payload(decode=True)
    if content is None:
        # Of a report on a delivery there are several blocks.
        return b"".join(inner.as_bytes() for inner in part.get_payload())  # type: ignore[union-attr]
    return content  # type: ignore[return-value]


def text_content(part: MIMEPart[Any, Any]) -> str:
    """The content of a part that is text, also where it does not say correctly how it is encoded."""
    text = _text(part)
    return file_content(part).decode("utf-8", "replace") if text is None else text


def _leaves(part: Any, is_alternative: bool, is_alone: bool) -> Iterator[tuple[Any, bool, bool]]:
    """Each with whether it is one of several forms of the same, and whether it is the only one of these."""
    if part.get_content_maintype() != "multipart" or not part.is_multipart():
        yield part, is_alternative, is_alone
        return
    children = list(part.iter_parts() if hasattr(part, "iter_parts") else part.get_payload())
    offers_forms = part.get_content_subtype() == "alternative"
    for child in children:
        yield from _leaves(child, is_alternative or offers_forms, offers_forms and len(children) == 1)


def is_shown_text(part: Any) -> bool:
    """Whether a part is text that mail programs show, and no file."""
    return bool(part.get_content_maintype() == "text") and not _is_attachment(part) and not part.get_filename()


def _is_attachment(part: Any) -> bool:
    return bool(part.get_content_disposition() == "attachment")


def _parameters(part: Any, name: str) -> Mapping[str, str]:
    """Those of a header field; none where it is not to be understood."""
    return getattr(part[name], "params", _NOTHING)


def _text(part: Any, errors: str = "replace") -> str | None:
    try:
        text = str(part.get_content(errors=errors)).replace("\r\n", "\n")
    except (LookupError, ValueError):
        return None
    # Django 6 ends each text with a line break.
    return text.removesuffix("\n") if HAS_MODERN_EMAIL else text


def as_attachment(part: MIMEPart[Any, Any]) -> EmailAttachment | None:
    """What ``EmailMessage.attach()`` makes of a name, a content and a media type, of a part that says no more.

    ``None``: it was attached as a part, such as an image with a ``Content-ID``.
    """
    names = [name.lower() for name in part]
    if (
        not set(names) <= _FIELDS_OF_ATTACHMENTS
        # That interface writes MIME-Version behind the others; a part of the author's own has it before them, or none.
        or (HAS_MODERN_EMAIL and "mime-version" not in names[2:])
        or ("Content-Disposition" in part and not _is_attachment(part))
        or set(_parameters(part, "Content-Disposition")) - {"filename"}
    ):
        return None
    is_text = part.get_content_maintype() == "text"
    content = _exact_text(part) if is_text else file_content(part)
    kind = _media_type(part, {"name", "charset"} if is_text else {"name"})
    return None if content is None or not _is_media_type(kind) else EmailAttachment(part.get_filename(), content, kind)


def is_mime_base(part: MIMEPart[Any, Any]) -> bool:
    """Whether its author has made it as a ``MIMEBase``, which begins with these fields; other parts do not."""
    return [name.lower() for name in part][:2] == ["content-type", "mime-version"]


def _exact_text(part: Any) -> str | None:
    """``None``: its bytes are another text than it says, or it does not say which, as Django does."""
    return _text(part, "strict") if "charset" in _parameters(part, "Content-Type") else None


def _is_media_type(text: str) -> bool:
    try:
        media_type(text)
    except ValueError:
        return False
    return True


def _media_type(part: Any, kept_apart: Collection[str]) -> str:
    """With its parameters but for those that others know by another name: a file's name, and the encoding of text."""
    parameters = _parameters(part, "Content-Type")
    further = {name: value for name, value in parameters.items() if name not in kept_apart}
    return "; ".join([part.get_content_type(), *(f"{name}={_quoted(value)}" for name, value in further.items())])


def _quoted(value: str) -> str:
    return value if _TOKEN.fullmatch(value) else f'"{value}"'


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
