"""Making the mail of one recipient from what a transmission has (API reference, "Transmissions")."""

from __future__ import annotations

import email.policy
import re
from base64 import b64decode
from collections.abc import Mapping
from email.header import Header
from email.message import EmailMessage, Message
from email.utils import formataddr, formatdate, make_msgid
from typing import Any

from .substitution import SubstitutionError, substitute

_LONE_BREAK = re.compile(rb"\r\n|\r|\n")


def data_of(transmission: Mapping[str, Any], recipient: Mapping[str, Any]) -> dict[str, Any]:
    """What may be put into a template: a recipient's own data before that of all, and data before metadata."""
    return {
        **(transmission.get("metadata") or {}),
        **(recipient.get("metadata") or {}),
        **(transmission.get("substitution_data") or {}),
        **(recipient.get("substitution_data") or {}),
        "address": recipient["address"],
    }


def generate(content: Mapping[str, Any], data: Mapping[str, Any], *, in_bodies: bool = True) -> bytes:
    """The mail as it goes out.

    Args:
        content: of the transmission.
        data: of the recipient.
        in_bodies: whether something is put into text and HTML, too, and not into headers alone: the option
            ``perform_substitutions``.

    Raises:
        SubstitutionError: a template in it cannot be rendered, or it is no mail.
    """
    if "email_rfc822" in content:
        return _from_rfc822(str(content["email_rfc822"]), data, in_bodies=in_bodies)
    try:
        return _from_parts(content, data, in_bodies=in_bodies)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SubstitutionError(f"the mail cannot be made: {error}") from None


def _from_rfc822(source: str, data: Mapping[str, Any], *, in_bodies: bool) -> bytes:
    """Substitution reaches the headers at the top, and the first text and HTML that are not attached: nothing else.

    What has no place to put something in goes out as it came, but for its line breaks.
    """
    raw = _LONE_BREAK.sub(b"\r\n", source.encode("utf-8", "surrogatepass"))
    message = email.message_from_bytes(raw, policy=email.policy.compat32.clone(linesep="\r\n"))
    changed = _substitute_headers(message, data)
    for subtype in ("plain", "html") if in_bodies else ():
        changed |= _substitute_first(message, subtype, data)
    return message.as_bytes(policy=email.policy.compat32.clone(linesep="\r\n", max_line_length=0)) if changed else raw


def _substitute_headers(message: Message, data: Mapping[str, Any]) -> bool:
    headers = message._headers  # type: ignore[attr-defined]
    changed = False
    for number, (name, value) in enumerate(headers):
        text = str(value)
        new = substitute(text, data) if "{{" in text else text
        if new != text:
            headers[number] = (name, new if new.isascii() else Header(new, "utf-8").encode(linesep="\r\n"))
            changed = True
    return changed


def _substitute_first(message: Message, subtype: str, data: Mapping[str, Any]) -> bool:
    for part in message.walk():
        if part.get_content_type() == f"text/{subtype}" and part.get_content_disposition() != "attachment":
            payload = part.get_payload(decode=True)
            assert isinstance(payload, bytes)
            charset = part.get_content_charset() or "utf-8"
            try:
                text = payload.decode(charset)
            except (LookupError, ValueError):
                return False
            if "{{" not in text:
                return False
            del part["Content-Transfer-Encoding"]
            part.set_payload(substitute(text, data, in_html=subtype == "html"), "utf-8")
            return True
    return False


def _from_parts(content: Mapping[str, Any], data: Mapping[str, Any], *, in_bodies: bool) -> bytes:
    message = EmailMessage(email.policy.SMTP)
    address = data["address"]
    message["From"] = _sender(content["from"], data)
    # A copy names the recipient whose copy it is.
    message["To"] = address.get("header_to") or formataddr((address.get("name", ""), address["email"]))
    message["Subject"] = substitute(str(content["subject"]), data)
    if content.get("reply_to"):
        message["Reply-To"] = substitute(str(content["reply_to"]), data)
    for name, value in (content.get("headers") or {}).items():
        message[name] = substitute(str(value), data)
    if "Date" not in message:
        message["Date"] = formatdate()
    if "Message-ID" not in message:
        message["Message-ID"] = make_msgid(domain="sparkpost.example")
    if content.get("text"):
        text = str(content["text"])
        message.set_content(substitute(text, data) if in_bodies else text)
    if content.get("html"):
        html = str(content["html"])
        html = substitute(html, data, in_html=True) if in_bodies else html
        add = message.add_alternative if content.get("text") else message.set_content
        add(html, subtype="html")
    for image in content.get("inline_images") or []:
        _add_file(message, image, disposition="inline", cid=f"<{image['name']}>")
    for attachment in content.get("attachments") or []:
        _add_file(message, attachment, disposition="attachment")
    return message.as_bytes()


def _sender(value: Any, data: Mapping[str, Any]) -> str:
    if isinstance(value, Mapping):
        return formataddr((substitute(str(value.get("name", "")), data), substitute(str(value["email"]), data)))
    return substitute(str(value), data)


def _add_file(message: EmailMessage, file: Mapping[str, Any], **options: Any) -> None:
    maintype, _, subtype = str(file["type"]).partition(";")[0].partition("/")
    message.add_attachment(
        b64decode(file["data"]), maintype=maintype, subtype=subtype, filename=str(file["name"]), **options
    )
