"""A mail written as bytes, without Python's ``email``: its versions write the same values differently, and decode some.

Everything is ASCII, with CRLF line breaks and lines that every server takes: none needs ``8BITMIME``, and none on the
way has a reason to write it anew, which would break its signature.
"""

from __future__ import annotations

import binascii
import html as html_entities
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from .attachment_fields import attachment_fields, with_parameters
from .attachments import LoadedAttachment, base64_lines, media_type
from .headers import address_field, cached_address_field, further_field, text_field
from .syntax import MAX_LINE
from .verification import checked_body, checked_head

# Quoted-Printable is the shorter one while at most one in so many octets is a character's second or a later one.
_OCTETS_TO_A_LATER_ONE = 6

_CID = re.compile(r"cid:([^\s\"'<>()]+)", re.IGNORECASE)


class Alternative(NamedTuple):
    """A further form of what a mail says, of which a reader shows the one that it likes best (RFC 2046 §5.1.4)."""

    #: Text.
    content: str
    #: Media type with its parameters, such as ``text/calendar; method=REQUEST``.
    mimetype: str


@dataclass(frozen=True, slots=True)
class MailContent:
    """What a mail says."""

    #: One line, without HTML's entities.
    subject: str = field(repr=False)
    #: Plain text.
    text: str = field(repr=False)
    #: Empty where the mail is text only.
    html: str = field(repr=False)
    #: Further forms of the same.
    alternatives: tuple[Alternative, ...] = field(default=(), repr=False)


class _Part(NamedTuple):
    """A part of a mail: its fields, each with its line break, and its body."""

    fields: list[str]
    body: list[bytes]


def write(
    rendered: MailContent,
    *,
    from_email: str,
    to: Sequence[str],
    cc: Sequence[str],
    reply_to: Sequence[str],
    headers: Mapping[str, str],
    attachments: Sequence[LoadedAttachment],
) -> bytes:
    """The mail as it goes over the wire, but for the doubling of dots.

    Args:
        rendered: its subject and texts.
        from_email: an address in normal form, as all of them are.
        to: addresses; may be empty, as ``cc`` and ``reply_to``.
        cc: addresses.
        reply_to: addresses.
        headers: all others, ``Date`` and ``Message-ID`` among them.
        attachments: read and checked.

    Raises:
        ValueError: a value cannot be written so that every reader understands the same.
    """
    fields = [text_field("Subject", rendered.subject), cached_address_field("From", (from_email,))]
    if to:
        fields.append(address_field("To", to))
    if cc:
        fields.append(address_field("Cc", cc))
    if reply_to:
        fields.append(cached_address_field("Reply-To", tuple(reply_to)))
    fields += [further_field(name, value) for name, value in headers.items()]
    fields.append("MIME-Version: 1.0\r\n")
    content = _content(rendered, attachments)
    return b"".join([checked_head([*fields, *content.fields]), b"\r\n", *content.body])


def _content(rendered: MailContent, attachments: Sequence[LoadedAttachment]) -> _Part:
    """``mixed(alternative(text, related(HTML, images)), files)``, without what there is only one of."""
    images, files = _split(rendered.html, attachments)
    forms = []
    if rendered.text or not (rendered.html or rendered.alternatives or files):
        forms.append(_text_part("text/plain", rendered.text))
    # The last one is the best (RFC 2046 §5.1.4): no other text says more than HTML, and an invitation is no text only.
    forms += [_text_part(one.mimetype, one.content) for one in rendered.alternatives if not _is_invitation(one)]
    if rendered.html:
        page = _text_part("text/html", rendered.html)
        forms.append(_multipart("related", [page, *map(_attachment_part, images)]) if images else page)
    forms += [_text_part(one.mimetype, one.content) for one in rendered.alternatives if _is_invitation(one)]
    content = [_multipart("alternative", forms)] if len(forms) > 1 else forms
    if files:
        return _multipart("mixed", [*content, *map(_attachment_part, files)])
    return content[0]


def _is_invitation(alternative: Alternative) -> bool:
    return alternative.mimetype.lower().startswith("text/calendar")


def _split(
    html: str, attachments: Sequence[LoadedAttachment]
) -> tuple[Sequence[LoadedAttachment], Sequence[LoadedAttachment]]:
    """Images that the HTML shows, and files: an inline image that it does not show would not be displayed at all."""
    if not any(one.content_id for one in attachments):
        return (), attachments
    # RFC 2392 §2: a content id in a URL is percent-encoded.
    shown = {unquote(html_entities.unescape(found)) for found in _CID.findall(html)}
    images: list[LoadedAttachment] = []
    files: list[LoadedAttachment] = []
    for one in attachments:
        (images if one.content_id and one.content_id in shown else files).append(one)
    return images, files


def _multipart(subtype: str, parts: Sequence[_Part]) -> _Part:
    # "=_" stands neither in Quoted-Printable nor in Base64 (RFC 2045 §6.7), and nobody who writes a text can know the
    # rest.
    boundary = f"=_{secrets.token_hex(16)}"
    delimiter = f"\r\n--{boundary}".encode("ascii")
    # RFC 2387 §3.1: related parts name the type of their first one.
    kind = ' type="text/html";\r\n' if subtype == "related" else ""
    pieces = []
    for part in parts:
        pieces += [delimiter, b"\r\n", checked_head(part.fields), b"\r\n", *part.body]
    pieces += [delimiter, b"--\r\n"]
    # The line break before the first delimiter is the empty line behind the head.
    pieces[0] = pieces[0][2:]
    return _Part([f'Content-Type: multipart/{subtype};{kind} boundary="{boundary}"\r\n'], pieces)


def _text_part(mimetype: str, text: str) -> _Part:
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    content = text.encode()
    if content.isascii() and b"\0" not in content and max(map(len, content.split(b"\n"))) <= MAX_LINE:
        encoding = "7bit"
    elif (len(content) - len(text)) * _OCTETS_TO_A_LATER_ONE <= len(content):
        # In text with CRLF it would break long lines at the first kind of line break that it finds.
        encoding, content = "quoted-printable", binascii.b2a_qp(content)
    else:
        # RFC 2045 §6.8: the line breaks of text are written as CRLF before.
        encoding, content = "base64", base64_lines(content.replace(b"\n", b"\r\n"))
    if encoding != "base64":
        content = content.replace(b"\n", b"\r\n")
    fields = [_text_type(mimetype), f"Content-Transfer-Encoding: {encoding}\r\n"]
    return _Part(fields, [checked_body(content)])


@lru_cache(maxsize=64)
def _text_type(mimetype: str) -> str:
    kind, parameters = media_type(mimetype)
    return with_parameters(f"Content-Type: {kind}", {"charset": "utf-8"} | parameters | {"charset": "utf-8"})


def _attachment_part(attachment: LoadedAttachment) -> _Part:
    kind, parameters = attachment.content_type
    fields = attachment_fields(
        kind,
        tuple(parameters.items()),
        attachment.filename,
        attachment.content_id,
        attachment.inline,
        attachment.description,
    )
    return _Part(fields, [attachment.base64])


def attachment_bytes(attachment: LoadedAttachment) -> bytes:
    """A part as it stands in a mail: its head, an empty line, and its content in Base64."""
    part = _attachment_part(attachment)
    return b"".join([checked_head(part.fields), b"\r\n", *part.body])
