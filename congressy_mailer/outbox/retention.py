"""Dropping what is old: content first, whole messages later.

Content goes after ``KEEP_CONTENT``. What is ``sensitive`` goes as soon as it is sent, since nobody needs it any more.
Of what ended otherwise only a failed or held message is worth sending again, once a person has put right what was
wrong; its content waits for that as long as the mailer itself would have gone on trying, ``RETRY_FOR``. What was
cancelled or has expired is not wanted any more, and its content goes with the next purge.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from contextlib import suppress
from datetime import date, timedelta
from functools import partial
from uuid import UUID

from celery.exceptions import SoftTimeLimitExceeded
from django.core.files.storage import Storage
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from ..conf import mailer_settings
from ..models import ATTACHMENT_FOLDER, Attachment, Batch, Event, Message, State, WebhookBatch, attachment_storage
from ..models.choices import FINAL
from ..models.transactions import database, retry_on_conflict
from .rows import rows

logger = logging.getLogger("congressy_mailer.retention")

# Rows of one transaction: short enough that nobody waits for its locks.
_CHUNK = 500

# Whoever has not come to the end of a batch's recipients by then does not go on with it.
_LONGEST_SUBMISSION = timedelta(days=7)


def purge() -> bool:
    """Drop one chunk of each: content that is older than ``KEEP_CONTENT``, messages older than ``KEEP_MESSAGES``.

    Only messages in a final state are touched, and their age counts from when they reached it. What a batch says is
    dropped when none of its messages has anything left to say.

    Returns:
        Whether there may be more to drop.
    """
    chunks = [
        _drop_sensitive_content(),
        _drop_old_content(),
        # In any order, so that files which a storage does not give up never stand before the others.
        _remove_files(_droppable_attachments().order_by("?")[:_CHUNK]),
        _delete_old_messages(),
        _drop_content_of_batches(),
        _delete_old_batches(),
        _delete_old_webhooks(),
        _delete_old_unmatched_events(),
    ]
    return any(chunk >= _CHUNK for chunk in chunks)


def _finished_before(keep: timedelta) -> QuerySet[Message]:
    return Message.objects.using(database()).filter(state__in=FINAL, finished_at__lt=timezone.now() - keep)


def _drop_sensitive_content() -> int:
    may_be_retried = Q(state__in=(State.FAILED, State.HELD))
    cutoff = timezone.now() - mailer_settings().RETRY_FOR
    return _drop(_finished_before(timedelta(0)).filter(~may_be_retried | Q(finished_at__lt=cutoff), sensitive=True))


def _drop_old_content() -> int:
    conf = mailer_settings()
    # What goes altogether loses its content first: from then on nobody can send it again.
    limits = [keep for keep in (conf.KEEP_CONTENT, conf.KEEP_MESSAGES) if keep is not None]
    return _drop(_finished_before(min(limits))) if limits else 0


def _drop(old: QuerySet[Message]) -> int:
    ids = old.filter(content_dropped_at__isnull=True).order_by("finished_at").values_list("id", flat=True)
    return drop_content(list(ids[:_CHUNK]))


@retry_on_conflict
def drop_content(ids: Collection[UUID]) -> int:
    """Forget what messages said: subject, text, context and attachments. Who got them and when stays.

    Returns:
        How many of them; those that somebody has queued again meanwhile keep what they say.
    """
    dropped = (
        rows(ids)
        .filter(state__in=FINAL)
        .update(context=None, subject="", text="", html="", mime=None, headers={}, content_dropped_at=timezone.now())
    )
    attachments = _droppable_attachments().filter(message_id__in=ids)
    transaction.on_commit(partial(_remove_files, attachments), using=database(), robust=True)
    return dropped


def _droppable_attachments() -> QuerySet[Attachment]:
    attachments = Attachment.objects.using(database())
    dropped = Q(message__content_dropped_at__isnull=False) | Q(batch__content_dropped_at__isnull=False)
    # While recipients of a batch are being stored, one of them may come to share the file.
    settled = Q(message__isnull=True) | Q(message__batch__isnull=True) | Q(message__sensitive=True)
    settled |= _is_settled("message__batch__")
    shared = attachments.filter(file=OuterRef("file"), message__content_dropped_at__isnull=True, batch__isnull=True)
    return attachments.filter(dropped, settled).exclude(Exists(shared))


def _is_settled(prefix: str = "") -> Q:
    """No further recipient comes to a batch: its caller has come to the end, was stopped, or broke off long ago."""
    long_ago = timezone.now() - _LONGEST_SUBMISSION
    ended = Q(**{f"{prefix}stored_at__isnull": False}) | Q(**{f"{prefix}cancelled_at__isnull": False})
    return ended | Q(**{f"{prefix}created_at__lt": long_ago})


@retry_on_conflict
def _drop_content_of_batches() -> int:
    with_content = Message.objects.using(database()).filter(batch=OuterRef("pk"), content_dropped_at__isnull=True)
    without_content = Batch.objects.using(database()).filter(
        _is_settled(), ~Exists(with_content), content_dropped_at__isnull=True
    )
    ids = list(without_content.order_by("created_at").values_list("id", flat=True)[:_CHUNK])
    Batch.objects.using(database()).filter(id__in=ids).update(
        context=None, subject="", text="", html="", headers={}, problems=[], content_dropped_at=timezone.now()
    )
    return len(ids)


@retry_on_conflict
def _delete_old_batches() -> int:
    keep = mailer_settings().KEEP_MESSAGES
    if keep is None:
        return 0
    messages = Message.objects.using(database()).filter(batch=OuterRef("pk"))
    # The row of a file that the storage refuses to delete keeps its batch until it can be.
    files = Attachment.objects.using(database()).filter(batch=OuterRef("pk"))
    old = Batch.objects.using(database()).filter(
        ~Exists(messages), ~Exists(files), content_dropped_at__isnull=False, created_at__lt=timezone.now() - keep
    )
    ids = list(old.order_by("created_at").values_list("id", flat=True)[:_CHUNK])
    Batch.objects.using(database()).filter(id__in=ids).delete()
    return len(ids)


@retry_on_conflict
def _delete_old_webhooks() -> int:
    """Batches of events that have been processed or set aside; what still waits for a worker stays."""
    limit = timezone.now() - mailer_settings().KEEP_WEBHOOKS
    old = WebhookBatch.objects.using(database()).filter(due_at=None, received_at__lt=limit).order_by("received_at")
    ids = list(old.values_list("id", flat=True)[:_CHUNK])
    WebhookBatch.objects.using(database()).filter(id__in=sorted(ids)).delete()
    return len(ids)


@retry_on_conflict
def _delete_old_unmatched_events() -> int:
    """Events of mails that are none of ours, or not known any more."""
    keep = mailer_settings().KEEP_MESSAGES
    if keep is None:
        return 0
    old = Event.objects.using(database()).filter(message=None, at__lt=timezone.now() - keep)
    ids = list(old.order_by().values_list("id", flat=True)[:_CHUNK])
    Event.objects.using(database()).filter(id__in=sorted(ids)).delete()
    return len(ids)


def _remove_files(attachments: Iterable[Attachment]) -> int:
    """Delete files, and their rows once the file is gone: what a storage refuses now is tried at the next purge."""
    deleted = []
    try:
        for attachment in attachments:
            file = attachment.file
            if _remove_file(file.storage, str(file.name), f"The file of attachment {attachment.id}"):
                deleted.append(attachment.id)
    finally:
        _delete_rows(deleted)
    return len(deleted)


def _remove_file(storage: Storage, path: str, name: str) -> bool:
    """Whether the file is gone."""
    try:
        storage.delete(path)
    except FileNotFoundError:
        return True
    except SoftTimeLimitExceeded:
        raise
    except Exception as error:
        logger.warning("%s cannot be deleted now: %s: %s", name, type(error).__name__, error)
        return False
    return True


@retry_on_conflict
def _delete_rows(ids: Collection[UUID]) -> None:
    Attachment.objects.using(database()).filter(id__in=sorted(ids)).delete()


def _delete_old_messages() -> int:
    keep = mailer_settings().KEEP_MESSAGES
    if keep is None:
        return 0
    # The row of a file that the storage refuses to delete keeps its message until it can be.
    files = Attachment.objects.using(database()).filter(message=OuterRef("pk"))
    old = _finished_before(keep).filter(~Exists(files), content_dropped_at__isnull=False)
    ids = list(old.order_by("finished_at").values_list("id", flat=True)[:_CHUNK])
    _delete(ids)
    return len(ids)


@retry_on_conflict
def _delete(ids: Collection[UUID]) -> None:
    # Locked before it is looked at what belongs to them: an event of SparkPost's may be coming at this moment.
    list(rows(ids).order_by("id").select_for_update().values_list("id", flat=True))
    Event.objects.using(database()).filter(message_id__in=ids).delete()
    rows(ids).delete()


def remove_orphans(after: date | None) -> date:
    """Delete attachment files without a row: those of callers whose transaction was rolled back.

    Files lie in a directory for each day, so that each day is looked through once, two days later; again where the
    storage refuses to delete one.

    Args:
        after: the last day that was looked through; ``None`` to begin with the first.

    Returns:
        The last day that is looked through now.
    """
    storage = attachment_storage()
    until = (timezone.now() - timedelta(days=2)).date()
    days = [day for day in _days(storage) if day <= until and (after is None or day > after)]
    unfinished = [day for day in days if not _remove_orphans_of(storage, day)]
    return unfinished[0] - timedelta(days=1) if unfinished else until


def _days(storage: Storage) -> list[date]:
    days = []
    # A storage that is empty has no such directory, and some storages cannot list.
    with suppress(FileNotFoundError, NotImplementedError):
        for name in storage.listdir(ATTACHMENT_FOLDER)[0]:
            with suppress(ValueError):
                days.append(date.fromisoformat(name))
    return sorted(days)


def _remove_orphans_of(storage: Storage, day: date) -> bool:
    """Whether none is left."""
    folder = f"{ATTACHMENT_FOLDER}/{day}"
    paths = [f"{folder}/{name}" for name in storage.listdir(folder)[1]]
    removed = True
    for start in range(0, len(paths), _CHUNK):
        chunk = paths[start : start + _CHUNK]
        known = set(Attachment.objects.using(database()).filter(file__in=chunk).values_list("file", flat=True))
        for path in chunk:
            if path not in known:
                removed &= _remove_file(storage, path, f"The file {path}, which has no row,")
    return removed
