"""Dropping what is old: content first, whole messages later."""

from __future__ import annotations

import logging
from collections.abc import Collection
from contextlib import suppress
from datetime import date, timedelta
from functools import partial
from uuid import UUID

from django.core.files.storage import Storage
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from ..conf import mailer_settings
from ..models import ATTACHMENT_FOLDER, Attachment, Batch, Event, Message, attachment_storage
from .rows import database, rows, without_conflicts

logger = logging.getLogger("congressy_mailer.retention")

# Rows of one transaction: short enough that nobody waits for its locks.
_CHUNK = 500


def purge() -> bool:
    """Drop one chunk of each: content that is older than ``KEEP_CONTENT``, messages older than ``KEEP_MESSAGES``.

    Only messages in a final state are touched, and their age counts from when they reached it.

    Returns:
        Whether there may be more to drop.
    """
    conf = mailer_settings()
    left = Attachment.objects.using(database()).filter(message__content_dropped_at__isnull=False)[:_CHUNK]
    chunks = [
        _drop_old_content(conf.KEEP_CONTENT) if conf.KEEP_CONTENT is not None else 0,
        _delete_old_messages(conf.KEEP_MESSAGES) if conf.KEEP_MESSAGES is not None else 0,
        _remove_files(left),
    ]
    return any(chunk >= _CHUNK for chunk in chunks)


def _finished_before(keep: timedelta, **conditions: object) -> list[UUID]:
    old = Message.objects.using(database()).filter(finished_at__lt=timezone.now() - keep, **conditions)
    return list(old.order_by("finished_at").values_list("id", flat=True)[:_CHUNK])


def _drop_old_content(keep: timedelta) -> int:
    ids = _finished_before(keep, content_dropped_at__isnull=True)
    drop_content(ids)
    return len(ids)


@without_conflicts
def drop_content(ids: Collection[UUID]) -> None:
    """Forget what messages said: subject, text, context and attachments. Who got them and when stays."""
    if not ids:
        return
    rows(ids).update(
        context=None, subject="", text="", html="", mime=None, headers={}, content_dropped_at=timezone.now()
    )
    attachments = Attachment.objects.using(database()).filter(message_id__in=ids)
    transaction.on_commit(partial(_remove_files, attachments), using=database(), robust=True)


def _remove_files(attachments: QuerySet[Attachment]) -> int:
    """Delete files, and their rows once the file is gone: what a storage refuses now is tried at the next purge."""
    gone = []
    for attachment in attachments:
        try:
            attachment.file.storage.delete(str(attachment.file.name))
        except Exception as error:
            logger.warning(
                "The file of attachment %s cannot be deleted now: %s: %s", attachment.id, type(error).__name__, error
            )
        else:
            gone.append(attachment.id)
    Attachment.objects.using(database()).filter(id__in=gone).delete()
    return len(gone)


def _delete_old_messages(keep: timedelta) -> int:
    ids = _finished_before(keep)
    _remove_files(Attachment.objects.using(database()).filter(message_id__in=ids))
    # The row of a file that the storage refuses to delete keeps its message until it can be.
    stuck = Attachment.objects.using(database()).filter(message_id__in=ids).values_list("message_id", flat=True)
    deletable = sorted(set(ids) - set(stuck))
    _delete(deletable)
    return len(deletable)


@without_conflicts
def _delete(ids: Collection[UUID]) -> None:
    Event.objects.using(database()).filter(message_id__in=ids).delete()
    batches = set(rows(ids).exclude(batch=None).values_list("batch_id", flat=True))
    rows(ids).delete()
    Batch.objects.using(database()).filter(id__in=batches, messages__isnull=True).delete()


def remove_orphans(after: date | None) -> date:
    """Delete attachment files without a row: those of callers whose transaction was rolled back.

    Files lie in a directory for each day, so that each day is looked through once, two days later.

    Args:
        after: the last day that was looked through; ``None`` to begin with the first.

    Returns:
        The last day that is looked through now.
    """
    storage = attachment_storage()
    until = (timezone.now() - timedelta(days=2)).date()
    for day in _days(storage):
        if day <= until and (after is None or day > after):
            folder = f"{ATTACHMENT_FOLDER}/{day}"
            paths = [f"{folder}/{name}" for name in storage.listdir(folder)[1]]
            for start in range(0, len(paths), _CHUNK):
                _remove_unknown(storage, paths[start : start + _CHUNK])
    return until


def _days(storage: Storage) -> list[date]:
    days = []
    # A storage that is empty has no such directory, and some storages cannot list.
    with suppress(FileNotFoundError, NotImplementedError):
        for name in storage.listdir(ATTACHMENT_FOLDER)[0]:
            with suppress(ValueError):
                days.append(date.fromisoformat(name))
    return sorted(days)


def _remove_unknown(storage: Storage, paths: list[str]) -> None:
    known = set(Attachment.objects.using(database()).filter(file__in=paths).values_list("file", flat=True))
    for path in paths:
        if path not in known:
            storage.delete(path)
