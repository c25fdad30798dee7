"""The entries of the suppression list: adding, removing and purging them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from django.db import IntegrityError, transaction
from django.db.models import Model, Q, QuerySet
from django.utils import timezone

from ..conf import mailer_settings
from ..models import Suppression, SuppressionRemoval
from ..models.erased import by_stored_form, hashed
from ..models.transactions import database, retry_on_conflict
from ..signals import address_suppressed
from .rules import SOFT_BOUNCES_WITHIN, Scope, Source, soft_bounce_limit

# Addresses of one question: every database takes so many.
_CHUNK = 500

_KEEP_REMOVED = timedelta(days=1)

# Others put the same addresses there at the same time.
_TRIES = 5

#: What is on SparkPost's list with a source of its own, and here only because it is there.
REMOTE_SOURCES = frozenset({Source.SPARKPOST, Source.SPARKPOST_UNSUBSCRIBE, Source.COMPLIANCE})

# An unsubscription is taken back for every source.
_SOURCES_TAKEN_BACK: Mapping[str, Collection[Source]] = {
    "": frozenset(Source) - {Source.COMPLIANCE},
    Source.UNSUBSCRIBE: {Source.UNSUBSCRIBE, Source.SPARKPOST_UNSUBSCRIBE},
}

_Row = TypeVar("_Row", bound=Model)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Entry:
    """A reason not to write to an address."""

    #: When it came up.
    at: datetime
    #: What it was.
    source: Source
    #: For people.
    reason: str = ""
    #: In the form in which addresses are compared.
    address: str
    #: Which mail it is about.
    scope: Scope
    #: Which list, where it is one.
    list_id: str = ""
    #: When what it counts began, where it counts several things; ``None``: it is one.
    since: datetime | None = field(default=None, compare=False)

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What the list has once."""
        return self.address, self.scope, self.list_id, self.source


def active() -> QuerySet[Suppression]:
    """What is on the list now."""
    return Suppression.objects.using(database())


def removals() -> QuerySet[SuppressionRemoval]:
    """What was taken off."""
    return SuppressionRemoval.objects.using(database())


def is_removed(entry: Entry, removed: Iterable[SuppressionRemoval]) -> bool:
    """Whether an entry, or a part of what it counts, came up before it was taken off.

    Args:
        entry: it.
        removed: of its address.
    """
    return any(_covers(removal, entry) for removal in removed)


def _covers(removal: SuppressionRemoval, entry: Entry) -> bool:
    at = entry.since or entry.at
    return (
        removal.address == entry.address
        and removal.scope in ("", entry.scope)
        and (removal.scope == "" or removal.list_id == entry.list_id)
        and entry.source in _SOURCES_TAKEN_BACK.get(removal.source, {removal.source})
        and at <= removal.removed_at
        and (removal.since is None or at >= removal.since)
    )


def add(entries: Iterable[Entry]) -> list[Suppression]:
    """Put addresses on the list, as far as they are not on it.

    Returns:
        Of each address and mail that nothing was against before, the reason that is now.
    """
    wanted = list(entries)
    for attempt in range(_TRIES):
        try:
            return _add(wanted)
        except IntegrityError:
            # Another process has added one of them at this moment.
            if attempt == _TRIES - 1:
                raise
    raise AssertionError("unreachable")


@retry_on_conflict
def _add(entries: Iterable[Entry]) -> list[Suppression]:
    # Of several entries for an address by one source, the earliest counts that was not removed.
    by_key: dict[tuple[str, str, str, str], Entry] = {}
    wanted = sorted(entries)
    addresses = {entry.address for entry in wanted}
    known = {(row.address, row.scope, row.list_id, row.source): row for row in _rows_of(Suppression, addresses)}
    removed = removals_of(addresses)
    # For a person whose data were erased, an existing entry is not stored in clear again unless a person asks for it.
    erased = {(row.address, row.scope, row.list_id) for row in _rows_of(Suppression, set(map(hashed, addresses)))}
    for entry in wanted:
        if entry.source != Source.MANUAL and (hashed(entry.address), entry.scope, entry.list_id) in erased:
            continue
        # The compliance team's word cannot be taken back.
        if entry.source == Source.COMPLIANCE or not is_removed(entry, removed.get(entry.address, ())):
            by_key.setdefault(entry.key, entry)
    suppressed = {key[:3] for key in known}
    added: list[Suppression] = []
    created: list[Suppression] = []
    for entry in sorted(by_key.values()):
        key = entry.key
        row = known.get(key)
        if row is None:
            row = Suppression(
                address=entry.address, scope=entry.scope, list_id=entry.list_id, source=entry.source,
                reason=entry.reason, created_at=entry.at,
            )  # fmt: skip
            created.append(row)
            if key[:3] not in suppressed:
                suppressed.add(key[:3])
                added.append(row)
        elif (entry.at, entry.reason) < (row.created_at, row.reason):
            row.reason, row.created_at = entry.reason, entry.at
            row.save(using=database())
    # In one order for everybody, so that no two transactions wait for each other.
    active().bulk_create(sorted(created, key=lambda row: (row.address, row.scope, row.list_id, row.source)))
    if added:
        transaction.on_commit(partial(_send_signals, added), using=database(), robust=True)
    return added


def cleared_at(addresses: Iterable[str], source: Source) -> dict[tuple[str, str], datetime]:
    """When a source's reasons were last taken off these addresses, by address and scope, without lists. Others never
    were."""
    cleared: dict[tuple[str, str], datetime] = {}
    wanted = sorted(set(addresses))
    for start in range(0, len(wanted), _CHUNK):
        found = removals().filter(
            address__in=wanted[start : start + _CHUNK], list_id="", source__in=["", source], since=None
        )
        for removal in found:
            for scope in [removal.scope] if removal.scope else Scope.values:
                key = removal.address, scope
                cleared[key] = max(removal.removed_at, cleared.get(key, removal.removed_at))
    return cleared


def _rows_of(model: type[_Row], addresses: Collection[str]) -> Iterable[_Row]:
    """The rows of these addresses, locked."""
    wanted = sorted(addresses)
    for start in range(0, len(wanted), _CHUNK):
        rows = model._default_manager.using(database()).filter(address__in=wanted[start : start + _CHUNK])
        yield from rows.order_by("id").select_for_update()


def removals_of(addresses: Collection[str]) -> dict[str, list[SuppressionRemoval]]:
    """The removals of these addresses, locked to the end of the transaction."""
    found: dict[str, list[SuppressionRemoval]] = defaultdict(list)
    for row in _rows_of(SuppressionRemoval, addresses):
        found[row.address].append(row)
    return found


def _send_signals(added: Sequence[Suppression]) -> None:
    for row in added:
        address_suppressed.send_robust(
            Suppression, address=row.address, scope=row.scope, source=row.source, list_id=row.list_id,
            reason=row.reason,
        )  # fmt: skip


@retry_on_conflict
def remove(
    address: str,
    *,
    scope: Scope | None = None,
    list_id: str = "",
    source: Source | None = None,
    between: tuple[datetime, datetime] | None = None,
) -> int:
    """Take an address off the list. What SparkPost's compliance team put there stays.

    What happened before and is heard of later does not bring it back, also where nothing was on the list.

    Args:
        address: in the form in which addresses are compared.
        scope: which mail it is to get again; all of it where it is ``None``.
        list_id: which list, where the scope is one.
        source: only entries of this source, and unsubscriptions of every source; ``None``: of every source.
        between: only what happened between these times; all until now where it is ``None``.

    Returns:
        How many reasons there were.
    """
    since, until = between or (None, timezone.now())
    removal = SuppressionRemoval(
        address=address, scope=scope or "", list_id=list_id, source=source or "", since=since, removed_at=until
    )
    removals().bulk_create([removal], ignore_conflicts=True)
    same = removals().filter(address=address, scope=removal.scope, list_id=list_id, source=removal.source)
    same.filter(removed_at__lte=until).update(since=since, removed_at=until, synced_at=None, refusal="")
    rows = active().filter(
        address__in=by_stored_form([address]), source__in=_SOURCES_TAKEN_BACK.get(removal.source, {removal.source})
    )
    if scope is not None:
        rows = rows.filter(scope=scope, list_id=list_id)
    if between is not None:
        rows = rows.filter(created_at__range=between)
    return rows.delete()[0]


@retry_on_conflict
def purge() -> int:
    """Forget what was taken off a day ago and SparkPost's list knows of, or where there is no key to tell it with.

    Until then it is kept for what is heard of late: an event that happened before, or a listing that is old. Where soft
    bounces are counted it is kept for as long as one counts: those before it are not to bring the address back.

    Returns:
        How many removals, some at a time; none when nothing is left.
    """
    cutoff = timezone.now() - (_KEEP_REMOVED if soft_bounce_limit() is None else SOFT_BOUNCES_WITHIN)
    old = Q(synced_at__lt=cutoff) | ~Q(refusal="")
    if mailer_settings().SPARKPOST_API_KEY is None:
        old |= Q(synced_at=None)
    ids = list(removals().filter(old, removed_at__lt=cutoff).order_by("id").values_list("id", flat=True)[:_CHUNK])
    # Unless it was taken off again meanwhile.
    removals().filter(old, removed_at__lt=cutoff, id__in=ids).delete()
    return len(ids)
