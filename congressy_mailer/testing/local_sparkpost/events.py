"""Events as SparkPost writes them (API reference, "Event Webhooks"): numbers are texts, addresses in lower case."""

from __future__ import annotations

import email
import random
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from email.utils import parseaddr
from typing import Any

from .fates import Happening
from .heads import read_head

#: Class of an event by its type.
CLASSES = {
    **dict.fromkeys(
        ["injection", "delivery", "bounce", "delay", "out_of_band", "policy_rejection", "spam_complaint"],
        "message_event",
    ),
    **dict.fromkeys(["open", "initial_open", "click", "amp_open", "amp_initial_open", "amp_click"], "track_event"),
    **dict.fromkeys(["generation_failure", "generation_rejection"], "gen_event"),
    **dict.fromkeys(["list_unsubscribe", "link_unsubscribe"], "unsubscribe_event"),
}

_LINK = re.compile(r"""<a\s[^>]*?href=["'](https?://[^"'\s]+)""", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class AcceptedMail:
    """A mail that SparkPost has taken for one recipient."""

    #: As it was given.
    recipient: str
    #: SparkPost's own id of it; not the ``Message-ID`` header.
    message_id: str
    #: Of all mails of one call, or one SMTP transaction.
    transmission_id: str
    #: ``smtp`` or ``rest``.
    received_by: str
    sender: str
    subject: str
    size: int
    #: The first link in its HTML; empty: none.
    link: str = ""
    campaign: str = ""
    tags: Sequence[str] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    #: ``cc``, ``bcc`` or ``archive`` for a copy that the mail's options asked for; empty otherwise.
    kind: str = ""

    @property
    def transactional(self) -> bool:
        """Not, unless it was said (SMTP API reference, "Transmissions")."""
        return self.options.get("transactional") is True


def content_fields(content: bytes) -> dict[str, Any]:
    """What SparkPost sees in a mail: fields of :class:`AcceptedMail`."""
    # Most large mails have no HTML, and reading them takes seconds.
    message = email.message_from_bytes(content) if b"text/html" in content.lower() else read_head(content)
    return {"sender": sender_of(message), "subject": str(message["Subject"] or ""), "link": _first_link(message)}


def sender_of(message: Message) -> str:
    """The address of its ``From``."""
    return parseaddr(str(message["From"] or ""))[1]


def _first_link(message: Message) -> str:
    for part in message.walk():
        if part.get_content_type() == "text/html":
            payload = part.get_payload(decode=True)
            found = _LINK.search(payload.decode(errors="replace")) if isinstance(payload, bytes) else None
            if found:
                return found[1].replace("&amp;", "&")
    return ""


def key_fields(keys: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a mail, from SMTP or HTTP: fields of :class:`AcceptedMail`."""
    return {
        "campaign": keys.get("campaign_id") or "",
        "tags": keys.get("tags") or [],
        "metadata": keys.get("metadata") or {},
        "options": keys.get("options") or {},
    }


def event_batch(
    mail: AcceptedMail, happenings: Sequence[Happening], *, now: int, rng: random.Random
) -> Iterator[dict[str, Any]]:
    """The events of one mail.

    Args:
        mail: it.
        happenings: what happened to it, in order.
        now: Unix seconds. What takes minutes out there has happened just before, a second after the other, the last of
            it now.
        rng: where ids come from; the same seed gives the same ones.
    """
    first = now - len(happenings) + 1
    retries = 0
    for number, happening in enumerate(happenings):
        retries += happening.type == "delay"
        event = {
            "type": happening.type,
            "event_id": _event_id(rng),
            "timestamp": str(first + number),
            "rcpt_to": mail.recipient.lower(),
            "raw_rcpt_to": mail.recipient,
            "rcpt_meta": mail.metadata,
            "rcpt_tags": list(mail.tags),
            "campaign_id": mail.campaign,
            "transmission_id": mail.transmission_id,
            "message_id": mail.message_id,
            "msg_from": mail.sender,
            "friendly_from": mail.sender,
            "msg_size": str(mail.size),
            "subject": mail.subject,
            "num_retries": str(retries),
            "routing_domain": mail.recipient.rpartition("@")[2].lower(),
            "recv_method": "esmtp" if mail.received_by == "smtp" else "rest",
            "transactional": "1" if mail.transactional else "0",
            "ip_address": "127.0.0.1",
            "customer_id": "1",
            **happening.fields,
        }
        if mail.kind:
            event["rcpt_type"] = mail.kind
        yield {"msys": {CLASSES[happening.type]: event}}


def _event_id(rng: random.Random) -> str:
    """A large integer, or a UUID: there are both."""
    if rng.random() < 0.5:
        return str(rng.randrange(10**16, 10**17))
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))
