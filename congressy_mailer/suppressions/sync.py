"""Bringing our suppression list and SparkPost's together: first what SparkPost has, then what it lacks.

Where both sides have said something of the same address, the later word counts; what SparkPost's compliance team has
said always does. Each step is written down before the next, so that a run may end at any of them and the next one goes
on there. Doing a step twice, or two runs at once, changes nothing.

What SparkPost has is listed page by page: what has changed since the last listing, and once a day everything. Only when
a listing of everything has come to its end is it known what SparkPost has no more.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from django.db import IntegrityError
from django.db.models import Q, QuerySet
from django.utils import timezone

from .. import periodic, suppressions
from ..exceptions import SparkPostError
from ..models import Listing, Suppression
from ..models.transactions import database, without_conflicts
from ..sparkpost import suppression_list
from ..sparkpost.client import Client, api_client
from ..sparkpost.suppression_list import MAX_ENTRIES, RemoteEntry
from .entries import Entry
from .rules import Source

#: How long one run may take, in seconds, before it leaves the rest to the next.
LONGEST = 20.0

# What is listed may be up to 20 minutes old (API reference, "Retrieve a Suppression"), and clocks differ.
_OVERLAP = timedelta(minutes=30)

_EVERYTHING_EVERY = timedelta(days=1)

# Rows of one transaction.
_CHUNK = 500

# HTTP statuses that speak of what was put there, and not of whoever did, when, or how often.
_ABOUT_ENTRIES = (400, 413, 422)

# Not so many are wrong one by one: something else is.
_MOST_REFUSED = 100

_NAME = "suppressions"

# Sources of what is ours only because SparkPost has it.
_SPARKPOSTS = (Source.SPARKPOST, Source.COMPLIANCE)


@dataclass
class Synced:
    """What a run has done."""

    #: Entries of SparkPost's that were looked at.
    listed: int = 0
    #: Addresses that have come onto our list.
    taken_over: int = 0
    #: Entries that have gone from our list, since SparkPost has them no more.
    gone: int = 0
    #: Entries that SparkPost was told to add.
    told: int = 0
    #: Entries that SparkPost was told to delete.
    deleted: int = 0
    #: Entries that SparkPost has not taken; the reason is with each.
    refused: int = 0
    #: Whether nothing is left for another run.
    done: bool = False


def sync(*, full: bool = False, seconds: float = LONGEST) -> Synced:
    """Bring the two lists together, as far as the time reaches.

    Args:
        full: have SparkPost list everything, although it is not time for that.
        seconds: how long to go on at the most; a step that has begun is finished.

    Raises:
        SparkPostError: there is no ``SPARKPOST_API_KEY``, or SparkPost says no or cannot be asked. What is done is
            done, and the next run goes on there.
    """
    run = _Run(api_client(), time.monotonic() + seconds)
    synced = run.synced
    synced.done = run.list_everything_or_changes(full) and run.tell_removed() and run.tell_added()
    return synced


class _Run:
    def __init__(self, client: Client, until: float) -> None:
        self._client = client
        self._until = until
        self.synced = Synced()

    def _in_time(self) -> bool:
        return time.monotonic() < self._until

    # Each of these says whether it has come to its end.

    def list_everything_or_changes(self, full: bool) -> bool:
        listing = _open(full)
        begun_again = False
        while True:
            place = listing.place or suppression_list.first_place(listing.since)
            try:
                page = suppression_list.page(self._client, place)
            except SparkPostError as error:
                # Its places do not last for ever.
                if not listing.place or begun_again or error.status not in (400, 404, 410, 422):
                    raise
                begun_again = True
                _listings().delete()
                listing = _open(full or listing.since is None)
                continue
            self.synced.listed += len(page.entries)
            for start in range(0, len(page.entries), _CHUNK):
                self.synced.taken_over += _take_over(page.entries[start : start + _CHUNK])
            if not page.place:
                break
            if not _listings().filter(started_at=listing.started_at, place=listing.place).update(place=page.place):
                # Another run is at it, too.
                return False
            listing.place = page.place
            if not self._in_time():
                return False
        if listing.since is None:
            while gone := _forget_missing(listing):
                self.synced.gone += gone
            while _have_told_again(listing):
                pass
            periodic.done(periodic.EVERYTHING_LISTED, listing.started_at)
        periodic.done(periodic.CHANGES_LISTED, listing.started_at)
        _listings().filter(started_at=listing.started_at).delete()
        return True

    def tell_removed(self) -> bool:
        for row in _untold().exclude(removed_at=None).order_by("id")[:MAX_ENTRIES]:
            self._tell_removed(row)
            if not self._in_time():
                return not _untold().exclude(removed_at=None).exists()
        return True

    def _tell_removed(self, row: Suppression) -> None:
        key = (row.address, row.scope, row.list_id)
        # What is deleted must be what somebody took off, and nothing that was added there since.
        there = [entry for entry in suppression_list.find(self._client, row.address) if entry.key == key]
        assert row.cleared_at is not None
        if any(entry.compliance or entry.updated_at > row.cleared_at for entry in there):
            self.synced.taken_over += _take_over(there)
            return
        if there:
            try:
                suppression_list.delete(self._client, row)
            except SparkPostError as error:
                # Put there for good after it was asked for. Else it is the key that may not.
                if "compliance" not in str(error).lower():
                    raise
                _mark([row], refusal=str(error))
                return
            self.synced.deleted += 1
        _mark([row])

    def tell_added(self) -> bool:
        while rows := list(_untold().filter(removed_at=None).order_by("id")[:MAX_ENTRIES]):
            for some in self._taken(rows):
                _mark(some)
                self.synced.told += len(some)
            if not self._in_time():
                return not _untold().exists()
        return True

    def _taken(self, rows: Sequence[Suppression]) -> Iterator[Sequence[Suppression]]:
        """Put these there; where SparkPost does not take them together, it is found out which it does not take."""
        try:
            suppression_list.put(self._client, rows)
        except SparkPostError as error:
            if error.in_doubt:
                _clear_overtaken(rows)
            if error.status not in _ABOUT_ENTRIES:
                raise
            if self.synced.refused >= _MOST_REFUSED:
                # Its own words name addresses.
                raise SparkPostError(
                    f"SparkPost has refused {self.synced.refused} entries of the suppression list. Why is with each, "
                    "in the admin.",
                    status=error.status,
                ) from None
            if len(rows) == 1:
                self.synced.refused += 1
                _mark(rows, refusal=str(error))
                return
        else:
            _clear_overtaken(rows)
            yield rows
            return
        middle = len(rows) // 2
        yield from self._taken(rows[:middle])
        # Not before: whatever time there is, something must come of it.
        if self._in_time():
            yield from self._taken(rows[middle:])


def _open(full: bool) -> Listing:
    """The listing that an earlier run has begun, or a new one."""
    now = timezone.now()
    if full:
        # One of changes only would not tell.
        _listings().exclude(since=None).delete()
    listing = _listings().first()
    if listing is not None:
        return listing
    everything = periodic.last(periodic.EVERYTHING_LISTED)
    changes = periodic.last(periodic.CHANGES_LISTED)
    if full or changes is None or everything is None or everything < now - _EVERYTHING_EVERY:
        listing = Listing(name=_NAME, started_at=now)
    else:
        listing = Listing(name=_NAME, started_at=now, since=changes - _OVERLAP)
    try:
        _create(listing)
    except IntegrityError:
        # Another run has begun at this moment.
        return _listings().get()
    return listing


@without_conflicts
def _create(listing: Listing) -> None:
    listing.save(force_insert=True, using=database())


def _listings() -> QuerySet[Listing]:
    return Listing.objects.using(database())


def _take_over(entries: Sequence[RemoteEntry]) -> int:
    """Have our list say what SparkPost's says; returns how many addresses have come onto ours."""
    added = suppressions.add(
        Entry(
            at=entry.updated_at,
            source=Source.COMPLIANCE if entry.compliance else Source.SPARKPOST,
            reason=entry.reason,
            address=entry.address,
            scope=entry.scope,
            list_id=entry.list_id,
        )
        for entry in entries
    )
    _mark_listed({entry.key for entry in entries})
    return len(added)


@without_conflicts
def _mark_listed(keys: Collection[tuple[str, str, str]]) -> None:
    # What was taken off here is still to be deleted there.
    rows = suppressions.active().filter(address__in=sorted({address for address, _, _ in keys})).order_by("id")
    same = [row.id for row in rows.select_for_update() if (row.address, row.scope, row.list_id) in keys]
    _all().filter(id__in=same).update(synced_at=timezone.now(), refusal="")


@without_conflicts
def _forget_missing(listing: Listing) -> int:
    """Take off what was only SparkPost's own and is there no more, some at a time; returns how much."""
    ids = _missing(listing, Q(source__in=_SPARKPOSTS))
    # What was added there after the listing had begun is later than this.
    cleared_at = listing.started_at - _OVERLAP
    now = timezone.now()
    return _all().filter(id__in=ids).update(removed_at=now, cleared_at=cleared_at, synced_at=now)


@without_conflicts
def _have_told_again(listing: Listing) -> int:
    """The same for what is ours: SparkPost is told of it again."""
    return _all().filter(id__in=_missing(listing, ~Q(source__in=_SPARKPOSTS))).update(synced_at=None)


def _missing(listing: Listing, which: Q) -> list[UUID]:
    """What SparkPost had before, and has not listed."""
    missing = suppressions.active().filter(which, synced_at__lt=listing.started_at - _OVERLAP).order_by("id")
    return [row.id for row in missing.select_for_update()[:_CHUNK]]


def _untold() -> QuerySet[Suppression]:
    """What SparkPost is still to be told."""
    return _all().filter(synced_at=None, refusal="").exclude(source=Source.COMPLIANCE)


def _all() -> QuerySet[Suppression]:
    return Suppression.objects.using(database())


def _clear_overtaken(told: Sequence[Suppression]) -> None:
    """What somebody took off while SparkPost was being told: that it is there now is our own word, and no later one."""
    for start in range(0, len(told), _CHUNK):
        ids = sorted(row.id for row in told[start : start + _CHUNK])
        _all().filter(id__in=ids, synced_at=None).exclude(removed_at=None).update(cleared_at=timezone.now())


def _mark(told: Sequence[Suppression], refusal: str = "") -> None:
    """SparkPost knows of these, or has refused them: unless something else has become of one meanwhile."""
    for start in range(0, len(told), _CHUNK):
        _mark_some(told[start : start + _CHUNK], refusal)


@without_conflicts
def _mark_some(told: Sequence[Suppression], refusal: str) -> None:
    as_told = {row.id: _said(row) for row in told}
    now = _all().filter(id__in=sorted(as_told)).order_by("id").select_for_update()
    same = [row.id for row in now if _said(row) == as_told[row.id]]
    _all().filter(id__in=same).update(synced_at=None if refusal else timezone.now(), refusal=refusal)


def _said(row: Suppression) -> tuple[object, ...]:
    return row.source, row.reason, row.created_at, row.removed_at, row.cleared_at
