"""Storing a batch and its recipients, by one caller at a time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import uuid4

from django.db.models import Q

from ..conf import mailer_settings
from ..models import Attachment, Batch, Message, State, clock
from ..models.transactions import database, retry_on_conflict
from .batch_rows import batch_row
from .bulk_insert import BatchMessage, insert
from .files import store_attachments

#: A caller that has stored nothing for so long has died: another may go on with the batch.
STORING_LEASE = timedelta(minutes=1)


def open_batch(batch: Batch, attachments: Sequence[Attachment] = ()) -> None:
    """Store a new batch without messages.

    Raises:
        django.db.IntegrityError: its ``key`` exists already.
    """
    batch.save(force_insert=True, using=database())
    store_attachments(attachments)


@retry_on_conflict
def begin_storing(batch: Batch) -> bool:
    """Take the lease under which recipients of a batch are stored, with the batch as it is then.

    In the caller's transaction, where there is one: the row is held to its end, and another caller waits for that.

    Returns:
        ``False`` where another caller stores recipients of it.
    """
    now = clock.now()
    free = Q(storing_until=None) | Q(storing_until__lt=now)
    token = uuid4().hex
    if not batch_row(batch.pk).filter(free).update(storing_token=token, storing_until=now + STORING_LEASE):
        return False
    batch.refresh_from_db(using=database())
    return True


@retry_on_conflict
def end_storing(batch: Batch) -> None:
    """Give the lease back before the end of the recipients: another caller may go on at once."""
    batch_row(batch.pk).filter(storing_token=batch.storing_token).update(storing_token="", storing_until=None)


@retry_on_conflict
def add_to_batch(batch: Batch, messages: Sequence[BatchMessage], attachments: Sequence[Attachment] = ()) -> bool:
    """Store messages of a batch, ``scheduled`` or ``queued``, in the caller's transaction.

    Returns:
        Whether they were stored: if not, the batch has been cancelled, or another caller has taken over the lease.

    Raises:
        django.db.IntegrityError: one of them is there already.
    """
    now = clock.now()
    # First, since storing a row that belongs to it takes a lock on it that other locks do not go with.
    leased = batch_row(batch.pk).filter(cancelled_at=None, storing_token=batch.storing_token)
    if not leased.update(due_at=_initial_due_at(batch, now), last_stored_at=now, storing_until=now + STORING_LEASE):
        return False
    scheduled = batch.send_at is not None and batch.send_at > now
    insert(
        batch,
        messages,
        created_at=now,
        state=State.SCHEDULED if scheduled else State.QUEUED,
        queued_at=None if scheduled else now,
    )
    store_attachments(attachments)
    return True


def _initial_due_at(batch: Batch, now: datetime) -> datetime:
    return max(batch.send_at or now, now) + (timedelta(0) if batch.send_at else mailer_settings().LOST_AFTER)


@retry_on_conflict
def close_batch(batch: Batch) -> None:
    """All of its recipients are stored."""
    batch.stored_at = clock.now()
    batch.storing_token, batch.storing_until = "", None
    batch.save(update_fields=["stored_at", "skipped", "problems", "storing_token", "storing_until"], using=database())


def stored_keys(keys: Sequence[str]) -> set[str]:
    """Those of these ``idempotency_key`` values that messages have."""
    stored = Message.objects.using(database()).filter(idempotency_key__in=keys)
    return {str(key) for key in stored.values_list("idempotency_key", flat=True)}
