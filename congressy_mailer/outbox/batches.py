"""Messages of a batch wait in the table: storing them, giving them out some at a time, and knowing when there are more.

The broker carries a few tasks for the batch as a whole, each of which takes the next of its messages. So it makes no
difference to the broker, nor to whoever stores them, how many there are; and what is more urgent goes before them.

:attr:`Batch.due_at <congressy_mailer.models.Batch.due_at>` says when somebody should look at it if nothing else
happens. Whoever leaves something waiting sees to it that this is set, in the same transaction; whoever finds nothing
waiting clears it, after it has locked the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import UUID

from django.db import DatabaseError
from django.db.models import Case, Count, DateTimeField, F, Min, Q, QuerySet, Value, When
from django.utils import timezone

from ..conf import mailer_settings
from ..models import Attachment, Batch, Message, State
from ..models.transactions import database, without_conflicts
from .bulk_insert import Line, insert
from .rows import WAITING

#: Tasks that work at one batch at the same time: SparkPost's "SMTP and REST API Injection Best Practices" asks for up
#: to ten connections.
LANES = 10

#: Messages that wait with their batch, where they are in one: see :attr:`.Message.waits_with_batch`.
WITH_BATCH = Q(crashes=0, alone=False)

# Messages that are taken back in one transaction: few enough that nobody waits for its locks.
_CHUNK = 1000


def open_batch(batch: Batch, attachments: Sequence[Attachment] = ()) -> None:
    """Store a new batch without messages.

    Raises:
        django.db.IntegrityError: its ``key`` exists already.
    """
    batch.save(force_insert=True, using=database())
    Attachment.objects.using(database()).bulk_create(attachments)


def add_to_batch(batch: Batch, lines: Sequence[Line], attachments: Sequence[Attachment] = ()) -> bool:
    """Store messages of a batch, ``scheduled`` or ``queued``, in the caller's transaction.

    Returns:
        Whether they were stored: if not, the batch has been cancelled.

    Raises:
        django.db.IntegrityError: one of them is there already.
    """
    now = timezone.now()
    # First, since storing a row that belongs to it takes a lock on it that other locks do not go with.
    if not _batches(batch.pk).filter(cancelled_at=None).update(due_at=_first_look(batch, now)):
        return False
    scheduled = batch.send_at is not None and batch.send_at > now
    insert(
        batch,
        lines,
        created_at=now,
        state=State.SCHEDULED if scheduled else State.QUEUED,
        queued_at=None if scheduled else now,
    )
    Attachment.objects.using(database()).bulk_create(attachments)
    return True


def _first_look(batch: Batch, now: datetime) -> datetime:
    return max(batch.send_at or now, now) + (timedelta(0) if batch.send_at else mailer_settings().LOST_AFTER)


@without_conflicts
def close_batch(batch: Batch) -> None:
    """All of its recipients are stored."""
    batch.stored_at = timezone.now()
    batch.save(update_fields=["stored_at", "skipped", "problems"], using=database())


def stored_keys(keys: Sequence[str]) -> set[str]:
    """Those of these ``idempotency_key`` values that messages have."""
    found = Message.objects.using(database()).filter(idempotency_key__in=keys)
    return {str(key) for key in found.values_list("idempotency_key", flat=True)}


@without_conflicts
def begin_round(key: UUID) -> int:
    """Have new tasks work at a batch, in place of those there are: these end after their time slice.

    Returns:
        The number of the round, for the tasks to be published with.
    """
    now = timezone.now()
    _batches(key).filter(cancelled_at=None).update(round=F("round") + 1, due_at=now + mailer_settings().LOST_AFTER)
    return _batches(key).values_list("round", flat=True).get()


def lanes(key: UUID, round: int) -> int:
    """How many tasks should work at a batch now; none where it is finished, or their round is over."""
    if not _batches(key).filter(cancelled_at=None, round=round).exists():
        return 0
    slice_size = mailer_settings().SLICE_SIZE
    waiting = _waiting(key, timezone.now())[: LANES * slice_size].count()
    return min(LANES, -(-waiting // slice_size))


def keep_watch(key: UUID, round: int) -> bool:
    """A task works at the batch: nobody else need look at it for a while.

    Returns:
        Whether it should: if not, the batch is cancelled, over, or another round has begun.
    """
    now = timezone.now()
    batch = _batches(key).filter(cancelled_at=None, round=round).only("due_at", "expires_at").first()
    if batch is None:
        return False
    if batch.expires_at is not None and batch.expires_at <= now:
        end_waiting(_messages(key).filter(WITH_BATCH), State.EXPIRED, "It was not sent before its expires_at.")
        rest(key, round)
        return False
    patience = mailer_settings().LOST_AFTER
    if batch.due_at is None or batch.due_at < now + patience / 2:
        _batches(key).filter(round=round).update(due_at=now + patience)
    return True


@without_conflicts
def rest(key: UUID, round: int) -> bool:
    """Nothing was found waiting: note when there will be.

    Returns:
        Whether something is waiting by now.
    """
    now = timezone.now()
    again = now + mailer_settings().LOST_AFTER
    # This locks the row: nobody adds to the batch or puts something back until it is known what is waiting.
    if not _batches(key).filter(round=round).update(due_at=again):
        return False
    if _waiting(key, now).exists():
        return True
    later = _messages(key).filter(WITH_BATCH, state__in=(State.DEFERRED, State.SCHEDULED))
    next_time = later.aggregate(deferred=Min("due_at"), scheduled=Min("send_at"))
    times = [when for when in next_time.values() if when is not None]
    _batches(key).update(due_at=min(times, default=None))
    return False


def watch(keys: Sequence[UUID], by: datetime) -> None:
    """Have somebody look at these batches by then; within the transaction that leaves something waiting."""
    batches = Batch.objects.using(database()).filter(id__in=sorted(set(keys)))
    # Also where it changes nothing: the lock lets whoever cancels a batch see what is left waiting, or us that it is.
    batches.update(due_at=Case(When(due_at__lt=by, then=F("due_at")), default=Value(by, DateTimeField())))
    for key in batches.exclude(cancelled_at=None).values_list("id", flat=True):
        _batches(key).update(due_at=None)
        _end(_messages(key).filter(WITH_BATCH), State.CANCELLED, "")


def unpublished_batch(key: UUID) -> None:
    """The broker did not take a task for this batch: let the next sweep see to it."""
    # Without this it is found all the same, only later.
    with suppress(DatabaseError):
        _batches(key).filter(cancelled_at=None).exclude(due_at=None).update(due_at=timezone.now())


@without_conflicts
def due_batches() -> list[tuple[UUID, int]]:
    """Batches that nobody seems to be working at although they have something left, with the round that begins now.

    Several sweeps at once share them.
    """
    now = timezone.now()
    due = Batch.objects.using(database()).filter(due_at__lte=now, cancelled_at=None)
    taken = []
    for key, round in due.order_by("due_at").values_list("id", "round")[:_CHUNK]:
        mine = _batches(key).filter(round=round, due_at__lte=now)
        if mine.update(round=F("round") + 1, due_at=now + mailer_settings().LOST_AFTER):
            taken.append((key, round + 1))
    return taken


def overdue_batches(by: timedelta) -> int:
    """How many batches should have been looked at for longer than this."""
    due = Batch.objects.using(database()).filter(due_at__lte=timezone.now() - by, cancelled_at=None)
    return due.count()


def cancel_batch(key: UUID) -> int:
    """Take back what no worker holds, and store nothing more; returns how many messages."""
    _batches(key).filter(cancelled_at=None).update(cancelled_at=timezone.now(), due_at=None)
    return end_waiting(_messages(key), State.CANCELLED, "")


def end_waiting(messages: QuerySet[Message], state: State, reason: str) -> int:
    """End those of these messages that no worker holds; returns how many."""
    total = 0
    while ended := _end_some(messages, state, reason):
        total += ended
    return total


@without_conflicts
def _end_some(messages: QuerySet[Message], state: State, reason: str) -> int:
    waiting = messages.filter(state__in=WAITING).order_by("id")
    # Locked, also to see what is there now: in a transaction of the host's a plain look may show what there was.
    ids = list(waiting.select_for_update().values_list("id", flat=True)[:_CHUNK])
    return _end(Message.objects.using(database()).filter(id__in=ids), state, reason)


def _end(messages: QuerySet[Message], state: State, reason: str) -> int:
    waiting = messages.filter(state__in=WAITING)
    return waiting.update(state=state, due_at=None, finished_at=timezone.now(), reason=reason)


def counts(key: UUID) -> dict[State, int]:
    """How many messages of a batch are in each state."""
    found = _messages(key).order_by().values_list("state").annotate(Count("id"))
    return {State(state): count for state, count in found}


def _waiting(key: UUID, now: datetime) -> QuerySet[Message]:
    """What a task for the batch may take now."""
    return _messages(key).filter(
        Q(state=State.QUEUED, due_at=None)
        | Q(state=State.DEFERRED, due_at__lte=now)
        | Q(state=State.SCHEDULED, send_at__lte=now),
        WITH_BATCH,
    )


def _messages(key: UUID) -> QuerySet[Message]:
    return Message.objects.using(database()).filter(batch_id=key)


def _batches(key: UUID) -> QuerySet[Batch]:
    return Batch.objects.using(database()).filter(id=key)
