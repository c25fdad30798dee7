"""Mails → requests to SparkPost's Transmissions API: one mail in a call, or many of a batch (API reference).

A mail goes as the same bytes that SMTP would carry (``email_rfc822``), without dots doubled. Recipients, campaign,
tags, metadata and options stand beside it, as the ``X-MSYS-API`` header would have said them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from email.header import decode_header, make_header
from io import BytesIO
from typing import Any

from ..exceptions import InvalidAddress
from ..mime.addresses import split_address
from ..mime.outgoing import OutgoingMail
from ..mime.syntax import MAX_LINE
from ..mime.writer import MailContent, write
from .options import COPIES
from .substitution import BRACES, SharedContent

#: Recipients of one transmission: SparkPost takes more, and asks for no more at once ("SMTP and REST API Injection Best
#: Practices").
MAX_RECIPIENTS = 2000

# Characters.
_ENCODED_AT_ONCE = 1_000_000

_FIELD_END = re.compile(rb"\r\n(?![ \t])")
_ENCODED_WORD = re.compile(rf"=\?[^?\s]+\?[bBqQ]\?[^?\s]*\?=|{BRACES.pattern}")
# They say how the content is written, and are written with it.
_CONTENT_FIELDS = {"content-type", "content-transfer-encoding"}
_LINK = re.compile("https?://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TransmissionMail:
    """A mail as the API needs it."""

    #: Its bytes, with CRLF line breaks: ASCII, or UTF-8 where the host has written and signed it.
    content: bytes
    #: The addresses that it goes to, in ASCII.
    recipients: Sequence[str]
    #: Those of them that its ``To`` names; the others are copies.
    to: Sequence[str] = ()
    #: Its options for SparkPost, as :func:`.headers.sparkpost_keys` returns them.
    keys: Mapping[str, Any] | None = None


def transmission(mail: TransmissionMail) -> dict[str, Any]:
    """The request for one mail, which arrives as it is.

    Substitution is switched off for its content; SparkPost does it in the headers all the same.
    """
    keys = mail.keys or {}
    shared = SharedContent()
    head, rest = _split(mail.content)
    content = b"".join([b"\r\n".join(_escape_field(field, shared) for field in head), rest]).decode()
    recipients = [_recipient(address, keys, to=mail.to) for address in mail.recipients]
    copies = [copy for name in COPIES for copy in keys.get(name, ())]
    recipients += [_recipient(copy["email"], keys, to=mail.to, name=copy.get("name")) for copy in copies]
    return _request(keys, recipients, content, shared, perform_substitutions=False)


def batch_transmission(mails: Sequence[OutgoingMail], addresses: Sequence[str]) -> dict[str, Any] | None:
    """The request for several mails at once, each with one recipient, for which :func:`grouping_key` is the same.

    What they have in common is said once, and what differs is each recipient's substitution data. Readers get what they
    would have got alone: each its own headers, among them ``Message-ID`` and the link to unsubscribe.

    Args:
        mails: of one batch.
        addresses: of their recipients, in ASCII and in the same order.

    Returns:
        ``None`` where one cannot be said in such a way.
    """
    shared = SharedContent(len(mails))
    first = mails[0]
    heads = [_header_fields(mail) for mail in mails]
    fields = _common_fields(heads, shared)
    if fields is None:
        return None
    texts = [_bodies(mail) for mail in mails]
    header_values = {name for own in shared.own_values for name in own}
    text = shared.text([text for text, _ in texts])
    html = shared.text([html for _, html in texts])
    if first.sparkpost.get("options", {}).get("click_tracking") and _has_link(
        shared.own_values, ignoring=header_values
    ):
        # SparkPost follows no link that stands in a value ("Template Language", "Links in Variables").
        return None
    written = write(
        MailContent("-", text, html), from_email=first.from_email, to=(), cc=(), reply_to=(), headers={},
        attachments=first.files,
    )  # fmt: skip
    content_fields, body = _split(written)
    fields += [field for field in content_fields if _field_name(field) in _CONTENT_FIELDS]
    recipients = [
        _recipient(address, mail.sparkpost, values=own)
        for address, mail, own in zip(addresses, mails, shared.own_values, strict=True)
    ]
    content = b"".join([b"\r\n".join(fields), body]).decode("ascii")
    return _request(first.sparkpost, recipients, content, shared)


def grouping_key(mail: OutgoingMail) -> object | None:
    """Equal for mails that may share a call; ``None`` for one that goes alone."""
    if mail.batch is None or len(mail.envelope) != 1 or mail.cc or mail.content.alternatives:
        return None
    if len(mail.to) != 1 or any(mail.sparkpost.get(name) for name in COPIES):
        return None
    text, html = _bodies(mail)
    # A filled-in value may make a line too long, and SparkPost does not break lines.
    if max(map(len, f"{text}\n{html}".encode().split(b"\n"))) > MAX_LINE:
        return None
    return (
        mail.batch,
        text.count("\n"),
        html.count("\n") if html else -1,
        tuple(map(id, mail.files)),
        mail.sparkpost.get("campaign_id"),
        json.dumps(mail.sparkpost.get("options", {}), sort_keys=True),
        tuple(map(_field_name, _header_fields(mail))),
    )


def encode_request(request: Mapping[str, Any]) -> bytes:
    """The body of the request."""
    content = request["content"]["email_rfc822"]
    written = BytesIO()
    written.write(_json({name: value for name, value in request.items() if name != "content"})[:-1])
    written.write(b', "content": {"email_rfc822": "')
    # A part at a time: as a whole it would be copied at each step.
    for start in range(0, len(content), _ENCODED_AT_ONCE):
        written.write(_json(content[start : start + _ENCODED_AT_ONCE])[1:-1])
    written.write(b'"}}')
    return written.getvalue()


def _json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _request(
    keys: Mapping[str, Any],
    recipients: list[dict[str, Any]],
    content: str,
    shared: SharedContent,
    **options: bool,
) -> dict[str, Any]:
    request: dict[str, Any] = {
        # Off unless asked for, as over SMTP; here SparkPost's own default is another.
        "options": {"open_tracking": False, "click_tracking": False, **keys.get("options", {}), **options},
        "recipients": recipients,
        "content": {"email_rfc822": content},
    }
    if shared.common_values:
        request["substitution_data"] = shared.common_values
    if keys.get("campaign_id"):
        request["campaign_id"] = keys["campaign_id"]
    return request


def _recipient(
    address: str,
    keys: Mapping[str, Any],
    *,
    to: Iterable[str] = (),
    name: str | None = None,
    values: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    where: dict[str, Any] = {"email": address}
    if name:
        where["name"] = name
    if to and address not in to:
        # That it is a copy, and of what ("CC, BCC and Archive with the REST API").
        where["header_to"] = ",".join(to)
    recipient: dict[str, Any] = {"address": where}
    if keys.get("metadata"):
        recipient["metadata"] = keys["metadata"]
    if keys.get("tags"):
        recipient["tags"] = keys["tags"]
    if values:
        recipient["substitution_data"] = values
    return recipient


def to_addresses(addresses: Iterable[str]) -> list[str]:
    """The addresses of a ``To`` as the API names them; one that has no such form is left out."""
    found = []
    for address in addresses:
        try:
            found.append(split_address(address)[1])
        except InvalidAddress:
            continue
    return found


def _split(content: bytes) -> tuple[list[bytes], memoryview]:
    """Header fields without the line break at their end, and what comes after them, from that line break on."""
    end = content.find(b"\r\n\r\n")
    end = len(content) if end < 0 else end
    return _FIELD_END.split(content[:end]), memoryview(content)[end:]


def _header_fields(mail: OutgoingMail) -> list[bytes]:
    return [field for field in _split(mail.wire)[0] if _field_name(field) not in _CONTENT_FIELDS]


def _field_name(field: bytes) -> str:
    return field.partition(b":")[0].decode().lower()


def _common_fields(heads: Sequence[list[bytes]], shared: SharedContent) -> list[bytes] | None:
    fields = []
    for variants in zip(*heads, strict=True):
        if len(set(variants)) == 1:
            fields.append(_escape_field(variants[0], shared))
            continue
        # RFC 5322 §2.2.3: without the line breaks it is the same.
        lines = [field.replace(b"\r\n", b"").decode("ascii") for field in variants]
        if max(map(len, lines)) > MAX_LINE:
            return None
        name = lines[0].partition(":")[0]
        values = [line.partition(":")[2].lstrip(" ") for line in lines]
        fields.append(f"{name}: {shared.per_mail(values)}".encode("ascii"))
    return fields


def _escape_field(field: bytes, shared: SharedContent) -> bytes:
    """The field, so that nothing in it is read as the template language, also where it is encoded (RFC 2047)."""
    if _field_name(field) in _CONTENT_FIELDS:
        return field
    text = field.decode()
    if not any(map(_may_be_template, _ENCODED_WORD.findall(text))):
        return field
    # All encoded words of it: beside one that stays, what is put in would be encoded a second time.
    return _ENCODED_WORD.sub(lambda found: shared.constant(found.group()), text).encode()


def _may_be_template(piece: str) -> bool:
    """Whether braces, or an encoded word, may be read as the template language or as a part of it."""
    if not piece.startswith("=?"):
        return True
    try:
        decoded = str(make_header(decode_header(piece)))
    except (LookupError, ValueError):
        return True
    # Its neighbour may have the other brace.
    return "{" in decoded or "}" in decoded


def _bodies(mail: OutgoingMail) -> tuple[str, str]:
    return _with_line_feeds(mail.content.text), _with_line_feeds(mail.content.html)


def _with_line_feeds(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _has_link(own: Iterable[Mapping[str, str]], *, ignoring: set[str]) -> bool:
    return any(_LINK.search(value) for values in own for name, value in values.items() if name not in ignoring)
