"""Events as SparkPost posts them, for what tests post to the webhook."""

from __future__ import annotations

import hashlib
import json
import random
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from congressy_mailer.models import Event, Message, RecipientStatus, Suppression, SuppressionRemoval
from congressy_mailer.sparkpost import MESSAGE_KEY

#: A second from which those of a test are counted.
START = 1_780_000_000

_CLASSES = {
    "open": "track_event",
    "initial_open": "track_event",
    "click": "track_event",
    "list_unsubscribe": "unsubscribe_event",
    "link_unsubscribe": "unsubscribe_event",
    "generation_rejection": "gen_event",
}

#: What may happen to one mail, in order: the type, and what is told with it.
STORIES: tuple[Sequence[tuple[str, dict[str, Any]]], ...] = (
    [("injection", {}), ("delivery", {})],
    [("injection", {}), ("delay", {"raw_reason": "451 later"}), ("delivery", {}), ("initial_open", {}), ("open", {})],
    [("injection", {}), ("bounce", {"bounce_class": "10", "raw_reason": "550 5.1.1 no such user"})],
    [("injection", {}), ("delay", {}), ("delay", {}), ("bounce", {"bounce_class": "22", "raw_reason": "full"})],
    [("injection", {}), ("delivery", {}), ("out_of_band", {"bounce_class": "30", "raw_reason": "gone"})],
    [("injection", {}), ("delivery", {}), ("initial_open", {}), ("spam_complaint", {"fbtype": "abuse"})],
    [("injection", {}), ("delivery", {}), ("click", {"target_link_url": "https://x.example/"}), ("open", {})],
    [("injection", {}), ("delivery", {}), ("open", {}), ("link_unsubscribe", {}), ("list_unsubscribe", {})],
    [("generation_rejection", {"raw_reason": "suppressed"})],
    [("something_new", {"of": {"another": "kind"}})],
)


def event(type: str, message: Message | None = None, at: int = 0, recipient: str = "", **fields: Any) -> dict[str, Any]:
    """One event.

    Args:
        type: SparkPost's name of it.
        message: whose it is; ``None``: a mail's that is none of ours.
        at: seconds after :data:`START`.
        recipient: the message's first, unless given.
        fields: further ones.
    """
    metadata = {MESSAGE_KEY: message.id.hex, "order": "17"} if message else {}
    address = recipient or (message.recipients[0] if message else "somebody@example.net")
    name = f"{message.id if message else random.getrandbits(60)} {address.lower()}"
    defaults = {
        "type": type,
        "event_id": str(random.getrandbits(60)),
        "timestamp": str(START + at),
        "rcpt_to": address,
        "rcpt_meta": metadata,
        "message_id": hashlib.sha256(repr(name).encode()).hexdigest()[:20],
        "ip_address": "198.51.100.7",
    }
    return {"msys": {_CLASSES.get(type, "message_event"): defaults | fields}}


def batch_body(*events: dict[str, Any]) -> bytes:
    """A batch."""
    return json.dumps(events).encode()


def moment(at: int) -> datetime:
    """Seconds after :data:`START`."""
    return datetime.fromtimestamp(START + at, UTC)


def history(messages: Sequence[Message], draw: random.Random) -> list[dict[str, Any]]:
    """What happened to these messages, in order, with a story for each of their recipients."""
    events = []
    for message in messages:
        for recipient in message.recipients:
            for step, (type, fields) in enumerate(draw.choice(STORIES)):
                # Some happen in the same second.
                at = draw.randrange(0, 1000) + step * draw.choice((0, 1, 5000))
                key = str(uuid.UUID(int=draw.getrandbits(128)))
                events.append((at, event(type, message, at, recipient, event_id=key, **fields)))
    return [one for _, one in sorted(events, key=lambda pair: pair[0])]


def shuffled(events: Sequence[dict[str, Any]], draw: random.Random, repeats: float = 0.2) -> list[dict[str, Any]]:
    """The same in any order, and so many of them twice."""
    mixed = [*events, *draw.sample(events, round(len(events) * repeats))]
    draw.shuffle(mixed)
    return mixed


def end_state() -> dict[str, Any]:
    """Everything that events have led to, apart from what is new each time: our own keys and the time of processing."""
    statuses = RecipientStatus.objects.order_by("message_id", "recipient").values_list(
        "message_id", "recipient", "arrival", "arrival_at", "arrival_key", "detail", "bounce_class", "bounce_category",
        "opened_at", "clicked_at", "unsubscribed_at", "complained_at",
    )  # fmt: skip
    events = Event.objects.exclude(key=None).order_by("key")
    suppressions = Suppression.objects.order_by("address", "scope", "list_id", "source")
    return {
        "statuses": list(statuses),
        "events": list(events.values_list("key", "message_id", "type", "at", "recipient", "detail", "bounce_class")),
        "messages": list(Message.objects.order_by("id").values_list("id", "delivery", "state")),
        "suppressions": list(suppressions.values_list("address", "scope", "list_id", "source", "reason", "created_at")),
    }


def forget() -> None:
    """Undo all of it."""
    RecipientStatus.objects.all().delete()
    Event.objects.exclude(key=None).delete()
    Suppression.objects.all().delete()
    SuppressionRemoval.objects.all().delete()
    Message.objects.update(delivery="")
