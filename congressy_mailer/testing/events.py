"""SparkPost's events of a mail, simulated in a test and processed as if they had come to the webhook."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from ..models import Message
from ..sparkpost import MESSAGE_KEY
from ..tracking import inbox
from ..tracking.processing import process
from .mails import OutboxMail

# The class of events, the type, and fields that it has.
_EVENTS: dict[str, tuple[str, str, dict[str, str]]] = {
    "delivery": ("message_event", "delivery", {}),
    "delay": ("message_event", "delay", {"bounce_class": "24", "raw_reason": "451 4.4.1 no answer"}),
    "bounce": ("message_event", "bounce", {"bounce_class": "10", "raw_reason": "550 5.1.1 no such user"}),
    "soft bounce": ("message_event", "bounce", {"bounce_class": "22", "raw_reason": "552 5.2.2 mailbox full"}),
    "out of band": ("message_event", "out_of_band", {"bounce_class": "10", "raw_reason": "550 5.1.1 no such user"}),
    "complaint": ("message_event", "spam_complaint", {"fbtype": "abuse"}),
    "open": ("track_event", "open", {}),
    "click": ("track_event", "click", {"target_link_url": "https://www.example.com/"}),
    "unsubscribe": ("unsubscribe_event", "list_unsubscribe", {}),
}


def simulate(event: str, mail: OutboxMail | Message, recipient: str | None = None, **fields: Any) -> None:
    """Process an event of SparkPost for a mail, as if it had come to the webhook.

    Signals are sent when the transaction commits; in Django's ``TestCase``, within ``captureOnCommitCallbacks``.

    Args:
        event: ``"delivery"``, ``"delay"``, ``"bounce"``, ``"soft bounce"``, ``"out of band"``, ``"complaint"``,
            ``"open"``, ``"click"`` or ``"unsubscribe"``.
        mail: a mail that went through the queue.
        recipient: the recipient concerned; ``None``: the first one.
        fields: fields of SparkPost's event that override the defaults, such as ``bounce_class="30"``.

    Raises:
        ValueError: the event is unknown, or the mail did not go through the queue.
    """
    message = mail.message if isinstance(mail, OutboxMail) else mail
    if event not in _EVENTS or message is None:
        raise ValueError(
            f"{event!r} is not one of {', '.join(map(repr, _EVENTS))}."
            if message is not None
            else "The mail did not go through the queue: SparkPost's events find none that it could be."
        )
    kind, type_, usual = _EVENTS[event]
    told = {
        "type": type_,
        "event_id": str(uuid.uuid4()),
        "message_id": uuid.uuid5(message.id, recipient or "").hex[:20],
        "timestamp": str(int(time.time())),
        "rcpt_to": recipient or message.envelope[0],
        "rcpt_meta": {**message.metadata, MESSAGE_KEY: message.id.hex},
        **usual,
        **fields,
    }
    ticket = inbox.store("", json.dumps([{"msys": {kind: told}}]).encode(), 1)
    assert ticket is not None
    process(ticket)
    message.refresh_from_db()
