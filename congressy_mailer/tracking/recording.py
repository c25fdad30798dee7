"""Writing down what SparkPost tells of mails: events, what became of each recipient, and who gets no more mail.

The result does not depend on the order of the events, nor on repetitions. Each event is stored once, by its key. The
status of a recipient holds the earliest or the latest of what is known, and that of a message follows from its
recipients. Each change is made under the lock of the message, so that several workers may process events at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial, wraps
from typing import ParamSpec, TypeVar
from uuid import UUID

from django.db import IntegrityError, connections, transaction
from django.db.models import QuerySet
from django.utils import timezone

from .. import metrics, suppressions
from ..mime.addresses import comparable_address
from ..models import Event, Message, RecipientStatus
from ..models.transactions import database, retry_on_conflict
from ..outbox.rows import rows
from ..signals import TrackedEvent, tracked
from ..sparkpost.events import ParsedEvent
from .bounces import Type, is_soft_bounce, repeated_soft_bounces, suppressed_too_much, suppressions_of
from .statuses import most_severe, update_statuses

# Of a message whose events are recorded.
_READ_FIELDS = (
    "id", "sensitive", "transactional", "list_id", "delivery", "to", "cc", "bcc", "sparkpost", "content_dropped_at",
    "using", "route", "batch_id", "priority",
)  # fmt: skip
# Events that the mailboxes' providers judge a sender by.
_COUNTED: Mapping[str, str] = {
    Type.DELIVERED: metrics.DELIVERED,
    Type.BOUNCED: metrics.BOUNCED,
    Type.COMPLAINED: metrics.COMPLAINED,
}
_TRIES = 8

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _retry_on_conflict(change: Callable[_P, _R]) -> Callable[_P, _R]:
    """Run a change again where another process has stored one of its rows at the same moment."""

    @wraps(change)
    def changed(*args: _P.args, **options: _P.kwargs) -> _R:
        for _ in range(_TRIES - 1):
            try:
                return change(*args, **options)
            except IntegrityError:
                if connections[database()].in_atomic_block:
                    raise
        return change(*args, **options)

    return changed


def track(parsed: Iterable[ParsedEvent]) -> int:
    """Write down what these events tell, as far as it is new, and suppress whom ``SUPPRESSION`` says.

    Returns:
        How many were new.
    """
    events = list(parsed)
    messages, new = _record(events)
    metrics.count_events(
        (messages[key], _COUNTED[one.event.type])
        for one in new
        if (key := one.event.message) is not None and key in messages and one.event.type in _COUNTED
    )
    _adopt_orphans({one.sparkpost_id for one in events if one.sparkpost_id})
    # Not before they are there for all to see: of two workers that store two bounces of an address at the same moment,
    # the later one counts both. What was stored before is counted again, since its worker may have died before it was.
    limit = suppressions.soft_bounce_limit()
    if limit is not None:
        suppressions.add(repeated_soft_bounces(filter(is_soft_bounce, events), limit))
    return len(new)


@_retry_on_conflict
@retry_on_conflict
def _record(parsed: Iterable[ParsedEvent]) -> tuple[Mapping[UUID, Message], list[ParsedEvent]]:
    messages, new = _store(parsed)
    for removal in suppressed_too_much(messages, new):
        suppressions.remove(**removal)
    suppressions.add(suppressions_of(messages, new))
    return messages, new


@_retry_on_conflict
@retry_on_conflict
def record_unsubscribed(key: UUID, address: str) -> None:
    """A recipient has unsubscribed by our own link, which has suppressed the address already. Written down once, and
    again after each return.

    Args:
        key: of the message that the link stood in; one that is not known any more is left alone.
        address: as it was sent to.
    """
    message = rows([key]).only("campaign", "tags", "metadata").first()
    if message is None:
        return
    event = TrackedEvent(
        type=Type.UNSUBSCRIBED.value, sparkpost_type="", message=key, recipient=address, at=timezone.now(),
        campaign=message.campaign, tags=tuple(message.tags), metadata=message.metadata,
    )  # fmt: skip
    compared = comparable_address(address)
    returns = _returns(key, compared).count()
    again = f"-{returns}" if returns else ""
    _store([ParsedEvent(key=f"unsubscribed-{key.hex}{again}", address=compared, event=event)])


@retry_on_conflict
def record_resubscribed(key: UUID, address: str) -> None:
    """A recipient has taken back by our own page that they unsubscribed. Only where that is written down.

    Args:
        key: of the message that the link stood in; one that is not known any more is left alone.
        address: as it was sent to.
    """
    compared = comparable_address(address)
    messages = _lock_messages([key])
    statuses = {status.recipient: status for status in RecipientStatus.objects.using(database()).filter(message=key)}
    status = statuses.get(compared)
    if key not in messages or status is None or status.unsubscribed_at is None:
        return
    number = _returns(key, compared).count() + 1
    Event.objects.using(database()).create(
        message_id=key, type=Type.RESUBSCRIBED, at=timezone.now(), recipient=compared,
        key=f"resubscribed-{key.hex}-{number}",
    )  # fmt: skip
    status.unsubscribed_at = None
    status.save(using=database(), update_fields=["unsubscribed_at"])
    rows([key]).update(delivery=most_severe(statuses.values()))


def _returns(key: UUID, address: str) -> QuerySet[Event]:
    return Event.objects.using(database()).filter(message=key, type=Type.RESUBSCRIBED, recipient=address)


def _store(parsed: Iterable[ParsedEvent]) -> tuple[Mapping[UUID, Message], list[ParsedEvent]]:
    """Store what is new.

    Returns:
        The messages that it is about, and what it was: of messages that are known, and without what must not be kept.
    """
    # The same event may come twice in one batch.
    events = {one.key: one for one in _find_messages(list(parsed))}
    messages = _lock_messages({one.event.message for one in events.values() if one.event.message})
    # Not before the messages are locked: another worker may have been storing the same.
    stored = Event.objects.using(database()).filter(key__in=sorted(events)).values_list("key", flat=True)
    for key in list(stored):
        del events[str(key)]
    new = [_redact_event(messages, events[key]) for key in sorted(events)]
    Event.objects.using(database()).bulk_create(_row(one) for one in new)
    update_statuses(messages, new)
    if new and tracked.has_listeners(Event):
        transaction.on_commit(partial(_send_signals, new), using=database(), robust=True)
    return messages, new


def _lock_messages(keys: Collection[UUID]) -> dict[UUID, Message]:
    wanted = rows(keys).order_by("id").only(*_READ_FIELDS)
    return {message.id: message for message in wanted.select_for_update()}


def _find_messages(parsed: Sequence[ParsedEvent]) -> list[ParsedEvent]:
    """The same events, each with its message: bounces and complaints that lost ours find it by SparkPost's id."""
    wanted = {one.sparkpost_id for one in parsed if one.event.message is None and one.sparkpost_id}
    if not wanted:
        return list(parsed)
    known = _messages_by_sparkpost_id(wanted)
    for one in parsed:
        if one.event.message is not None and one.sparkpost_id in wanted:
            known[one.sparkpost_id, one.address].add(one.event.message)
    return [_with_message(one, known.get((one.sparkpost_id, one.address))) for one in parsed]


def _messages_by_sparkpost_id(ids: Iterable[str]) -> dict[tuple[str, str], set[UUID]]:
    known: dict[tuple[str, str], set[UUID]] = defaultdict(set)
    events = Event.objects.using(database()).filter(sparkpost_id__in=sorted(ids), message__isnull=False)
    for sparkpost_id, address, message in events.values_list("sparkpost_id", "recipient", "message_id").distinct():
        if sparkpost_id is not None and message is not None:
            known[sparkpost_id, address].add(message)
    return known


def _with_message(parsed: ParsedEvent, found: Collection[UUID] | None) -> ParsedEvent:
    # Two messages under one id would be a mistake of SparkPost's: neither is more likely than the other.
    if parsed.event.message is not None or found is None or len(found) != 1:
        return parsed
    (message,) = found
    return replace(parsed, event=replace(parsed.event, message=message))


def _adopt_orphans(ids: Collection[str]) -> None:
    """Give events that were stored without a message theirs, once a later event has told it.

    Not in the transaction that stores events: of two workers that store an orphan and the event which tells its message
    at the same moment, the later one sees both.
    """
    orphans = Event.objects.using(database()).filter(sparkpost_id__in=sorted(ids), message=None)
    found = {str(one) for one in orphans.values_list("sparkpost_id", flat=True).distinct()} if ids else set()
    if found and _messages_by_sparkpost_id(found):
        _adopt(found)


@_retry_on_conflict
@retry_on_conflict
def _adopt(ids: Collection[str]) -> None:
    known = _messages_by_sparkpost_id(ids)
    messages = _lock_messages({message for found in known.values() for message in found})
    orphans = Event.objects.using(database()).filter(sparkpost_id__in=sorted(ids), message=None)
    adopted = []
    for event in orphans.order_by("id"):
        parsed = _with_message(_parsed(event), known.get((event.sparkpost_id or "", event.recipient)))
        if parsed.event.message not in messages:
            continue
        adopted.append(_redact_event(messages, parsed))
        event.message_id, event.detail = parsed.event.message, adopted[-1].event.reason
        event.save(using=database(), update_fields=["message", "detail"])
    update_statuses(messages, adopted)


def _parsed(event: Event) -> ParsedEvent:
    """A stored event of SparkPost's, as far as it was kept."""
    return ParsedEvent(
        key=event.key or "",
        address=event.recipient,
        sparkpost_id=event.sparkpost_id or "",
        event=TrackedEvent(
            type=event.type, sparkpost_type="", message=event.message_id, recipient=event.recipient, at=event.at,
            bounce_class=event.bounce_class, bounce_category=event.bounce_category, reason=event.detail,
        ),
    )  # fmt: skip


def _redact_event(messages: Mapping[UUID, Message], parsed: ParsedEvent) -> ParsedEvent:
    """The event as it is kept: its message is one that there is, and nothing confidential is in it."""
    event = parsed.event
    message = messages.get(event.message) if event.message else None
    if event.message is None or (message is not None and not message.sensitive):
        return parsed
    # A message that is not known any more may have been sensitive, too.
    return replace(parsed, event=replace(event, message=message.id if message else None, reason="", url=""))


def _row(parsed: ParsedEvent) -> Event:
    event = parsed.event
    detail = event.reason or event.url
    if event.type == Type.OTHER:
        detail = f"{event.sparkpost_type}: {detail}".rstrip(": ")
    return Event(
        message_id=event.message, type=event.type, at=event.at, recipient=parsed.address, detail=detail,
        key=parsed.key, sparkpost_id=parsed.sparkpost_id or None, bounce_class=event.bounce_class,
        bounce_category=event.bounce_category,
    )  # fmt: skip


def _send_signals(new: Iterable[ParsedEvent]) -> None:
    for parsed in new:
        tracked.send_robust(Event, event=parsed.event)
