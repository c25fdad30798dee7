"""The options of a mail that comes over SMTP: its ``X-MSYS-API`` header (SMTP API reference)."""

from __future__ import annotations

import json
import re
from typing import Any

from .heads import split_head

_HEADER = re.compile(rb"(?im)^x-msys-api:[ \t]*((?:.*(?:\r\n|\n|\Z)(?:[ \t].*(?:\r\n|\n|\Z))*))")
_FOLD = re.compile(rb"\r?\n[ \t]+")

#: Bytes of ``campaign_id`` (support article "Error messages when using SMTP").
MAX_CAMPAIGN_BYTES = 64
#: Addresses in ``cc``, ``bcc`` and ``archive`` together (SMTP API reference).
MAX_COPIES = 1000
#: Tags of a recipient (SMTP API reference).
MAX_TAGS = 10


class BadHeader(ValueError):
    """The header is refused; the text is the reply, in the words of the article "Error messages when using SMTP"."""


def split_header(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Read the header, and the mail without it, as it goes on to its recipients.

    When it is unfolded, one space is read for each fold (SMTP API reference).

    Raises:
        BadHeader: it is no JSON object, or breaks a limit.
    """
    head, _ = split_head(content)
    found = _HEADER.search(head)
    if found is None:
        return {}, content
    try:
        keys = json.loads(_FOLD.sub(b" ", found[1].rstrip(b"\r\n")).decode())
    except (ValueError, RecursionError):
        raise BadHeader("550 5.6.0 JSON parsing error in X-MSYS-API") from None
    if not isinstance(keys, dict):
        raise BadHeader("550 5.6.0 JSON parsing error in X-MSYS-API")
    _check(keys)
    return keys, content[: found.start()] + content[found.end() :]


def _check(keys: dict[str, Any]) -> None:
    campaign = keys.get("campaign_id", "")
    if not isinstance(campaign, str) or len(campaign.encode("utf-8", "surrogatepass")) > MAX_CAMPAIGN_BYTES:
        raise BadHeader("550 5.6.0 smtpapi_campaign_id context is limited to 64 bytes")
    for key in ("metadata", "options"):
        if not isinstance(keys.get(key, {}), dict):
            raise BadHeader(f"550 5.6.0 {key} in X-MSYS-API must be an object")
    tags = keys.get("tags", [])
    if not isinstance(tags, list) or len(tags) > MAX_TAGS or not all(isinstance(tag, str) for tag in tags):
        raise BadHeader(f"550 5.6.0 tags in X-MSYS-API must be at most {MAX_TAGS} texts")
    copies = [copy for kind in ("cc", "bcc", "archive") for copy in _list(keys.get(kind, []))]
    if len(copies) > MAX_COPIES or not all(map(address_of, copies)):
        raise BadHeader(f"550 5.6.0 cc, bcc and archive in X-MSYS-API must be at most {MAX_COPIES} addresses")


def copies_of(keys: dict[str, Any]) -> list[tuple[str, str]]:
    """Who gets a message of their own beside the envelope's recipients: address and ``rcpt_type``."""
    return [(address_of(copy), kind) for kind in ("cc", "bcc", "archive") for copy in keys.get(kind, [])]


def address_of(one: object) -> str:
    """An address that is given by itself or with a name; empty where it is none."""
    address = one.get("email") if isinstance(one, dict) else one
    return address if isinstance(address, str) and re.fullmatch(r"[^@\s<>]+@[^@\s<>]+", address) else ""


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else [None]
