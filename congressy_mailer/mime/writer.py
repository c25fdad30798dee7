"""A mail of the common shape written as bytes at once, without Python's ``email``.

The common shape is a text, with HTML and attachments or without, and headers that can be read in one way only. What is
not of it, Django writes.

Everything is ASCII, with CRLF line breaks and lines that every server takes: none needs ``8BITMIME``, and none on the
way has a reason to write it anew, which would break its signature.
"""

from __future__ import annotations

import binascii
import email.policy
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.generator import BytesGenerator
from functools import lru_cache
from io import BytesIO
from typing import Any
from urllib.parse import quote

from django.core.mail import EmailMessage

from .addresses import CONTROL, ENCODED_WORD_START, MAX_LINE
from .attachments import CONTENT_ID, LoadedAttachment, base64_lines, is_composite
from .headers import address_field, cached_address_field, extra_field, text_field

# Quoted-Printable is the shorter one while at most one in so many octets is a character's second or a later one.
_OCTETS_TO_A_LATER_ONE = 6

_CHARSET = "utf-8''"
# Never within an escape, nor within a character.
_PERCENT_PIECE = re.compile("(?s).{1,45}(?<!%)(?<!%[0-9A-F])(?!%[89AB])")


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
        rendered: what it says.
        from_email: an address in normal form, as all of them are.
        to: addresses; may be empty, as ``cc`` and ``reply_to``.
        cc: addresses.
        reply_to: addresses.
        headers: all others, ``Date`` and ``Message-ID`` among them.
        attachments: read and checked.

    Raises:
        ValueError: it is not of the common shape.
    """
    if not rendered.text:
        raise ValueError("no text")
    fields = [text_field("Subject", rendered.subject), cached_address_field("From", (from_email,))]
    if to:
        fields.append(address_field("To", to))
    if cc:
        fields.append(address_field("Cc", cc))
    if reply_to:
        fields.append(cached_address_field("Reply-To", tuple(reply_to)))
    fields += [extra_field(name, value) for name, value in headers.items()]
    fields.append("MIME-Version: 1.0\r\n")
    content = _text_part("plain", rendered.text)
    if rendered.html:
        content = _multipart("alternative", [content, _text_part("html", rendered.html)])
    if attachments:
        content = _multipart("mixed", [content, *map(_attachment_part, attachments)])
    return b"".join(["".join(fields).encode("ascii"), *content])


def _multipart(subtype: str, parts: Sequence[list[bytes]]) -> list[bytes]:
    # "=_" stands neither in Quoted-Printable nor in Base64 (RFC 2045 §6.7), and nobody who writes a text can know the
    # rest.
    boundary = f"=_{secrets.token_hex(16)}".encode()
    pieces = [b'Content-Type: multipart/%s; boundary="%s"\r\n' % (subtype.encode(), boundary)]
    for part in parts:
        pieces += [b"\r\n--%s\r\n" % boundary, *part]
    pieces.append(b"\r\n--%s--\r\n" % boundary)
    return pieces


def _text_part(subtype: str, text: str) -> list[bytes]:
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    content = text.encode()
    if content.isascii() and b"\0" not in content and max(map(len, content.split(b"\n"))) <= MAX_LINE:
        encoding = "7bit"
    elif (len(content) - len(text)) * _OCTETS_TO_A_LATER_ONE <= len(content):
        # In one with CRLF it would break long lines with whatever line break it finds first.
        encoding, content = "quoted-printable", binascii.b2a_qp(content)
    else:
        # RFC 2045 §6.8: the line breaks of text are written as CRLF before.
        encoding, content = "base64", base64_lines(content.replace(b"\n", b"\r\n"))
    if encoding != "base64":
        content = content.replace(b"\n", b"\r\n")
    head = f'Content-Type: text/{subtype}; charset="utf-8"\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n'
    return [head.encode(), content]


def _attachment_part(attachment: LoadedAttachment) -> list[bytes]:
    kind, parameters = attachment.content_type
    head = _attachment_head(kind, tuple(parameters.items()), attachment.filename, attachment.content_id)
    return [head, attachment.base64]


@lru_cache(maxsize=256)
def _attachment_head(kind: str, parameters: tuple[tuple[str, str], ...], filename: str, content_id: str) -> bytes:
    """Everything of an attachment but its content, which the mails of a batch have in common."""
    if is_composite(kind):
        raise ValueError(f"{kind} may not be written in Base64")
    if not all(value for _, value in parameters):
        raise ValueError(f"{kind} has a parameter without value")
    disposition = [f"Content-Disposition: {'inline' if content_id else 'attachment'}", *_filename(filename)]
    fields = [
        ";\r\n ".join([f"Content-Type: {kind}", *(f'{name}="{value}"' for name, value in parameters)]),
        "Content-Transfer-Encoding: base64",
        ";\r\n ".join(disposition),
    ]
    if content_id:
        if not CONTENT_ID.fullmatch(content_id):
            raise ValueError(f"{content_id!r} is not a content id")
        fields.append(f"Content-ID: <{content_id}>")
    head = "\r\n".join(fields)
    if ENCODED_WORD_START in head or max(map(len, head.split("\r\n"))) > MAX_LINE:
        raise ValueError("an attachment's header that could be read in two ways, or not at all")
    return f"{head}\r\n\r\n".encode("ascii")


def _filename(filename: str) -> list[str]:
    """The file's name as parameters of its disposition: one, or as many as it takes (RFC 2231 §3 and §4)."""
    if CONTROL.search(filename):
        raise ValueError("a file name that has control characters")
    if not filename:
        return []
    if filename.isascii():
        quoted = filename.replace("\\", "\\\\").replace('"', '\\"')
        return [f'filename="{quoted}"']
    pieces = _PERCENT_PIECE.findall(quote(filename, safe=""))
    if len(pieces) == 1:
        return [f"filename*={_CHARSET}{pieces[0]}"]
    return [f"filename*{number}*={'' if number else _CHARSET}{piece}" for number, piece in enumerate(pieces)]


@dataclass(frozen=True, slots=True)
class MailContent:
    """What a mail says."""

    #: One line, without HTML's entities.
    subject: str = field(repr=False)
    #: Plain text.
    text: str = field(repr=False)
    #: Empty where the mail is text only.
    html: str = field(repr=False)


_SEVEN_BIT = email.policy.compat32.clone(cte_type="7bit")

_LINE_BREAK = re.compile(rb"\r\n|\r|\n")


def as_bytes(mail: EmailMessage, *, eight_bit: bool) -> bytes:
    """A mail with CRLF line breaks, as it arrives: dots are not doubled.

    Args:
        mail: one of ours, or any of Django's.
        eight_bit: it may have characters that are not ASCII.
    """
    content: bytes | None = getattr(mail, "wire", None)
    if content is not None:
        return content
    content = _flatten(mail.message())
    if not eight_bit and not content.isascii():
        # As it was read back, since the message classes of Django before 6.0 cannot be written so.
        content = _flatten(email.message_from_bytes(content, policy=_SEVEN_BIT))
    return _with_crlf(content)


def _flatten(message: Any) -> bytes:
    buffer = BytesIO()
    BytesGenerator(buffer, mangle_from_=False).flatten(message, linesep="\r\n")
    return buffer.getvalue()


def _with_crlf(content: bytes) -> bytes:
    if not content.count(b"\r\n") == content.count(b"\r") == content.count(b"\n"):
        # RFC 5321 §2.3.8 allows CR and LF in pairs only: where servers differ about a single one, one mail can
        # pass for two.
        content = _LINE_BREAK.sub(b"\r\n", content)
    return content
