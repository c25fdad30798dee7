"""Dropping what is old: content first, whole messages later.

Content goes after ``KEEP_CONTENT``. What is ``sensitive`` goes as soon as it is sent, since nobody needs it any more.
Of what ended otherwise only a failed or held message is worth sending again, once a person has put right what was
wrong; its content waits for that as long as the mailer itself would have gone on trying, ``RETRY_FOR``. What was
cancelled or has expired is not wanted any more, and its content goes with the next purge.

Each chunk is one transaction, which locks what it drops and passes over what somebody holds: two purges at once share
the work, and a message that is queued again at that moment keeps its content.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.db.models.signals import post_delete, pre_delete

from ..conf import mailer_settings
from ..models import (
    Attachment,
    Batch,
    Event,
    Message,
    RecipientStatus,
    Retention,
    SearchKey,
    StoredFile,
    WebhookBatch,
    clock,
)
from ..models.choices import FINAL
from ..models.transactions import database, lock_free, retry_on_conflict
from .files import delete_files, release_files
from .rows import InArray, rows
from .settled import LONGEST_SUBMISSION, is_settled

#: What is forgotten of a mail with its content, and what stands there afterwards. All other columns stay as long as the
#: message does: docs/how-to/retention.md says of each why.
DROPPED: Mapping[str, Any] = MappingProxyType(
    {
        "subject": "", "text": "", "html": "", "alternatives": [], "context": None, "headers": {}, "reply_to": [],
        "campaign": "", "tags": [], "metadata": {}, "sparkpost": {},
    }
)  # fmt: skip

# Rows of one transaction: few enough that its locks are short.
_CHUNK = 1000


def purge(ended: set[str] | None = None) -> bool:
    """Drop one chunk of each: content that is older than ``KEEP_CONTENT``, messages older than ``KEEP_MESSAGES``.

    Only messages in a final state are touched, and their age counts from when they reached it. What a batch says is
    dropped when none of its messages has anything left to say. The files of attachments are deleted by
    :func:`.files.delete_files`.

    Args:
        ended: what of this has come to its end, and is not asked for again, from one call to the next.

    Returns:
        Whether there may be more to drop.
    """
    ended = set() if ended is None else ended
    kinds: dict[str, Callable[[], int]] = {
        f"content {retention}": partial(_drop_content_older_than, retention, keep)
        for retention, keep in _content_limits().items()
    }
    kinds |= {"webhooks": _delete_old_webhooks, "unmatched events": _delete_old_unmatched_events}
    ended |= {kind for kind, drop_chunk in kinds.items() if kind not in ended and drop_chunk() < _CHUNK}
    # Each time: what has just lost its content may be as old as that.
    if _delete_old_messages() >= _CHUNK or not ended.issuperset(kinds):
        return True
    # Once the messages are gone: a batch whose messages are being dropped would be looked through each time.
    return any(chunk >= _CHUNK for chunk in (_drop_content_of_batches(), _delete_old_batches()))


def purge_overdue_since() -> datetime | None:
    """When the oldest of what is still there should have been dropped; ``None``: nothing should have been."""
    limits = _content_limits()
    if (keep_messages := mailer_settings().KEEP_MESSAGES) is not None:
        limits[Retention.DROPPED] = keep_messages
    since = [
        finished_at + keep
        for retention, keep in limits.items()
        for finished_at in _finished_before(retention, keep).values_list("finished_at", flat=True)[:1]
        if finished_at is not None
    ]
    files = StoredFile.objects.using(database()).filter(delete_at__lte=clock.now()).order_by("delete_at")
    since += [moment for moment in files.values_list("delete_at", flat=True)[:1] if moment is not None]
    return min(since, default=None)


def _finished_before(retention: Retention, keep: timedelta) -> QuerySet[Message]:
    """A range of one index, independent of the size of the table."""
    messages = Message.objects.using(database()).filter(retention=retention, finished_at__lt=clock.now() - keep)
    return messages.order_by("finished_at")


def _content_limits() -> dict[Retention, timedelta]:
    """How long the content of each kind of message is kept; what is left out is kept for ever."""
    conf = mailer_settings()
    limits = {
        Retention.SENSITIVE: timedelta(0),
        Retention.SENSITIVE_FAILED: conf.RETRY_FOR,
        Retention.SENSITIVE_HELD: conf.RETRY_FOR,
    }
    # Rows that will be deleted lose their content first: from then on they cannot be sent again.
    kept = [keep for keep in (conf.KEEP_CONTENT, conf.KEEP_MESSAGES) if keep is not None]
    if kept:
        limits |= {Retention.WHOLE: min(kept), Retention.HELD: min(kept)}
        limits = {retention: min(keep, *kept) for retention, keep in limits.items()}
    return limits


@retry_on_conflict
def _drop_content_older_than(retention: Retention, keep: timedelta) -> int:
    due = _finished_before(retention, keep)
    ids = list(lock_free(due).values_list("id", flat=True)[:_CHUNK])
    if ids:
        _drop(ids, Q(retention=retention, finished_at__lt=clock.now() - keep))
    return len(ids)


@retry_on_conflict
def drop_content(ids: Collection[UUID]) -> int:
    """Forget what messages said, :data:`DROPPED` and attachments. Who got them and when stays.

    Their files are deleted once this is committed, as far as the storage does so at once.

    Returns:
        How many of them; those that were queued again meanwhile keep their content.
    """
    dropped, files = _drop(ids, Q(state__in=FINAL))
    if files:
        transaction.on_commit(partial(delete_files, files), using=database(), robust=True)
    return dropped


def delete_messages(ids: Collection[UUID]) -> int:
    """Delete messages that are final, with everything that belongs to them; returns how many."""
    drop_content(ids)
    return _delete_final(ids)


@retry_on_conflict
def _delete_final(ids: Collection[UUID]) -> int:
    final = list(lock_free(rows(ids).filter(state__in=FINAL).order_by("id")).values_list("id", flat=True))
    if final:
        _delete_messages(final)
    return len(final)


def _drop(ids: Collection[UUID], still: Q) -> tuple[int, list[int]]:
    """Returns how many messages, and the numbers of files that are to be deleted now."""
    dropped_at = clock.now()
    due = rows(ids).filter(still, content_dropped_at=None)
    dropped = due.update(**DROPPED, mime=None, attributes={}, content_dropped_at=dropped_at)
    if not dropped:
        return 0, []
    attachments = Attachment.objects.using(database()).filter(InArray(F("message_id"), ids))
    if dropped < len(set(ids)):
        attachments = attachments.filter(message__in=rows(ids).filter(content_dropped_at=dropped_at))
    return dropped, release_files(attachments)


def _drop_content_of_batches() -> int:
    after = max(LONGEST_SUBMISSION, mailer_settings().KEEP_CONTENT or timedelta(0))
    batches = Batch.objects.using(database()).filter(
        # A caller that continued it later would send mails without content.
        is_settled(after=after),
        content_dropped_at=None,
    )
    # None of its messages was finished before it was stored. What is sensitive goes as soon as it is sent.
    keep = _content_limits().get(Retention.WHOLE)
    old = Q() if keep is None else Q(created_at__lt=clock.now() - keep)
    batches = batches.filter(Q(sensitive=True) | old)
    return sum(_drop_content_of_batch(key) for key in list(batches.order_by("id").values_list("id", flat=True)))


@retry_on_conflict
def _drop_content_of_batch(key: UUID) -> int:
    # One after another: for all of them in one query, the database may read every message there is.
    if Message.objects.using(database()).filter(batch=key, content_dropped_at=None).exists():
        return 0
    batch = Batch.objects.using(database()).filter(id=key, content_dropped_at=None)
    if not batch.update(**DROPPED, problems=[], content_dropped_at=clock.now()):
        return 0
    release_files(Attachment.objects.using(database()).filter(batch=key))
    return 1


def _delete_old_batches() -> int:
    keep = mailer_settings().KEEP_MESSAGES
    if keep is None:
        return 0
    old = Batch.objects.using(database()).filter(content_dropped_at__isnull=False, created_at__lt=clock.now() - keep)
    return sum(_delete_batch(key) for key in list(old.order_by("id").values_list("id", flat=True)))


@retry_on_conflict
def _delete_batch(key: UUID) -> int:
    if Message.objects.using(database()).filter(batch=key).exists():
        return 0
    return int(bool(Batch.objects.using(database()).filter(id=key).delete()[0]))


@retry_on_conflict
def _delete_old_webhooks() -> int:
    """Batches of events that have been processed or set aside; what still waits for a worker stays."""
    limit = clock.now() - mailer_settings().KEEP_WEBHOOKS
    old = WebhookBatch.objects.using(database()).filter(due_at=None, received_at__lt=limit).order_by("received_at")
    ids = list(lock_free(old).values_list("id", flat=True)[:_CHUNK])
    WebhookBatch.objects.using(database()).filter(id__in=sorted(ids)).delete()
    return len(ids)


@retry_on_conflict
def _delete_old_unmatched_events() -> int:
    """Events of mails that are none of ours, or not known any more."""
    keep = mailer_settings().KEEP_MESSAGES
    if keep is None:
        return 0
    old = Event.objects.using(database()).filter(message=None, at__lt=clock.now() - keep).order_by()
    ids = list(lock_free(old).values_list("id", flat=True)[:_CHUNK])
    Event.objects.using(database()).filter(id__in=sorted(ids)).delete()
    return len(ids)


@retry_on_conflict
def _delete_old_messages() -> int:
    keep = mailer_settings().KEEP_MESSAGES
    if keep is None:
        return 0
    old = _finished_before(Retention.DROPPED, keep)
    ids = list(lock_free(old).values_list("id", flat=True)[:_CHUNK])
    if ids:
        _delete_messages(ids)
    return len(ids)


def _delete_messages(ids: Sequence[UUID]) -> None:
    """Delete messages, which are locked, with what belongs to them."""
    if _host_follows_deletions():
        rows(ids).only("id").delete()
        return
    # Django's own way reads each message again and deletes a hundred at a time, which takes three times as long.
    for model in (Attachment, Event, RecipientStatus, SearchKey):
        model._default_manager.using(database()).filter(InArray(F("message_id"), ids)).delete()
    rows(ids)._raw_delete(database())


def _host_follows_deletions() -> bool:
    """Whether a model of the host refers to messages, or a receiver of the host gets signals of deletions."""
    ours = Message._meta.app_label
    referring = any(relation.related_model._meta.app_label != ours for relation in Message._meta.related_objects)
    return referring or pre_delete.has_listeners(Message) or post_delete.has_listeners(Message)
