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
from ..models.transactions import database, retry_on_conflict
from .bulk_insert import BatchMessage, insert
from .rows import WAITING

#: Tasks that work at one batch at the same time: SparkPost's "SMTP and REST API Injection Best Practices" asks for up
#: to ten connections.
MAX_CONCURRENCY = 10

#: Messages that wait with their batch, where they are in one: see :attr:`.Message.waits_with_batch`.
WITH_BATCH = Q(crashes=0, detached=False)

# Messages that are taken back in one transaction: few enough that nobody waits for its locks.
_CHUNK = 1000


def open_batch(batch: Batch, attachments: Sequence[Attachment] = ()) -> None:
    """Store a new batch without messages.

    Raises:
        django.db.IntegrityError: its ``key`` exists already.
    """
    batch.save(force_insert=True, using=database())
    Attachment.objects.using(database()).bulk_create(attachments)


def add_to_batch(batch: Batch, messages: Sequence[BatchMessage], attachments: Sequence[Attachment] = ()) -> bool:
    """Store messages of a batch, ``scheduled`` or ``queued``, in the caller's transaction.

    Returns:
        Whether they were stored: if not, the batch has been cancelled.

    Raises:
        django.db.IntegrityError: one of them is there already.
    """
    now = timezone.now()
    # First, since storing a row that belongs to it takes a lock on it that other locks do not go with.
    if not _batches(batch.pk).filter(cancelled_at=None).update(due_at=_initial_due_at(batch, now)):
        return False
    scheduled = batch.send_at is not None and batch.send_at > now
    insert(
        batch,
        messages,
        created_at=now,
        state=State.SCHEDULED if scheduled else State.QUEUED,
        queued_at=None if scheduled else now,
    )
    Attachment.objects.using(database()).bulk_create(attachments)
    return True


def _initial_due_at(batch: Batch, now: datetime) -> datetime:
    return max(batch.send_at or now, now) + (timedelta(0) if batch.send_at else mailer_settings().LOST_AFTER)


@retry_on_conflict
def close_batch(batch: Batch) -> None:
    """All of its recipients are stored."""
    batch.stored_at = timezone.now()
    batch.save(update_fields=["stored_at", "skipped", "problems"], using=database())


def stored_keys(keys: Sequence[str]) -> set[str]:
    """Those of these ``idempotency_key`` values that messages have."""
    stored = Message.objects.using(database()).filter(idempotency_key__in=keys)
    return {str(key) for key in stored.values_list("idempotency_key", flat=True)}


@retry_on_conflict
def start_generation(key: UUID) -> int:
    """Begin a generation of tasks for a batch: tasks of older ones end after their time slice.

    Returns:
        The number of the generation, for the tasks to be published with.
    """
    now = timezone.now()
    _batches(key).filter(cancelled_at=None).update(
        generation=F("generation") + 1, due_at=now + mailer_settings().LOST_AFTER
    )
    return _batches(key).values_list("generation", flat=True).get()


def concurrency(key: UUID, generation: int) -> int:
    """How many tasks should work at a batch now; none where it is finished, or their generation is over."""
    if not _batches(key).filter(cancelled_at=None, generation=generation).exists():
        return 0
    slice_size = mailer_settings().SLICE_SIZE
    waiting = _deliverable(key, timezone.now())[: MAX_CONCURRENCY * slice_size].count()
    return min(MAX_CONCURRENCY, -(-waiting // slice_size))


def heartbeat(key: UUID, generation: int) -> bool:
    """Record that a task works at the batch, so that no sweep starts others meanwhile.

    Returns:
        Whether the task should go on: if not, the batch is cancelled or expired, or another generation has begun.
    """
    now = timezone.now()
    batch = _batches(key).filter(cancelled_at=None, generation=generation).only("due_at", "expires_at").first()
    if batch is None:
        return False
    if batch.expires_at is not None and batch.expires_at <= now:
        end_waiting(_messages(key).filter(WITH_BATCH), State.EXPIRED, "It was not sent before its expires_at.")
        reschedule_batch(key, generation)
        return False
    lost_after = mailer_settings().LOST_AFTER
    if batch.due_at is None or batch.due_at < now + lost_after / 2:
        _batches(key).filter(generation=generation).update(due_at=now + lost_after)
    return True


@retry_on_conflict
def reschedule_batch(key: UUID, generation: int) -> bool:
    """Set when the batch is due next, after nothing was found waiting in it.

    Returns:
        Whether something is waiting by now.
    """
    now = timezone.now()
    recheck_at = now + mailer_settings().LOST_AFTER
    # This locks the row: nobody adds to the batch or puts something back until it is known what is waiting.
    if not _batches(key).filter(generation=generation).update(due_at=recheck_at):
        return False
    if has_waiting(key, now):
        return True
    pending = _messages(key).filter(WITH_BATCH, state__in=(State.DEFERRED, State.SCHEDULED))
    next_time = pending.aggregate(deferred=Min("due_at"), scheduled=Min("send_at"))
    times = [when for when in next_time.values() if when is not None]
    _batches(key).update(due_at=min(times, default=None))
    return False


def make_due_by(keys: Sequence[UUID], by: datetime) -> None:
    """Make these batches due by then, within the transaction that leaves something waiting."""
    batches = Batch.objects.using(database()).filter(id__in=sorted(set(keys)))
    # Also where it changes nothing: the lock lets whoever cancels a batch see what is left waiting, or us that it is.
    batches.update(due_at=Case(When(due_at__lt=by, then=F("due_at")), default=Value(by, DateTimeField())))
    for key in batches.exclude(cancelled_at=None).values_list("id", flat=True):
        _batches(key).update(due_at=None)
        _end_rows(_messages(key).filter(WITH_BATCH), State.CANCELLED, "")


def mark_batch_unpublished(key: UUID) -> None:
    """Make a batch due at once, since the broker did not take a task for it."""
    # Without this it is found all the same, only later.
    with suppress(DatabaseError):
        _batches(key).filter(cancelled_at=None).exclude(due_at=None).update(due_at=timezone.now())


@retry_on_conflict
def claim_due_batches() -> list[tuple[UUID, int]]:
    """Claim batches with waiting messages that no task works at; returns each with the generation that begins now.

    Several sweeps at once share them.
    """
    now = timezone.now()
    due = Batch.objects.using(database()).filter(due_at__lte=now, cancelled_at=None)
    claimed = []
    for key, generation in due.order_by("due_at").values_list("id", "generation")[:_CHUNK]:
        row = _batches(key).filter(generation=generation, due_at__lte=now)
        if row.update(generation=F("generation") + 1, due_at=now + mailer_settings().LOST_AFTER):
            claimed.append((key, generation + 1))
    return claimed


def count_overdue_batches(by: timedelta) -> int:
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
    while ended := _end_chunk(messages, state, reason):
        total += ended
    return total


@retry_on_conflict
def _end_chunk(messages: QuerySet[Message], state: State, reason: str) -> int:
    waiting = messages.filter(state__in=WAITING).order_by("id")
    # Locked, also to see what is there now: in a transaction of the host's a plain look may show what there was.
    ids = list(waiting.select_for_update().values_list("id", flat=True)[:_CHUNK])
    return _end_rows(Message.objects.using(database()).filter(id__in=ids), state, reason)


def _end_rows(messages: QuerySet[Message], state: State, reason: str) -> int:
    waiting = messages.filter(state__in=WAITING)
    return waiting.update(state=state, due_at=None, finished_at=timezone.now(), reason=reason)


def state_counts(key: UUID) -> dict[State, int]:
    """How many messages of a batch are in each state."""
    states = _messages(key).order_by().values_list("state").annotate(Count("id"))
    return {State(state): count for state, count in states}


def has_waiting(key: UUID, by: datetime) -> bool:
    """Whether a batch has a message that could have been taken by then."""
    mine = _messages(key).filter(WITH_BATCH)
    # One after another: three ranges of one index, where a condition of three parts would read the whole table.
    return (
        mine.filter(state=State.QUEUED, due_at=None).exists()
        or mine.filter(state=State.DEFERRED, due_at__lte=by).exists()
        or mine.filter(state=State.SCHEDULED, send_at__lte=by).exists()
    )


def unfinished_batches(by: datetime) -> QuerySet[Batch]:
    """Batches that somebody should look at again, and that were to be sent by then; the first due come first."""
    unfinished = Batch.objects.using(database()).filter(cancelled_at=None, due_at__isnull=False)
    return unfinished.exclude(send_at__gt=by).order_by("due_at")


def _deliverable(key: UUID, now: datetime) -> QuerySet[Message]:
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
