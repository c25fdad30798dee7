"""Bringing our suppression list and SparkPost's together: first what SparkPost has, then what it lacks.

Where both sides have said something of the same address, the later word counts; what SparkPost's compliance team has
said always does. Each step is written down before the next, so that a run may end at any of them and the next one goes
on there. Doing a step twice, or two runs at once, changes nothing.

What SparkPost has is listed page by page: what has changed since the last listing, and once a day everything. Only when
a listing of everything has come to its end is it known what SparkPost has no more.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

from django.db import IntegrityError
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from .. import periodic, suppressions
from ..exceptions import SparkPostError
from ..models import Suppression, SuppressionRemoval, SyncCursor
from ..models.erased import PREFIX
from ..models.transactions import database, retry_on_conflict
from ..sparkpost import suppression_list
from ..sparkpost.client import Client, api_client
from ..sparkpost.suppression_list import MAX_ENTRIES, RemoteEntry
from .entries import REMOTE_SOURCES, Entry, is_removed, removals, removals_of

#: How long one run may take, in seconds, before it leaves the rest to the next.
MAX_SECONDS = 20.0

# What is listed may be up to 20 minutes old (API reference, "Retrieve a Suppression"), and clocks differ.
_OVERLAP = timedelta(minutes=30)

_FULL_SYNC_INTERVAL = timedelta(days=1)

# Rows of one transaction.
_CHUNK = 500

# HTTP statuses that concern the entry itself, not the caller's rights or rate.
_ENTRY_STATUSES = (400, 413, 422)

# Not so many are wrong one by one: something else is.
_MAX_REFUSED = 100

_NAME = "suppressions"


@dataclass
class SyncResult:
    """What a run has done."""

    #: Entries of SparkPost's that were looked at.
    fetched: int = 0
    #: Addresses that have come onto our list.
    imported: int = 0
    #: Entries that have gone from our list, since SparkPost has them no more.
    removed: int = 0
    #: Entries that were added at SparkPost.
    exported: int = 0
    #: Entries that were deleted at SparkPost.
    deleted: int = 0
    #: Entries that SparkPost has not taken; the reason is with each.
    refused: int = 0
    #: Whether nothing is left for another run.
    complete: bool = False


def sync(*, full: bool = False, seconds: float = MAX_SECONDS) -> SyncResult:
    """Bring the two lists together, as far as the time reaches.

    Args:
        full: have SparkPost list everything, although it is not time for that.
        seconds: how long to go on at the most; a step that has begun is finished.

    Raises:
        SparkPostError: there is no ``SPARKPOST_API_KEY``, or SparkPost says no or cannot be asked. What is done is
            done, and the next run goes on there.
    """
    run = _Run(api_client(), time.monotonic() + seconds)
    result = run.result
    result.complete = run.fetch(full) and run.push_removed() and run.push_added()
    return result


class _Run:
    def __init__(self, client: Client, until: float) -> None:
        self._client = client
        self._until = until
        self.result = SyncResult()

    def _in_time(self) -> bool:
        return time.monotonic() < self._until

    # Each of these says whether it has come to its end.

    def fetch(self, full: bool) -> bool:
        listing = _open_listing(full)
        restarted = False
        while True:
            cursor = listing.cursor or suppression_list.first_cursor(listing.since)
            try:
                page = suppression_list.fetch_page(self._client, cursor)
            except SparkPostError as error:
                # Its cursors do not last for ever.
                if not listing.cursor or restarted or error.status not in (400, 404, 410, 422):
                    raise
                restarted = True
                _listings().delete()
                listing = _open_listing(full or listing.since is None)
                continue
            self.result.fetched += len(page.entries)
            for start in range(0, len(page.entries), _CHUNK):
                self.result.imported += _import_entries(page.entries[start : start + _CHUNK])
            if not page.next_cursor:
                break
            if (
                not _listings()
                .filter(started_at=listing.started_at, cursor=listing.cursor)
                .update(cursor=page.next_cursor)
            ):
                # Another run is at it, too.
                return False
            listing.cursor = page.next_cursor
            if not self._in_time():
                return False
        if listing.since is None:
            while removed := _remove_missing(listing):
                self.result.removed += removed
            while _requeue_missing(listing):
                pass
            periodic.mark_run(periodic.FETCH_EVERYTHING, listing.started_at)
        periodic.mark_run(periodic.FETCH_CHANGES, listing.started_at)
        _listings().filter(started_at=listing.started_at).delete()
        return True

    def push_removed(self) -> bool:
        pending = removals().filter(synced_at=None, refusal="")
        for removal in pending.order_by("id")[:MAX_ENTRIES]:
            self._push_removed(removal)
            if not self._in_time():
                return not pending.exists()
        return True

    def _push_removed(self, removal: SuppressionRemoval) -> None:
        refusal = ""
        remote = suppression_list.entries_of(self._client, removal.address)
        # What was added there since stays, and so does what is on our list by another reason.
        self.result.imported += _import_entries(remote)
        suppressed = set(suppressions.active().filter(address=removal.address).values_list("scope", "list_id"))
        for entry in remote:
            if (entry.scope, entry.list_id) in suppressed or not is_removed(_entry_of(entry, [removal]), [removal]):
                continue
            try:
                suppression_list.delete(self._client, entry)
            except SparkPostError as error:
                # Put there for good after it was asked for. Else it is the key that may not.
                if "compliance" not in str(error).lower():
                    raise
                refusal = str(error)
            else:
                self.result.deleted += 1
        # Unless it was taken off again meanwhile.
        removals().filter(id=removal.id, removed_at=removal.removed_at, since=removal.since).update(
            synced_at=None if refusal else timezone.now(), refusal=refusal
        )

    def push_added(self) -> bool:
        while rows := list(pending().order_by("id")[:MAX_ENTRIES]):
            for accepted in self._put_splitting(rows):
                _mark(accepted)
                self.result.exported += len(accepted)
            if not self._in_time():
                return not pending().exists()
        return True

    def _put_splitting(self, rows: Sequence[Suppression]) -> Iterator[Sequence[Suppression]]:
        """Put these there; where SparkPost does not take them together, it is found out which it does not take."""
        try:
            suppression_list.put(self._client, rows)
        except SparkPostError as error:
            if error.status not in _ENTRY_STATUSES:
                raise
            if self.result.refused >= _MAX_REFUSED:
                # Its own words name addresses.
                raise SparkPostError(
                    f"SparkPost has refused {self.result.refused} entries of the suppression list. Why is with each, "
                    "in the admin.",
                    status=error.status,
                ) from None
            if len(rows) == 1:
                self.result.refused += 1
                _mark(rows, refusal=str(error))
                return
        else:
            yield rows
            return
        middle = len(rows) // 2
        yield from self._put_splitting(rows[:middle])
        # Not before: each run must make progress, however little time it has.
        if self._in_time():
            yield from self._put_splitting(rows[middle:])


def _open_listing(full: bool) -> SyncCursor:
    """The listing that an earlier run has begun, or a new one."""
    now = timezone.now()
    if full:
        # One of changes only would not tell.
        _listings().exclude(since=None).delete()
    listing = _listings().first()
    if listing is not None:
        return listing
    everything = periodic.last_run(periodic.FETCH_EVERYTHING)
    changes = periodic.last_run(periodic.FETCH_CHANGES)
    if full or changes is None or everything is None or everything < now - _FULL_SYNC_INTERVAL:
        listing = SyncCursor(name=_NAME, started_at=now)
    else:
        listing = SyncCursor(name=_NAME, started_at=now, since=changes - _OVERLAP)
    try:
        _create(listing)
    except IntegrityError:
        # Another run has begun at this moment.
        return _listings().get()
    return listing


@retry_on_conflict
def _create(listing: SyncCursor) -> None:
    listing.save(force_insert=True, using=database())


def _listings() -> QuerySet[SyncCursor]:
    return SyncCursor.objects.using(database())


@retry_on_conflict
def _import_entries(entries: Sequence[RemoteEntry]) -> int:
    """Have our list say what SparkPost's says; returns how many addresses have come onto ours."""
    addresses = {entry.address for entry in entries}
    removed = removals_of(addresses)
    added = suppressions.add(_entry_of(entry, removed.get(entry.address, ())) for entry in entries)
    keys = {entry.key for entry in entries}
    _mark_fetched(keys)
    listed = suppressions.active().filter(address__in=sorted(addresses)).values_list("address", "scope", "list_id")
    # What was taken off here and is there all the same is to be deleted there, perhaps once more.
    still_there = {address for address, *_ in keys - set(listed)} & set(removed)
    removals().filter(address__in=sorted(still_there), refusal="").update(synced_at=None)
    return len(added)


def _entry_of(remote: RemoteEntry, removed: Iterable[SuppressionRemoval]) -> Entry:
    """SparkPost's entry as one of ours.

    What SparkPost shows because we put it there is no later word than our own, whatever SparkPost's clock says: where
    it was taken off here, it came up before.
    """
    entry = Entry(
        at=remote.updated_at, source=remote.source, reason=remote.reason, address=remote.address, scope=remote.scope,
        list_id=remote.list_id,
    )  # fmt: skip
    if remote.source not in REMOTE_SOURCES:
        for removal in removed:
            before = replace(entry, at=min(entry.at, removal.removed_at))
            if is_removed(before, [removal]):
                return before
    return entry


@retry_on_conflict
def _mark_fetched(keys: Collection[tuple[str, str, str]]) -> None:
    rows = suppressions.active().filter(address__in=sorted({address for address, _, _ in keys})).order_by("id")
    same = [row.id for row in rows.select_for_update() if (row.address, row.scope, row.list_id) in keys]
    _all().filter(id__in=same).update(synced_at=timezone.now(), refusal="")


@retry_on_conflict
def _remove_missing(listing: SyncCursor) -> int:
    """Take off what was only SparkPost's own and is there no more, some at a time; returns how much."""
    return _all().filter(id__in=_missing(listing, Q(source__in=REMOTE_SOURCES))).delete()[0]


@retry_on_conflict
def _requeue_missing(listing: SyncCursor) -> int:
    """The same for our own entries: they are sent to SparkPost again."""
    return _all().filter(id__in=_missing(listing, ~Q(source__in=REMOTE_SOURCES))).update(synced_at=None)


def _missing(listing: SyncCursor, which: Q) -> list[UUID]:
    """What SparkPost had before, and has not listed.

    Nothing is concluded from a listing that may be older than a deletion of ours at the same address.
    """
    listed_since = listing.started_at - _OVERLAP
    deleted = removals().filter(address=OuterRef("address"), synced_at__gte=listed_since)
    missing = _all().filter(which, ~Exists(deleted), synced_at__lt=listed_since).order_by("id")
    return [row.id for row in missing.select_for_update()[:_CHUNK]]


def pending() -> QuerySet[Suppression]:
    """The changes that SparkPost does not know yet."""
    return _all().filter(synced_at=None, refusal="").exclude(source__in=REMOTE_SOURCES)


def _all() -> QuerySet[Suppression]:
    """Entries that SparkPost can store: a hash means nothing there."""
    return Suppression.objects.using(database()).exclude(address__startswith=PREFIX)


def _mark(rows: Sequence[Suppression], refusal: str = "") -> None:
    """SparkPost knows of these, or has refused them: unless something else has become of one meanwhile."""
    for start in range(0, len(rows), _CHUNK):
        _mark_chunk(rows[start : start + _CHUNK], refusal)


@retry_on_conflict
def _mark_chunk(rows: Sequence[Suppression], refusal: str) -> None:
    as_sent = {row.id: _version(row) for row in rows}
    now = _all().filter(id__in=sorted(as_sent)).order_by("id").select_for_update()
    same = [row.id for row in now if _version(row) == as_sent[row.id]]
    _all().filter(id__in=same).update(synced_at=None if refusal else timezone.now(), refusal=refusal)


def _version(row: Suppression) -> tuple[object, ...]:
    return row.source, row.reason, row.created_at
