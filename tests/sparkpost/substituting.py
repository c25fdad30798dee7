"""A model of what SparkPost makes of a transmission, from its pages "Transmissions" and "Template Language"."""

from __future__ import annotations

import email
import email.policy
import re
from dataclasses import dataclass
from email.header import decode_header, make_header
from email.message import EmailMessage
from typing import Any

_EXPRESSION = re.compile(r"\{\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}\}|\{\{.*?\}\}|\{\{|\}\}", re.DOTALL)


class LanguageError(Exception):
    """SparkPost would read something as its language that was not meant so."""


@dataclass
class Received:
    """What one recipient has."""

    address: str
    headers: dict[str, str]
    text: str
    html: str
    metadata: dict[str, Any]
    mail: EmailMessage


def render(text: str, values: dict[str, str]) -> str:
    """Expressions replaced by their values, which are not looked at again."""

    def value(found: re.Match[str]) -> str:
        if found.group(1) is None:
            raise LanguageError(found.group())
        # Of a name that has no value, SparkPost makes nothing; here it would be a mistake.
        return values[found.group(1)]

    return _EXPRESSION.sub(value, text)


def received(request: dict[str, Any]) -> list[Received]:
    """What each recipient of a transmission gets."""
    found = []
    for recipient in request["recipients"]:
        values = {**request.get("substitution_data", {}), **recipient.get("substitution_data", {})}
        mail = email.message_from_string(request["content"]["email_rfc822"], policy=email.policy.default)
        raw = email.message_from_string(request["content"]["email_rfc822"], policy=email.policy.compat32)
        substituted = request["options"].get("perform_substitutions", True)
        headers = {}
        for name, header in raw.items():
            unfolded = re.sub(r"\r?\n", "", header)
            # Decoded first, since the language may be in what is encoded.
            expanded = render(str(make_header(decode_header(unfolded))), values)
            headers[name] = str(make_header(decode_header(expanded)))
        parts = {}
        for part in mail.walk():
            kind = part.get_content_type()
            if kind in ("text/plain", "text/html") and kind not in parts and not part.is_attachment():
                content = part.get_content()
                parts[kind] = render(content, values) if substituted else content
        found.append(
            Received(
                recipient["address"]["email"], headers, parts.get("text/plain", ""), parts.get("text/html", ""),
                recipient.get("metadata", {}), mail,
            )
        )  # fmt: skip
    return found
