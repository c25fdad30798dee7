"""From a message stored as finished bytes to the mail that a transport hands over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..mime.parts import field_value
from ..mime.stored import StoredMail
from ..models import Message
from ..sparkpost.headers import NAME as SPARKPOST_HEADER
from ..sparkpost.headers import sparkpost_keys, with_given_keys


def stored_mail(message: Message, wire: bytes, attributes: Mapping[str, Any]) -> StoredMail:
    """The mail.

    Args:
        message: its envelope, and what its author gave.
        wire: its bytes.
        attributes: decoded, for other backends.
    """
    mail = StoredMail(
        wire,
        envelope=message.envelope,
        subject=message.subject,
        from_email=message.from_email,
        to=message.to,
        cc=message.cc,
        reply_to=message.reply_to,
        headers=message.headers,
        attributes=attributes,
    )
    mail.hops = message.attributes.get("hops", 0)
    mail.sparkpost = with_given_keys(sparkpost_keys(message), field_value(wire, SPARKPOST_HEADER))
    return mail
