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
from ..models import Suppression, SyncCursor
from ..models.transactions import database, retry_on_conflict
from ..sparkpost import suppression_list
from ..sparkpost.client import Client, api_client
from ..sparkpost.suppression_list import MAX_ENTRIES, RemoteEntry
from .entries import Entry
from .rules import Source

#: How long one run may take, in seconds, before it leaves the rest to the next.
MAX_SECONDS = 20.0

# What is listed may be up to 20 minutes old (API reference, "Retrieve a Suppression"), and clocks differ.
_OVERLAP = timedelta(minutes=30)

_FULL_SYNC_INTERVAL = timedelta(days=1)

# Rows of one transaction.
_CHUNK = 500

# HTTP statuses that speak of what was put there, and not of whoever did, when, or how often.
_ENTRY_STATUSES = (400, 413, 422)

# Not so many are wrong one by one: something else is.
_MAX_REFUSED = 100

_NAME = "suppressions"

# Sources of what is ours only because SparkPost has it.
_REMOTE_SOURCES = (Source.SPARKPOST, Source.COMPLIANCE)


@dataclass
class SyncResult:
    """What a run has done."""

    #: Entries of SparkPost's that were looked at.
    fetched: int = 0
    #: Addresses that have come onto our list.
    imported: int = 0
    #: Entries that have gone from our list, since SparkPost has them no more.
    removed: int = 0
    #: Entries that SparkPost was told to add.
    exported: int = 0
    #: Entries that SparkPost was told to delete.
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
        for row in _pending().exclude(removed_at=None).order_by("id")[:MAX_ENTRIES]:
            self._push_removed(row)
            if not self._in_time():
                return not _pending().exclude(removed_at=None).exists()
        return True

    def _push_removed(self, row: Suppression) -> None:
        key = (row.address, row.scope, row.list_id)
        # What is deleted must be what somebody took off, and nothing that was added there since.
        remote = [entry for entry in suppression_list.entries_of(self._client, row.address) if entry.key == key]
        assert row.cleared_at is not None
        if any(entry.compliance or entry.updated_at > row.cleared_at for entry in remote):
            self.result.imported += _import_entries(remote)
            return
        if remote:
            try:
                suppression_list.delete(self._client, row)
            except SparkPostError as error:
                # Put there for good after it was asked for. Else it is the key that may not.
                if "compliance" not in str(error).lower():
                    raise
                _mark([row], refusal=str(error))
                return
            self.result.deleted += 1
        _mark([row])

    def push_added(self) -> bool:
        while rows := list(_pending().filter(removed_at=None).order_by("id")[:MAX_ENTRIES]):
            for accepted in self._put_splitting(rows):
                _mark(accepted)
                self.result.exported += len(accepted)
            if not self._in_time():
                return not _pending().exists()
        return True

    def _put_splitting(self, rows: Sequence[Suppression]) -> Iterator[Sequence[Suppression]]:
        """Put these there; where SparkPost does not take them together, it is found out which it does not take."""
        try:
            suppression_list.put(self._client, rows)
        except SparkPostError as error:
            if error.in_doubt:
                _clear_removed_meanwhile(rows)
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
            _clear_removed_meanwhile(rows)
            yield rows
            return
        middle = len(rows) // 2
        yield from self._put_splitting(rows[:middle])
        # Not before: whatever time there is, something must come of it.
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


def _import_entries(entries: Sequence[RemoteEntry]) -> int:
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
    _mark_fetched({entry.key for entry in entries})
    return len(added)


@retry_on_conflict
def _mark_fetched(keys: Collection[tuple[str, str, str]]) -> None:
    # What was taken off here is still to be deleted there.
    rows = suppressions.active().filter(address__in=sorted({address for address, _, _ in keys})).order_by("id")
    same = [row.id for row in rows.select_for_update() if (row.address, row.scope, row.list_id) in keys]
    _all().filter(id__in=same).update(synced_at=timezone.now(), refusal="")


@retry_on_conflict
def _remove_missing(listing: SyncCursor) -> int:
    """Take off what was only SparkPost's own and is there no more, some at a time; returns how much."""
    ids = _missing(listing, Q(source__in=_REMOTE_SOURCES))
    # What was added there after the listing had begun is later than this.
    cleared_at = listing.started_at - _OVERLAP
    now = timezone.now()
    return _all().filter(id__in=ids).update(removed_at=now, cleared_at=cleared_at, synced_at=now)


@retry_on_conflict
def _requeue_missing(listing: SyncCursor) -> int:
    """The same for what is ours: SparkPost is told of it again."""
    return _all().filter(id__in=_missing(listing, ~Q(source__in=_REMOTE_SOURCES))).update(synced_at=None)


def _missing(listing: SyncCursor, which: Q) -> list[UUID]:
    """What SparkPost had before, and has not listed."""
    missing = suppressions.active().filter(which, synced_at__lt=listing.started_at - _OVERLAP).order_by("id")
    return [row.id for row in missing.select_for_update()[:_CHUNK]]


def _pending() -> QuerySet[Suppression]:
    """What SparkPost is still to be told."""
    return _all().filter(synced_at=None, refusal="").exclude(source=Source.COMPLIANCE)


def _all() -> QuerySet[Suppression]:
    return Suppression.objects.using(database())


def _clear_removed_meanwhile(rows: Sequence[Suppression]) -> None:
    """What somebody took off while SparkPost was being told: that it is there now is our own word, and no later one."""
    for start in range(0, len(rows), _CHUNK):
        ids = sorted(row.id for row in rows[start : start + _CHUNK])
        _all().filter(id__in=ids, synced_at=None).exclude(removed_at=None).update(cleared_at=timezone.now())


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
    return row.source, row.reason, row.created_at, row.removed_at, row.cleared_at
