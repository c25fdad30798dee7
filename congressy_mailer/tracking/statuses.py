"""What became of each recipient, and of a message: the earliest or the latest of what its events say, in any order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from uuid import UUID

from django.db import connections

from ..mime.addresses import comparable_address
from ..models import DeliveryStatus, Message, RecipientStatus
from ..models.transactions import database
from ..outbox.rows import rows
from ..sparkpost.events import ParsedEvent
from ..sparkpost.options import COPIES
from .bounces import Type
from .returns import without_taken_back

Arrival = RecipientStatus.Arrival

_ARRIVALS: Mapping[str, Arrival] = {
    Type.DELAYED: Arrival.DELAYED,
    Type.DELIVERED: Arrival.DELIVERED,
    Type.NOT_TRIED: Arrival.REJECTED,
    Type.BOUNCED: Arrival.BOUNCED,
}
# Between events of the same second: what comes later in the life of a mail.
_RANKS: Mapping[str, int] = {arrival: rank for rank, arrival in enumerate(["", *_ARRIVALS.values()])}
_FIRST_TIMES: Mapping[str, str] = {
    Type.OPENED: "opened_at",
    Type.CLICKED: "clicked_at",
    Type.UNSUBSCRIBED: "unsubscribed_at",
    Type.COMPLAINED: "complained_at",
}
_UPDATED_FIELDS = [
    "arrival", "arrival_at", "arrival_key", "detail", "bounce_class", "bounce_category", *_FIRST_TIMES.values(),
]  # fmt: skip
# What most needs attention among several recipients comes last.
_BY_SEVERITY = [
    "", DeliveryStatus.DELIVERED, DeliveryStatus.OPENED, DeliveryStatus.CLICKED, DeliveryStatus.DELAYED,
    DeliveryStatus.UNSUBSCRIBED, DeliveryStatus.REJECTED, DeliveryStatus.BOUNCED, DeliveryStatus.COMPLAINED,
]  # fmt: skip


def most_severe(statuses: Iterable[RecipientStatus]) -> str:
    """What of all recipients' most needs attention."""
    return str(max((status.delivery for status in statuses), key=_BY_SEVERITY.index, default=""))


def update_statuses(messages: Mapping[UUID, Message], new: Iterable[ParsedEvent]) -> None:
    """Bring the statuses of recipients and messages to what the events say. The messages are locked."""
    by_message: dict[UUID, list[ParsedEvent]] = defaultdict(list)
    addresses = {key: _addresses(message) for key, message in messages.items()}
    for parsed in without_taken_back(messages, new):
        key = parsed.event.message
        # Another address says nothing of the message's own: it is in its event alone.
        if key and (parsed.address in addresses[key] or _is_unknown_copy(messages[key], parsed)):
            by_message[key].append(parsed)
    statuses: dict[UUID, dict[str, RecipientStatus]] = defaultdict(dict)
    for status in RecipientStatus.objects.using(database()).filter(message__in=sorted(by_message)):
        statuses[status.message_id][status.recipient] = status
    changed: dict[UUID, RecipientStatus] = {}
    deliveries: dict[str, list[UUID]] = defaultdict(list)
    for key, events in by_message.items():
        known = statuses[key]
        for parsed in events:
            status = known.get(parsed.address) or RecipientStatus(message_id=key, recipient=parsed.address)
            if _apply(status, parsed):
                known[parsed.address] = changed[status.id] = status
        delivery = most_severe(known.values())
        if delivery != messages[key].delivery:
            deliveries[delivery].append(key)
    _save(changed.values())
    for delivery, keys in deliveries.items():
        rows(keys).update(delivery=delivery)


def _addresses(message: Message) -> set[str]:
    """All addresses that it goes to, with those of the copies that SparkPost makes."""
    copies = [copy for name in COPIES for copy in message.sparkpost.get(name, ())]
    addresses = (one["email"] if isinstance(one, dict) else one for one in copies)
    return set(map(comparable_address, (*message.recipients, *addresses)))


def _is_unknown_copy(message: Message, parsed: ParsedEvent) -> bool:
    """Whether it may be a copy whose address is not known any more."""
    return parsed.is_copy and message.content_dropped_at is not None and bool(parsed.address)


def _apply(status: RecipientStatus, parsed: ParsedEvent) -> bool:
    """Whether the event changes what is known."""
    event = parsed.event
    first = _FIRST_TIMES.get(event.type)
    if first is not None:
        known: datetime | None = getattr(status, first)
        if known is not None and known <= event.at:
            return False
        setattr(status, first, event.at)
        return True
    arrival = _ARRIVALS.get(event.type)
    if arrival is None:
        return False
    if status.arrival_at is not None:
        before = (status.arrival_at, _RANKS[status.arrival], status.arrival_key)
        if before >= (event.at, _RANKS[arrival], parsed.key):
            return False
    status.arrival, status.arrival_at, status.arrival_key = arrival, event.at, parsed.key
    status.detail = event.reason
    status.bounce_class, status.bounce_category = event.bounce_class, event.bounce_category
    return True


def _save(changed: Iterable[RecipientStatus]) -> None:
    statuses = RecipientStatus.objects.using(database())
    known = []
    new = []
    for status in changed:
        if status._state.adding:
            new.append(status)
        else:
            known.append(status)
    statuses.bulk_create(new)
    # What is there already is written over: bulk_update() takes several times as long.
    by_key = connections[database()].features.supports_update_conflicts_with_target
    unique = ["id"] if by_key else None
    statuses.bulk_create(known, update_conflicts=True, update_fields=_UPDATED_FIELDS, unique_fields=unique)
