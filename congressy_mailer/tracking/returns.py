"""Returns of recipients who had left: an unsubscription from before is over, however late SparkPost reports it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from uuid import UUID

from ..models import Event, Message, SuppressionRemoval
from ..models.transactions import database
from ..sparkpost.events import ParsedEvent
from ..suppressions.rules import Scope, Source

# Removals by the recipient, and by a person who took the address off the list whatever the reason.
_SOURCES = ("", Source.UNSUBSCRIBE)


def without_taken_back(messages: Mapping[UUID, Message], new: Iterable[ParsedEvent]) -> list[ParsedEvent]:
    """Leave out unsubscriptions that are older than the recipient's return to the mail that they are about.

    Args:
        messages: those of the events, by id.
        new: events; one of a message that is not among them is kept.
    """
    events = list(new)
    left = [one for one in events if one.event.type == Event.Type.UNSUBSCRIBED and one.event.message in messages]
    if not left:
        return events
    returned = _returns_by_page({one.event.message for one in left if one.event.message})
    removed = _removals({one.address for one in left})
    over = set()
    for one in left:
        message = messages[one.event.message]  # type: ignore[index]
        list_id = message.list_id or ""
        scope = Scope.LIST if list_id else Scope.NON_TRANSACTIONAL
        moments = (
            returned.get((message.id, one.address)),
            removed.get((one.address, scope, list_id)),
            removed.get((one.address, "", "")),
        )
        if any(moment is not None and one.event.at <= moment for moment in moments):
            over.add(one.key)
    return [one for one in events if one.key not in over]


def _returns_by_page(keys: Collection[UUID]) -> dict[tuple[UUID | None, str], datetime]:
    """When each recipient of these messages last returned by our own page, after an unsubscription that was known."""
    events = Event.objects.using(database()).filter(message__in=sorted(keys), type=Event.Type.RESUBSCRIBED)
    return {
        (key, address): at for key, address, at in events.order_by("at").values_list("message_id", "recipient", "at")
    }


def _removals(addresses: Collection[str]) -> dict[tuple[str, str, str], datetime]:
    """When reasons were last taken off the suppression list, by address, scope and list.

    Removals with a beginning take back one reason of SparkPost's list, and are no return.
    """
    removals = SuppressionRemoval.objects.using(database()).filter(
        address__in=sorted(addresses), source__in=_SOURCES, since=None
    )
    found = removals.order_by("removed_at").values_list("address", "scope", "list_id", "removed_at")
    return {(address, scope, list_id): at for address, scope, list_id, at in found}
