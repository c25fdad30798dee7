"""The entries of the suppression list: adding, removing and purging them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from ..conf import mailer_settings
from ..models import Suppression
from ..models.transactions import database, retry_on_conflict
from ..signals import address_suppressed
from .rules import SOFT_BOUNCES_WITHIN, Scope, Source, soft_bounce_limit

# Addresses of one question: every database takes so many.
_CHUNK = 500

_KEEP_REMOVED = timedelta(days=1)

# Others put the same addresses there at the same time.
_TRIES = 5


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

    def still_applies(self, cleared_at: datetime | None) -> bool:
        """Whether all of it came after the address was last taken off; a permanent entry always does."""
        return cleared_at is None or (self.since or self.at) > cleared_at or _is_permanent(self)


def active() -> QuerySet[Suppression]:
    """What is on the list now."""
    return Suppression.objects.using(database()).filter(removed_at=None)


def add(entries: Iterable[Entry]) -> list[Suppression]:
    """Put addresses on the list, as far as they are not on it.

    Returns:
        What was not on it before.
    """
    wanted = list(entries)
    for attempt in range(_TRIES):
        try:
            return _add(wanted)
        except IntegrityError:
            # Somebody else has put one of them there at this moment.
            if attempt == _TRIES - 1:
                raise
    raise AssertionError("unreachable")


@retry_on_conflict
def _add(entries: Iterable[Entry]) -> list[Suppression]:
    by_key: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in sorted(entries):
        by_key.setdefault((entry.address, entry.scope, entry.list_id), []).append(entry)
    known = _known({address for address, _, _ in by_key})
    added: list[Suppression] = []
    created: list[Suppression] = []
    for key, reasons in sorted(by_key.items()):
        row = known.get(key)
        # Of what is said of the same address, the first counts that nobody has taken back.
        cleared_at = row.cleared_at if row is not None else None
        applicable = [one for one in reasons if one.still_applies(cleared_at)]
        if not applicable:
            continue
        entry = min(applicable, key=_precedence)
        if row is None:
            row = Suppression(
                address=entry.address, scope=entry.scope, list_id=entry.list_id, source=entry.source,
                reason=entry.reason, created_at=entry.at,
            )  # fmt: skip
            created.append(row)
            added.append(row)
        elif row.removed_at is not None:
            _replace_reason(row, entry)
            added.append(row)
        elif _outranks(entry, row):
            _replace_reason(row, entry)
    Suppression.objects.using(database()).bulk_create(created)
    if added:
        transaction.on_commit(partial(_send_signals, added), using=database(), robust=True)
    return added


def _known(addresses: Iterable[str]) -> dict[tuple[str, str, str], Suppression]:
    wanted = sorted(addresses)
    known = {}
    for start in range(0, len(wanted), _CHUNK):
        rows = Suppression.objects.using(database()).filter(address__in=wanted[start : start + _CHUNK])
        for row in rows.order_by("id").select_for_update():
            known[row.address, row.scope, row.list_id] = row
    return known


def _is_permanent(entry: Entry) -> bool:
    return entry.source == Source.COMPLIANCE


# What is there only because SparkPost has it goes when SparkPost has it no more. Were it to hide that somebody has
# left, that would be forgotten with it.
_COMPLIANCE_RANK, _OWN_RANK, _SPARKPOST_RANK = range(3)
_RANKS = {Source.COMPLIANCE: _COMPLIANCE_RANK, Source.SPARKPOST: _SPARKPOST_RANK}


def _precedence(entry: Entry) -> tuple[object, ...]:
    """What the compliance team says, then the earliest of our own, then what only SparkPost says."""
    return _RANKS.get(entry.source, _OWN_RANK), entry.at, entry.source, entry.reason


def _outranks(entry: Entry, row: Suppression) -> bool:
    source = Source(row.source)
    return _precedence(entry) < (_RANKS.get(source, _OWN_RANK), row.created_at, source, row.reason)


def _replace_reason(row: Suppression, entry: Entry) -> None:
    row.source, row.reason, row.created_at = entry.source, entry.reason, entry.at
    if row.removed_at is not None:
        row.removed_at = row.synced_at = None
        row.refusal = ""
    row.save(using=database())


def _send_signals(added: Sequence[Suppression]) -> None:
    for row in added:
        address_suppressed.send_robust(
            Suppression, address=row.address, scope=row.scope, source=row.source, list_id=row.list_id,
            reason=row.reason,
        )  # fmt: skip


@retry_on_conflict
def remove(address: str, *, scope: Scope | None = None, list_id: str | None = None) -> int:
    """Take an address off the list. What SparkPost's compliance team put there stays.

    Args:
        address: in the form in which addresses are compared.
        scope: which mail it is to get again; all of it where it is ``None``.
        list_id: only mail of this list.

    Returns:
        How many entries there were.
    """
    rows = active().filter(address=address).exclude(source=Source.COMPLIANCE)
    if scope is not None:
        rows = rows.filter(scope=scope)
    if list_id is not None:
        rows = rows.filter(list_id=list_id)
    # Kept until SparkPost's list, which has it, is told.
    now = timezone.now()
    return rows.update(removed_at=now, cleared_at=now, synced_at=None, refusal="")


@retry_on_conflict
def purge() -> int:
    """Forget what was taken off a day ago and SparkPost's list knows of, or where there is no key to tell it with.

    Until then it is kept for what is heard of late: an event that happened before, or a listing that is old. Where soft
    bounces are counted it is kept for as long as one counts: those before it are not to bring the address back.

    Returns:
        How many entries, some at a time; none when nothing is left.
    """
    cutoff = timezone.now() - (_KEEP_REMOVED if soft_bounce_limit() is None else SOFT_BOUNCES_WITHIN)
    old = Q(synced_at__lt=cutoff) | ~Q(refusal="")
    if mailer_settings().SPARKPOST_API_KEY is None:
        old |= Q(synced_at=None)
    entries = Suppression.objects.using(database())
    ids = list(entries.filter(old, removed_at__lt=cutoff).order_by("id").values_list("id", flat=True)[:_CHUNK])
    # Unless somebody has put one there again meanwhile.
    entries.filter(old, removed_at__lt=cutoff, id__in=ids).delete()
    return len(ids)
