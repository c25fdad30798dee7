"""Which bounces and complaints suppress an address, and for which mail."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from django.db.models import Q

from .. import suppressions
from ..models import BounceCategory, Event, Message
from ..models.transactions import database
from ..sparkpost.events import AUTO_REPLY_CLASSES, ParsedEvent
from ..suppressions.entries import Entry
from ..suppressions.rules import SOFT_BOUNCES_WITHIN, Scope, Source

Type = Event.Type
_SUPPRESSING = {BounceCategory.HARD: "hard", BounceCategory.ADMIN: "admin"}


def _suppressions_of(messages: Mapping[UUID, Message], new: Sequence[ParsedEvent]) -> Iterator[Entry]:
    """Why addresses are not to be written to any more. Mails of others through the same account count, too."""
    for parsed in new:
        event = parsed.event
        if "@" not in parsed.address:
            continue
        if event.type == Type.COMPLAINED:
            yield from _entries(parsed, Source.COMPLAINT, "complaint")
        elif event.type == Type.UNSUBSCRIBED:
            message = messages.get(event.message) if event.message else None
            yield from _entries(parsed, Source.UNSUBSCRIBE, "unsubscribe", message.list_id if message else "")
        elif event.type == Type.BOUNCED and event.bounce_category in _SUPPRESSING:
            yield from _entries(parsed, Source.BOUNCE, _SUPPRESSING[BounceCategory(event.bounce_category)])


def _entries(parsed: ParsedEvent, source: Source, rule: str, list_id: str = "") -> Iterator[Entry]:
    scopes = suppressions.scopes(rule)
    if list_id and scopes:
        # Who leaves a list leaves that list alone.
        scopes = (Scope.LIST,)
    for scope in scopes:
        yield Entry(
            at=parsed.event.at, source=source, reason=parsed.event.reason, address=parsed.address, scope=scope,
            list_id=list_id if scope == Scope.LIST else "",
        )  # fmt: skip


def _is_soft_bounce(parsed: ParsedEvent) -> bool:
    event = parsed.event
    return (
        "@" in parsed.address
        and event.bounce_category == BounceCategory.SOFT
        and event.bounce_class not in AUTO_REPLY_CLASSES
    )


def _repeated_soft_bounces(soft: Iterable[ParsedEvent], limit: int) -> Iterator[Entry]:
    """Of each address every moment at which it had bounced too often, of those that these bounces belong to."""
    these = [(parsed.address, parsed.event.at) for parsed in soft]
    if not these:
        return
    addresses, times = zip(*these, strict=True)
    bounces = Event.objects.using(database()).filter(
        Q(bounce_class=None) | ~Q(bounce_class__in=AUTO_REPLY_CLASSES),
        recipient__in=sorted(set(addresses)), type=Type.BOUNCED, bounce_category=BounceCategory.SOFT,
        at__gte=min(times) - SOFT_BOUNCES_WITHIN, at__lte=max(times) + SOFT_BOUNCES_WITHIN,
    )  # fmt: skip
    known: dict[str, list[datetime]] = defaultdict(list)
    for address, at in bounces.order_by("at").values_list("recipient", "at"):
        known[address].append(at)
    for address, moments in known.items():
        for first, last in zip(moments, moments[limit - 1 :], strict=False):
            if last - first <= SOFT_BOUNCES_WITHIN:
                for scope in suppressions.scopes("hard"):
                    yield Entry(
                        at=last, since=first, source=Source.BOUNCE, address=address, scope=scope,
                        reason=f"{limit} soft bounces within {SOFT_BOUNCES_WITHIN.days} days",
                    )  # fmt: skip
