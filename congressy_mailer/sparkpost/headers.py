"""SparkPost's ``X-MSYS-API`` header: the options of a mail that is sent over SMTP (API reference, "SMTP API").

The header is one JSON object. Whoever writes a mail may break a header's line at any space, and SparkPost reads one
space for every line break. So in the object as it is written, spaces stand only where JSON ignores them; those in a
text are written as escapes. No line may be longer than RFC 5322 §2.1.1 allows, which is why :mod:`.options` limits each
text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.smtp import EmailBackend

from ..conf import mailer_settings
from ..mime.syntax import ENCODED_WORD_START
from ..models import Message
from .options import with_message_key

#: Name of the header.
NAME = "X-MSYS-API"

#: Hosts of SparkPost's SMTP relay; enterprise accounts have names of their own under the second.
HOST = re.compile(r"(^|\.)(sparkpostmail|sparkpost)\.com$", re.IGNORECASE)

_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')


def sparkpost_keys(message: Message, *, has_unsubscribe_header: bool = False) -> dict[str, Any]:
    """The options of a message for SparkPost: the keys of its header, which are those of its HTTP API.

    Args:
        message: it.
        has_unsubscribe_header: whether the mail has a ``List-Unsubscribe``, which SparkPost leaves as it is in
            transactional mail only ("Gmail shows mailing list information", "Remove List-Unsubscribe Header").
    """
    options = dict(message.sparkpost.get("options", {}))
    keeps_header = has_unsubscribe_header and mailer_settings().SPARKPOST_UNSUBSCRIBE == "own"
    if message.transactional or keeps_header:
        # Then it adds no List-Unsubscribe of its own, and looks at the part of its suppression list that is for such.
        options["transactional"] = True
    keys: dict[str, Any] = {
        "campaign_id": message.campaign,
        "tags": message.tags,
        "metadata": with_message_key(message.metadata, message.id),
        "options": options,
    }
    copies = {key: value for key, value in message.sparkpost.items() if key != "options"}
    return {key: value for key, value in (keys | copies).items() if value}


def with_given_keys(keys: Mapping[str, Any], given: str | None) -> dict[str, Any]:
    """The keys for a mail whose author has written the header: his, and the mailer's own in the metadata.

    Args:
        keys: from :func:`sparkpost_keys`.
        given: the header's value, if there is one.
    """
    try:
        own = json.loads(given) if given else {}
    except ValueError:
        own = None
    if not isinstance(own, dict) or not isinstance(own.get("metadata", {}), dict):
        # SparkPost would refuse it; it is not ours to mend.
        return {}
    options = own.get("options") if isinstance(own.get("options"), dict) else {}
    merged = {
        **keys,
        **own,
        "options": {**keys.get("options", {}), **(options or {})},
        "metadata": {**own.get("metadata", {}), **keys.get("metadata", {})},
    }
    return {key: value for key, value in merged.items() if value}


def header_value(keys: Mapping[str, Any]) -> str:
    """The value of the header, in ASCII."""
    return _TEXT.sub(_escape_spaces, json.dumps(keys, allow_nan=False))


def _escape_spaces(text: re.Match[str]) -> str:
    # DEL is the one control character that JSON leaves as it is.
    written = text.group().replace(" ", "\\u0020").replace("\x7f", "\\u007f")
    # Some readers would decode what looks like an encoded word (RFC 2047).
    return written.replace(ENCODED_WORD_START, "=\\u003f")


def enabled_for(backend: BaseEmailBackend) -> bool:
    """Whether mail over this backend carries the header: only SparkPost removes it again."""
    when = mailer_settings().SPARKPOST_HEADER
    if when == "never" or not isinstance(backend, EmailBackend):
        return False
    return when == "always" or HOST.search(str(backend.host or "")) is not None
