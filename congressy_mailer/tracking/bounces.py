"""Which bounces and complaints suppress an address, and for which mail."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from math import ceil
from typing import Any
from uuid import UUID

from .. import suppressions
from ..conf import mailer_settings
from ..models import BounceCategory, Event, Message
from ..models.transactions import database
from ..signals import TrackedEvent
from ..sparkpost.bounce_classes import Effect, bounce_class, is_about_address
from ..sparkpost.events import ParsedEvent
from ..suppressions.entries import Entry, cleared_at
from ..suppressions.rules import SOFT_BOUNCES_WITHIN, Scope, Source

Type = Event.Type

# SparkPost's list has an entry up to some minutes after the event ("Suppression timing"), by clocks that differ.
_BEFORE, _AFTER = timedelta(minutes=1), timedelta(minutes=10)


def suppressions_of(messages: Mapping[UUID, Message], new: Sequence[ParsedEvent]) -> Iterator[Entry]:
    """Why addresses are not to be written to any more. Mails of others through the same account count, too.

    A subaccount's do not, unless they are ours: it has a suppression list of its own ("Using Suppression Lists").
    """
    for parsed in new:
        message = messages.get(parsed.event.message) if parsed.event.message else None
        if "@" not in parsed.address or (parsed.of_subaccount and message is None):
            continue
        rule = _rule_of(parsed.event)
        if rule is not None:
            yield from _entries(parsed, rule, message)


def _rule_of(event: TrackedEvent) -> str | None:
    """The rule of ``SUPPRESSION`` that an event falls under."""
    if event.type == Type.COMPLAINED:
        return "complaint"
    if event.type == Type.UNSUBSCRIBED:
        return "unsubscribe"
    effect = bounce_class(event.bounce_class).effect
    if effect == Effect.HARD:
        return "hard"
    # SparkPost's own list, which comes by the sync with the scope that it has there, is no news about the address.
    return "admin" if effect == Effect.POLICY and is_about_address(event.reason) else None


def suppressed_too_much(messages: Mapping[UUID, Message], new: Sequence[ParsedEvent]) -> Iterator[dict[str, Any]]:
    """What SparkPost's own list has against addresses since these events, and our rules have not.

    SparkPost suppresses by the type of the mail, whatever its list ("Using Suppression Lists"): who leaves one list by
    SparkPost's header would get mail of no other. Its page "List-unsubscribe Functionality" asks senders with lists to
    change its entry, which the sync does once this is taken off.

    Yields:
        Arguments of :func:`congressy_mailer.suppressions.remove`.
    """
    if mailer_settings().SPARKPOST_API_KEY is None:
        return
    for parsed in new:
        message = messages.get(parsed.event.message) if parsed.event.message else None
        rule = _rule_of(parsed.event)
        if message is None or rule is None or "@" not in parsed.address:
            continue
        ours = set(_scopes(rule, message))
        if not ours:
            continue
        source, theirs = _suppressed_there(parsed, message)
        for scope in sorted(theirs - ours):
            between = parsed.event.at - _BEFORE, parsed.event.at + _AFTER
            yield {"address": parsed.address, "scope": scope, "source": source, "between": between}


def _suppressed_there(parsed: ParsedEvent, message: Message) -> tuple[Source, set[Scope]]:
    """With what source, and for which mail, SparkPost itself suppresses after an event of a mail of ours."""
    if parsed.event.bounce_class is not None:
        # A bounce of a category that SparkPost calls hard stops all mail.
        hard = parsed.event.bounce_category == BounceCategory.HARD
        return Source.SPARKPOST, {Scope.TRANSACTIONAL, Scope.NON_TRANSACTIONAL} if hard else set()
    if parsed.as_transactional and message.transactional:
        # The recipient wants no more of just this kind.
        return Source.SPARKPOST, set()
    unsubscribed = parsed.event.type == Type.UNSUBSCRIBED
    source = Source.SPARKPOST_UNSUBSCRIBE if unsubscribed else Source.SPARKPOST
    return source, {Scope.TRANSACTIONAL if parsed.as_transactional else Scope.NON_TRANSACTIONAL}


_SOURCES = {"complaint": Source.COMPLAINT, "unsubscribe": Source.UNSUBSCRIBE}


def _entries(parsed: ParsedEvent, rule: str, message: Message | None) -> Iterator[Entry]:
    for scope in _scopes(rule, message):
        yield Entry(
            at=parsed.event.at, source=_SOURCES.get(rule, Source.BOUNCE), reason=parsed.event.reason,
            address=parsed.address, scope=scope, list_id=message.list_id if message and scope == Scope.LIST else "",
        )  # fmt: skip


def _scopes(rule: str, message: Message | None) -> tuple[Scope, ...]:
    scopes = suppressions.scopes(rule)
    # Leaving a list leaves that list alone.
    return (Scope.LIST,) if scopes and rule == "unsubscribe" and message and message.list_id else scopes


def is_soft_bounce(parsed: ParsedEvent) -> bool:
    event = parsed.event
    return "@" in parsed.address and event.type == Type.BOUNCED and event.bounce_category == BounceCategory.SOFT


def repeated_soft_bounces(soft: Iterable[ParsedEvent], limit: int) -> Iterator[Entry]:
    """Of each address the first moment since it was last taken off the list at which it had bounced too often."""
    times: dict[str, list[datetime]] = defaultdict(list)
    for parsed in soft:
        times[parsed.address].append(parsed.event.at)
    scopes = suppressions.scopes("hard")
    cleared = cleared_at(times, Source.BOUNCE) if scopes else {}
    for address, moments in times.items():
        start, end = min(moments) - SOFT_BOUNCES_WITHIN, max(moments) + SOFT_BOUNCES_WITHIN
        found: dict[datetime | None, tuple[datetime, datetime] | None] = {}
        for scope in scopes:
            after = cleared.get((address, scope))
            if after not in found:
                found[after] = _first_window(address, start, end, after, limit)
            window = found[after]
            if window is not None:
                yield Entry(
                    at=window[1], since=window[0], source=Source.BOUNCE, address=address, scope=scope,
                    reason=f"{limit} soft bounces within {SOFT_BOUNCES_WITHIN.days} days",
                )  # fmt: skip


def _first_window(
    address: str, start: datetime, end: datetime, after: datetime | None, limit: int
) -> tuple[datetime, datetime] | None:
    """The first and last of the earliest soft bounces of an address that are too many within the time that counts."""
    bounces = Event.objects.using(database()).filter(
        recipient=address, type=Type.BOUNCED, bounce_category=BounceCategory.SOFT, at__gte=start, at__lte=end,
    )  # fmt: skip
    if after is not None:
        bounces = bounces.filter(at__gt=after)
    # Of more than these, some must be too many (pigeonhole principle), so that no more has to be read, however many
    # bounces of the address there are.
    enough = (ceil((end - start) / SOFT_BOUNCES_WITHIN) + 1) * (limit - 1) + 1
    moments = list(bounces.order_by("at").values_list("at", flat=True)[:enough])
    for first, last in zip(moments, moments[limit - 1 :], strict=False):
        if last - first <= SOFT_BOUNCES_WITHIN:
            return first, last
    return None
