"""Export and erasure of the data stored about a person, who is identified by an address.

Mail to several people belongs to the others too, so only the address is removed from it. If the person has objected to
mail, the suppression list keeps a hash of the address, so that no mail is sent to it again. See LGPD art. 18 and GDPR
art. 15, 17 and 21.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import QuerySet

from . import outbox, suppressions
from .exceptions import InvalidAddress
from .mime.addresses import comparable_address
from .models import (
    Batch,
    Event,
    Message,
    RecipientStatus,
    SearchKey,
    State,
    Suppression,
    SuppressionRemoval,
    WebhookBatch,
)
from .models.erased import hashed
from .models.transactions import explaining_missing_tables, retry_on_conflict
from .suppressions.rules import Source
from .tracking import inbox

#: What stands in the words of servers in place of an address that was erased.
ERASED = "(erased)"

# An address that bounced is no objection of its owner's.
_NO_OBJECTION = (Source.BOUNCE,)


@dataclass(frozen=True, slots=True)
class Erasure:
    """Numbers of erased objects."""

    #: Deleted messages to this person alone.
    messages: int = 0
    #: Messages to others as well, from which the address was removed.
    shared_messages: int = 0
    #: Deleted events of mails that other systems sent, or that have been purged.
    events: int = 0
    #: Batches from whose ``problems`` the address was removed.
    problems: int = 0
    #: Batches of SparkPost's events that were set aside, whose body was deleted.
    webhook_batches: int = 0
    #: Deleted entries of the suppression list.
    suppressions: int = 0
    #: Entries of the suppression list that are kept as a hash.
    hashed_suppressions: int = 0
    #: Messages that were being sent at this moment and were left unchanged; call ``erase()`` again.
    being_sent: int = 0


@explaining_missing_tables()
def export(address: str) -> dict[str, Any]:
    """All data stored about a person, as values that JSON can represent.

    The content of sensitive mail is left out, because the person who requests the export may not be its reader.

    Args:
        address: with or without a name.

    Raises:
        InvalidAddress: ``address`` is invalid.
    """
    wanted = suppressions.comparable(address)
    ids = sorted(_message_ids(wanted))
    return {
        "address": wanted,
        "messages": [_message_as_json(key, wanted) for key in ids],
        "events": [_event_as_json(event) for event in _unmatched_events(wanted)],
        "suppressions": [
            {
                "scope": row.scope, "list_id": row.list_id, "source": row.source, "reason": row.reason,
                "since": row.created_at.isoformat(), "hashed": row.address != wanted,
            }
            for row in _suppressions(wanted, hashed(wanted))
        ],
        "taken_off_the_list": [
            {"scope": row.scope, "list_id": row.list_id, "at": row.removed_at.isoformat()} for row in _removals(wanted)
        ],
    }  # fmt: skip


@explaining_missing_tables()
def erase(address: str, *, progress: Callable[[int], None] = lambda more: None) -> Erasure:
    """Erase the data stored about a person. Mail that waits for this person alone is cancelled.

    Args:
        address: with or without a name.
        progress: called with the number of further messages that have been processed.

    Raises:
        InvalidAddress: ``address`` is invalid.
    """
    wanted = suppressions.comparable(address)
    counts = dict.fromkeys(("messages", "shared_messages", "being_sent"), 0)
    for key in sorted(_message_ids(wanted)):
        counts[_erase_from_message(key, wanted)] += 1
        progress(1)
    return Erasure(
        **counts,
        events=_unmatched_events(wanted).delete()[0],
        problems=_erase_problems(wanted),
        webhook_batches=sum(_forget_body(batch, wanted) for batch in inbox.set_aside()),
        **_erase_suppressions(wanted),
    )


def count_messages(address: str) -> int:
    """How many messages :func:`erase` would look at.

    Raises:
        InvalidAddress: it is no address.
    """
    return len(_message_ids(suppressions.comparable(address)))


def _message_ids(address: str) -> set[UUID]:
    """All messages that were to this address, each by an index."""
    alias = outbox.database()
    found = set(Message.objects.using(alias).filter(address=address).values_list("id", flat=True))
    found.update(SearchKey.objects.using(alias).filter(key=address).values_list("message_id", flat=True))
    found.update(RecipientStatus.objects.using(alias).filter(recipient=address).values_list("message_id", flat=True))
    return found


def _unmatched_events(address: str) -> QuerySet[Event]:
    return Event.objects.using(outbox.database()).filter(message=None, recipient=address)


def _suppressions(*addresses: str) -> QuerySet[Suppression]:
    return suppressions.active().filter(address__in=addresses).order_by("created_at")


def _removals(address: str) -> QuerySet[SuppressionRemoval]:
    return SuppressionRemoval.objects.using(outbox.database()).filter(address=address)


def _is_of(recipient: str, address: str) -> bool:
    with suppress(InvalidAddress):
        return comparable_address(recipient) == address
    return recipient == address


# Telling


def _message_as_json(key: UUID, address: str) -> dict[str, Any]:
    message = Message.objects.using(outbox.database()).select_related("batch").get(pk=key)
    content = message.content
    said = {} if message.sensitive else {"subject": content.subject, "text": content.text, "html": content.html}
    times = {name: getattr(message, name) for name in ("created_at", "queued_at", "sent_at", "finished_at")}
    return {
        "id": str(message.id),
        "message_id": message.message_id,
        "state": message.state,
        **{name: moment.isoformat() if moment else None for name, moment in times.items()},
        # Who else got it is theirs.
        "recipient": {
            field: [one for one in getattr(message, field) if _is_of(one, address)] for field in ("to", "cc", "bcc")
        },
        "template": content.template,
        "campaign": content.campaign,
        "list_id": content.list_id,
        **said,
        **({} if message.sensitive else {"context": message.context, "metadata": message.metadata}),
        "events": [_event_as_json(event) for event in _events(message) if _is_of(event.recipient, address)],
        "statuses": [_status_as_json(status) for status in _statuses(message, address)],
    }


def _events(message: Message) -> QuerySet[Event]:
    return Event.objects.using(outbox.database()).filter(message=message.pk).order_by("at", "id")


def _event_as_json(event: Event) -> dict[str, Any]:
    return {"type": event.type, "at": event.at.isoformat(), "recipient": event.recipient, "detail": event.detail}


def _statuses(message: Message, address: str) -> QuerySet[RecipientStatus]:
    return RecipientStatus.objects.using(outbox.database()).filter(message=message.pk, recipient=address)


def _status_as_json(status: RecipientStatus) -> dict[str, Any]:
    moments = ("arrival_at", "opened_at", "clicked_at", "unsubscribed_at", "complained_at")
    return {
        "arrival": status.arrival,
        "detail": status.detail,
        **{name: value.isoformat() for name in moments if (value := getattr(status, name)) is not None},
    }


# Erasing


def _erase_from_message(key: UUID, address: str) -> str:
    """Returns the name of what is counted."""
    outbox_messages = Message.objects.using(outbox.database())
    message = outbox_messages.filter(pk=key).first()
    if message is None:
        return "messages"
    if message.state == State.SENDING:
        return "being_sent"
    if all(_is_of(recipient, address) for recipient in message.recipients):
        outbox.cancel(key)
        return "messages" if outbox.delete_messages([key]) else "being_sent"
    return "shared_messages" if _take_out(message, address) else "being_sent"


@retry_on_conflict
def _take_out(message: Message, address: str) -> bool:
    """Remove an address from a message that has others; returns whether the message was unlocked."""
    fields: dict[str, Any] = {
        name: [one for one in getattr(message, name) if not _is_of(one, address)] for name in ("to", "cc", "bcc")
    }
    if message.remaining is not None:
        fields["remaining"] = [one for one in message.remaining if not _is_of(one, address)]
    if message.remaining and not fields["remaining"]:
        # All others are served. An empty list would stand for all of them.
        fields |= {"remaining": None}
        if message.state in (State.QUEUED, State.DEFERRED, State.SCHEDULED):
            outbox.cancel(message.pk)
            message.state = State.CANCELLED
    words = set(_words_of(address, message))
    for name in ("reply", "reason"):
        fields[name] = _without(words, getattr(message, name))
    if not outbox.replace_recipients(message, fields):
        return False
    for event in _events(message):
        if _is_of(event.recipient, address):
            event.delete()
        elif (detail := _without(words, event.detail)) != event.detail:
            Event.objects.using(outbox.database()).filter(pk=event.pk).update(detail=detail)
    _statuses(message, address).delete()
    return True


def _words_of(address: str, message: Message) -> Iterator[str]:
    """The forms in which servers may have repeated an address."""
    yield address
    for recipient in message.recipients:
        if _is_of(recipient, address):
            yield recipient.rpartition("<")[2].rstrip(">")


def _without(words: set[str], text: str) -> str:
    for word in sorted(words, key=len, reverse=True):
        text = text.replace(word, ERASED)
    return text


def _forget_body(batch: WebhookBatch, address: str) -> bool:
    if batch.body is None or address.encode() not in inbox.body_of(batch).lower():
        return False
    return bool(WebhookBatch.objects.using(outbox.database()).filter(pk=batch.pk).update(body=None))


def _erase_problems(address: str) -> int:
    """The first of the recipients that were left out of a batch are named in it."""
    batches = Batch.objects.using(outbox.database())
    count = 0
    for key, problems in batches.filter(skipped__gt=0).values_list("id", "problems"):
        text = json.dumps(problems, ensure_ascii=False)
        if address in text.lower():
            cleaned = re.sub(re.escape(address), ERASED, text, flags=re.IGNORECASE)
            count += batches.filter(pk=key).update(problems=json.loads(cleaned))
    return count


@retry_on_conflict
def _erase_suppressions(address: str) -> dict[str, int]:
    """Keep what the person has objected to as a hash, and forget the rest."""
    kept = {(row.scope, row.list_id, row.source) for row in _suppressions(hashed(address))}
    counts = {"suppressions": 0, "hashed_suppressions": 0}
    for row in _suppressions(address).select_for_update():
        if row.source in _NO_OBJECTION or (row.scope, row.list_id, row.source) in kept:
            row.delete()
            counts["suppressions"] += 1
        else:
            row.address, row.reason, row.refusal = hashed(address), "", ""
            row.save(using=outbox.database())
            counts["hashed_suppressions"] += 1
    _removals(address).delete()
    return counts


__all__ = ["ERASED", "Erasure", "count_messages", "erase", "export"]
