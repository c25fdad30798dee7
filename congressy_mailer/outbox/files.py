"""The files of attachments: each has a row before it is uploaded, and is deleted because a row says so.

A row is written before the upload, so that a caller who dies afterwards leaves a trace: the row, or, where his
transaction was rolled back, a gap in the numbers. A file that nobody uses any more gets its time of deletion in the
transaction that drops what used it. So the storage never has to list anything, and nothing is compared with all
attachments there are.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from celery.exceptions import SoftTimeLimitExceeded
from django.core.files.storage import Storage
from django.db import connections
from django.db.models import Case, F, Max, Q, QuerySet, Value, When

from ..models import Attachment, Batch, Installation, StoredFile, attachment_storage, clock
from ..models.transactions import database, lock_free, retry_on_conflict
from ..replies import error_text
from .backoff import delay
from .installation import current_installation, may_delete_files
from .settled import LONGEST_SUBMISSION, is_settled

logger = logging.getLogger("congressy_mailer.retention")

#: A caller who has not stored by then what he uploaded a file for has died or rolled it back.
UPLOAD_TIME = timedelta(days=2)

#: A worker that deletes a file has done so by then, or has died.
_CLAIM = timedelta(minutes=10)
_FIRST_RETRY = timedelta(minutes=5)
_LONGEST_RETRY = timedelta(days=1)

# A storage may be far away: few enough that a time slice ends.
_CHUNK = 50
# After so many failures in a row the storage is away, and the others wait for it.
_MOST_FAILURES = 10
_NUMBERS = 1000
# So many numbers after the last row without a file are the end.
_NUMBERS_AHEAD = 10
# Numbers that are tried where something lies at their paths.
_MOST_NUMBERS = 3
_MOST_NUMBERS_ON_SQLITE = 1000


def reserve_file(is_taken: Callable[[str], bool]) -> tuple[StoredFile, str]:
    """Give out the number of a file that is to be uploaded now, in the caller's transaction, with its path.

    Args:
        is_taken: whether something lies at a path. Nothing is written over it: where this database is a copy, or was
            restored from a backup, it may be a file that the original needs.
    """
    installation = current_installation()
    # On SQLite these are files of callers that rolled back, and there may be many of them.
    tries = _MOST_NUMBERS_ON_SQLITE if _reuses_numbers() else _MOST_NUMBERS
    for _ in range(tries):
        stored = _files().create(installation=installation.key, delete_at=clock.now() + UPLOAD_TIME)
        path = installation.path(stored.pk)
        if not is_taken(path):
            break
    return stored, path


def _reuses_numbers() -> bool:
    """Whether the database gives the numbers of a transaction that was rolled back out again."""
    return connections[database()].vendor == "sqlite"


def find_shared_file(batch: Batch, sha256: str) -> tuple[StoredFile, str] | None:
    """A file with this content that messages of the batch share, with its path.

    It stays for :data:`UPLOAD_TIME` at the least, until the caller has stored what it goes with.
    """
    shared = _files().filter(shared_by=batch.pk, sha256=sha256)
    stored = shared.order_by("id").first()
    later = Case(When(delete_at__isnull=False, then=Value(clock.now() + UPLOAD_TIME)))
    # Unless it is being deleted at this moment.
    if stored is None or not shared.filter(pk=stored.pk).update(delete_at=later):
        return None
    return stored, stored.name or current_installation().path(stored.pk)


def share_file(stored: StoredFile, batch: Batch, sha256: str) -> None:
    """Let further messages of the batch have this file, which is uploaded."""
    _files().filter(pk=stored.pk).update(shared_by=batch.pk, sha256=sha256)


def rename_file(stored: StoredFile, name: str) -> None:
    """Note that the storage gave the file another path."""
    _files().filter(pk=stored.pk).update(name=name)


def store_attachments(attachments: Sequence[Attachment]) -> None:
    """Store the rows of attachments whose files are uploaded, in the transaction that stores what they belong to."""
    for ids, count in _by_count(Counter(attachment.stored_id for attachment in attachments)):
        _files().filter(id__in=ids).update(uses=F("uses") + count, delete_at=None)
    Attachment.objects.using(database()).bulk_create(attachments)


def forget_files(attachments: Iterable[Attachment]) -> None:
    """Have files deleted that were uploaded for attachments which are not stored; those that others share stay."""
    ids = sorted({attachment.stored_id for attachment in attachments})
    _files().filter(id__in=ids, uses=0).update(delete_at=clock.now())


def release_files(attachments: QuerySet[Attachment]) -> list[int]:
    """Delete rows of attachments, in the transaction that drops what they belong to; no other does so meanwhile.

    Returns:
        Numbers of the files that are to be deleted now, since nothing uses them any more.
    """
    # Locked, and so read as they are: a snapshot may show what another transaction has released already.
    locked = attachments.select_for_update().order_by("id").values_list("id", "stored_id")
    rows = list(locked)
    if not rows:
        return []
    Attachment.objects.using(database()).filter(id__in=[key for key, _ in rows]).delete()
    uses = Counter(stored for _, stored in rows)
    for ids, count in _by_count(uses):
        _files().filter(id__in=ids).update(uses=F("uses") - count)
    now = clock.now()
    unused = _files().filter(id__in=sorted(uses), uses=0)
    sharing = {key for key in unused.values_list("shared_by", flat=True) if key is not None}
    batches = Batch.objects.using(database()).filter(id__in=sorted(sharing))
    # While recipients of a batch are being stored, one of them may come to share the file.
    unsettled = batches.exclude(is_settled()).values_list("id", flat=True)
    kept = unused.filter(shared_by__in=list(unsettled))
    kept.update(delete_at=now + LONGEST_SUBMISSION)
    unused.filter(Q(delete_at=None) | Q(delete_at__lte=now)).update(delete_at=now)
    return list(unused.filter(delete_at=now).values_list("id", flat=True))


def _by_count(counts: Mapping[int, int]) -> list[tuple[list[int], int]]:
    """Numbers of files by how often each occurs: one statement for all that are the same."""
    ids: dict[int, list[int]] = defaultdict(list)
    for key in sorted(counts):
        ids[counts[key]].append(key)
    return [(some, count) for count, some in ids.items()]


def delete_files(numbers: Collection[int] | None = None) -> bool:
    """Delete some of the files that are due, those first that have been so for longest.

    Args:
        numbers: only of these; all that are due where it is ``None``.

    Returns:
        Whether there may be more to delete now.
    """
    due = _files().filter(delete_at__lte=clock.now())
    if numbers is not None:
        due = due.filter(id__in=sorted(numbers))
    # Not asked where there is nothing to do.
    if not due.exists() or not may_delete_files():
        return False
    installation = current_installation()
    claimed = _claim(due.order_by("delete_at"))
    # Those of another installation are its own affair.
    gone = [stored.pk for stored in claimed if stored.installation != installation.key]
    failed: dict[int, str] = {}
    storage = attachment_storage()
    away = False
    in_a_row = 0
    try:
        for stored in claimed:
            if stored.installation != installation.key:
                continue
            if away := in_a_row >= _MOST_FAILURES:
                break
            error = _delete(storage, stored.name or installation.path(stored.pk))
            if error is None:
                gone.append(stored.pk)
                in_a_row = 0
            else:
                failed[stored.pk] = error
                in_a_row += 1
    finally:
        _record(gone, failed)
    if failed:
        logger.warning(
            "%d attachment files cannot be deleted now, and are tried again later: %s",
            len(failed), next(iter(failed.values())),
        )  # fmt: skip
    return len(claimed) == _CHUNK and not away


@retry_on_conflict
def _claim(due: QuerySet[StoredFile]) -> list[StoredFile]:
    claimed = list(lock_free(due)[:_CHUNK])
    # From here on no message can come to share it.
    ids = sorted(stored.pk for stored in claimed)
    _files().filter(id__in=ids, uses=0).update(delete_at=clock.now() + _CLAIM, shared_by=None)
    return claimed


def _delete(storage: Storage, path: str) -> str | None:
    """Why it cannot be deleted; ``None``: it is gone."""
    try:
        storage.delete(path)
    except FileNotFoundError:
        return None
    except SoftTimeLimitExceeded:
        raise
    except Exception as error:
        return error_text(error)
    return None


@retry_on_conflict
def _record(gone: Collection[int], failed: Mapping[int, str]) -> None:
    _files().filter(id__in=sorted(gone), uses=0).delete()
    now = clock.now()
    for stored in _files().filter(id__in=sorted(failed)).order_by("id"):
        _files().filter(pk=stored.pk).update(
            attempts=F("attempts") + 1,
            delete_at=now + delay(stored.attempts + 1, _FIRST_RETRY, _LONGEST_RETRY),
            failed_since=stored.failed_since or now,
            error=failed[stored.pk],
        )


def find_lost_files() -> bool:
    """Have files deleted whose callers rolled back after the upload: their numbers have no row.

    The numbers that were given out until now are looked at when :data:`UPLOAD_TIME` is over.

    Returns:
        Whether there may be more to find now.
    """
    installation = current_installation()
    if _reuses_numbers():
        _check_numbers_ahead(installation)
    if installation.marked_at is not None and clock.now() - installation.marked_at < UPLOAD_TIME:
        return False
    if installation.checked_number < installation.marked_number:
        return _check_numbers(installation)
    _mark_numbers(installation)
    return False


@retry_on_conflict
def _mark_numbers(installation: Installation) -> None:
    # One more, since those after the last row may be lost as well.
    last = _files().create(installation=installation.key, delete_at=clock.now())
    _files().filter(pk=last.pk).delete()
    _change(installation, marked_number=last.pk, marked_at=clock.now())


@retry_on_conflict
def _check_numbers(installation: Installation) -> bool:
    first = installation.checked_number + 1
    last = min(installation.checked_number + _NUMBERS, installation.marked_number)
    known = set(_files().filter(id__range=(first, last)).values_list("id", flat=True))
    _add_rows(installation, [number for number in range(first, last + 1) if number not in known])
    _change(installation, checked_number=last)
    return True


def _check_numbers_ahead(installation: Installation) -> None:
    """The numbers of transactions that were rolled back are those after the highest, where they are given out again."""
    storage = attachment_storage()
    number = (_files().aggregate(highest=Max("id"))["highest"] or 0) + 1
    missing = 0
    found: list[int] = []
    try:
        while missing < _NUMBERS_AHEAD and len(found) < _NUMBERS:
            if storage.exists(installation.path(number)):
                found.append(number)
                missing = 0
            else:
                missing += 1
            number += 1
    except SoftTimeLimitExceeded:
        raise
    except Exception as error:
        logger.warning("Files of callers that rolled back are looked for later: %s", error_text(error))
    # A caller who is storing one at this moment holds the database: these rows wait for his, and give way to them.
    _add_rows(installation, found)


def _add_rows(installation: Installation, numbers: Sequence[int]) -> None:
    now = clock.now()
    lost = [StoredFile(id=number, installation=installation.key, delete_at=now) for number in numbers]
    _files().bulk_create(lost, ignore_conflicts=True)


def _change(installation: Installation, **values: object) -> None:
    # Not after a copy was made an installation of its own.
    Installation.objects.using(database()).filter(key=installation.key).update(**values)


def failing_files() -> tuple[int, datetime | None, str]:
    """Files that the storage does not delete: how many, since when the first of them, and why."""
    failed = _files().filter(failed_since__isnull=False)
    first = failed.order_by("failed_since").first()
    return failed.count(), first.failed_since if first else None, first.error if first else ""


def _files() -> QuerySet[StoredFile]:
    return StoredFile.objects.using(database())
