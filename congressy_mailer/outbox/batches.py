"""Messages of a batch wait in the table: how many tasks work at them, and when there are more.

The broker carries a few tasks for the batch as a whole, each of which takes the next of its messages. So it makes no
difference to the broker, nor to whoever stores them, how many there are; and what is more urgent goes before them.

:attr:`Batch.due_at <congressy_mailer.models.Batch.due_at>` says when a sweep should look at it if nothing else happens.
It is set when the batch is stored, and cleared, by a worker that holds the row, only when no message of it is open and
no recipient can come any more. So a worker that leaves something waiting need not write it, and waits for nobody who
holds the row; it does so where it can, to have the batch looked at earlier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Count, F, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce

from .. import metrics
from ..conf import mailer_settings
from ..models import Batch, Message, State, clock
from ..models.transactions import database, lock_free, retry_on_conflict
from .batch_rows import batch_row, messages_of, open_messages
from .batch_stopping import end_rows, end_waiting_with_batch, waiting_in_batch
from .expiry import EXPIRED
from .rows import publishing_overdue_at
from .settled import LONGEST_SUBMISSION

#: Tasks that work at one batch at the same time: SparkPost's "SMTP and REST API Injection Best Practices" asks for up
#: to ten connections.
MAX_CONCURRENCY = 10

# Batches that a sweep claims at once.
_CHUNK = 1000

# Other batches that are looked at for whether one of them waits.
_LOOKED_AT = 20

# The pause before further tasks of a batch are published doubles with each that has not begun, up to half an hour.
_MOST_DOUBLINGS = 5


# Of a batch, what a task looks at before it works at it.
_HEARTBEAT_FIELDS = ("due_at", "expires_at", "cancelled_at", "begun_generation", "using", "priority")


@retry_on_conflict
def start_generation(key: UUID) -> int:
    """Begin a generation of tasks for a batch: once one of them works, tasks of older ones end after their time slice.

    Returns:
        The number of the generation, for the tasks to be published with.
    """
    now = clock.now()
    batch_row(key).filter(cancelled_at=None).update(generation=F("generation") + 1, due_at=publishing_overdue_at(now))
    return batch_row(key).values_list("generation", flat=True).get()


def concurrency(key: UUID, generation: int, share_of: Callable[[str], int]) -> int:
    """How many tasks should work at a batch now; none where it is finished, or their generation is overtaken.

    Args:
        key: of the batch.
        generation: of the tasks.
        share_of: how many messages are worth a task of their own, by the alias of the batch's mail backend.
    """
    current = batch_row(key).filter(cancelled_at=None, begun_generation__lte=generation)
    using = current.values_list("using", flat=True).first()
    if using is None:
        return 0
    share = share_of(using)
    most = MAX_CONCURRENCY * share
    waiting = sum(messages[:most].count() for messages in _deliverable(key, clock.now()))
    return min(MAX_CONCURRENCY, -(-waiting // share))


def heartbeat(key: UUID, generation: int, *, end_waiting: bool = True) -> bool:
    """Record that a task works at the batch, so that no sweep starts others meanwhile.

    A task that has waited long in the queue works all the same, unless one that was published later has begun before.

    Args:
        key: of the batch.
        generation: of the task.
        end_waiting: whether its waiting messages are ended where the batch is cancelled or expired, which takes its
            time where there are many.

    Returns:
        Whether the task should go on: if not, the batch is cancelled or expired, or the task is overtaken.
    """
    now = clock.now()
    batch = batch_row(key).only(*_HEARTBEAT_FIELDS).first()
    if batch is None or generation < batch.begun_generation:
        return False
    ended = _end_of(batch, now)
    if ended is not None and not end_waiting:
        return False
    if ended is not None:
        state, reason = ended
        count = end_waiting_with_batch(key, state, reason)
        if state == State.EXPIRED:
            metrics.count_expired_in_batch(batch, count)
        reschedule_batch(key, generation)
        return False
    lost_after = mailer_settings().LOST_AFTER
    if generation > batch.begun_generation or batch.due_at is None or batch.due_at < now + lost_after / 2:
        _update_if_free(key, begun_generation=generation, due_at=now + lost_after)
    return True


def _end_of(batch: Batch, now: datetime) -> tuple[State, str] | None:
    if batch.cancelled_at is not None:
        return State.CANCELLED, ""
    if batch.expires_at is not None and batch.expires_at <= now:
        return State.EXPIRED, EXPIRED
    return None


@retry_on_conflict
def _update_if_free(key: UUID, **values: object) -> None:
    """Where a caller holds the row, it stays due as it is: a sweep may start tasks that are not needed, and no more."""
    for free in lock_free(batch_row(key)).values_list("id", flat=True):
        batch_row(free).update(**values)


@retry_on_conflict
def reschedule_batch(key: UUID, generation: int) -> bool:
    """Set when the batch is due next, after nothing was found waiting in it.

    It stays due for as long as a message of it is open or a recipient may come. Where a caller holds the batch's row,
    or rows of its messages, the lock is not waited for: the next sweep looks again.

    Returns:
        Whether an unlocked message is waiting by now.
    """
    now = clock.now()
    free = lock_free(batch_row(key).filter(begun_generation__lte=generation))
    batch = free.only("stored_at", "cancelled_at", "last_stored_at", "created_at").first()
    if batch is None:
        return False
    recheck_at = now + mailer_settings().LOST_AFTER
    if any(lock_free(messages).values_list("id", flat=True)[:1] for messages in _deliverable(key, now)):
        batch_row(key).update(due_at=recheck_at)
        return True
    batch_row(key).update(due_at=min(_next_times(batch, now, recheck_at), default=None))
    return False


def _next_times(batch: Batch, now: datetime, recheck_at: datetime) -> Iterator[datetime]:
    deferred = Message.objects.using(database()).filter(deferred_batch=batch.pk).order_by("due_at")
    yield from (max(due_at, now) for due_at in deferred.values_list("due_at", flat=True)[:1] if due_at is not None)
    mine = open_messages(batch.pk)
    scheduled = mine.filter(state=State.SCHEDULED).order_by("priority", "id")
    yield from (max(at, now) for at in scheduled.values_list("send_at", flat=True)[:1] if at is not None)
    # What all workers hold, which is not much. A condition on the batch might be looked up in the index of all of its
    # messages.
    held = Message.objects.using(database()).filter(state=State.SENDING, sweep_at__isnull=False)
    if mine.filter(state=State.QUEUED).exists() or batch.pk in set(held.values_list("batch_id", flat=True)):
        # Held by a caller, or by a worker, which may put them back.
        yield recheck_at
    stored_at = batch.last_stored_at or batch.created_at
    if batch.stored_at is None and batch.cancelled_at is None and now - stored_at < LONGEST_SUBMISSION:
        # The less likely its caller is to continue it, the more rarely.
        yield max(recheck_at, now + (now - stored_at) / 10)


def make_due_by(keys: Iterable[UUID], by: datetime) -> None:
    """Make these batches due by then, since something of them is left waiting; what is cancelled is ended instead.

    Nothing is lost where a caller holds the row: a batch stays due while a message of it is open.
    """
    wanted = sorted(set(keys))
    batches = Batch.objects.using(database()).filter(id__in=wanted)
    later = batches.filter(Q(due_at=None) | Q(due_at__gt=by)).order_by("id")
    free = list(lock_free(later).values_list("id", flat=True))
    Batch.objects.using(database()).filter(id__in=free).update(due_at=by)
    for key in batches.exclude(cancelled_at=None).values_list("id", flat=True):
        for messages in waiting_in_batch(key):
            end_rows(messages, State.CANCELLED, "")


def is_batch_stored(key: UUID) -> bool:
    """Whether this batch is in this database, in any state."""
    return Batch.objects.using(database()).filter(pk=key).exists()


def mark_batch_published(key: UUID) -> None:
    """A task for a batch is being published, and may wait long in the queue: no sweep starts another one meanwhile."""
    with suppress(Exception):
        _update_if_free(key, due_at=clock.now() + mailer_settings().LOST_AFTER)


def mark_batch_unpublished(key: UUID) -> None:
    """Make a batch due at once, since the broker did not take a task for it."""
    # As for single messages: without this it is found all the same, only later.
    with suppress(Exception):
        _update_if_free(key, due_at=clock.now())


@retry_on_conflict
def claim_due_batches() -> list[tuple[UUID, int]]:
    """Claim batches with open messages that no task works at; returns each with the generation that begins now.

    Several sweeps at once share them. A task that is still in the queue, behind other work, is not lost by this: see
    :func:`heartbeat`. So the more tasks of a batch have been published and not begun, the longer the next one waits.
    """
    now = clock.now()
    due = lock_free(Batch.objects.using(database()).filter(due_at__lte=now).order_by("due_at"))
    claimed = []
    for key, generation, begun in list(due.values_list("id", "generation", "begun_generation")[:_CHUNK]):
        pause = mailer_settings().LOST_AFTER * 2 ** min(generation - begun, _MOST_DOUBLINGS)
        batch_row(key).update(generation=generation + 1, due_at=now + pause)
        claimed.append((key, generation + 1))
    return claimed


def cancelled_batches(keys: Iterable[UUID | None]) -> set[UUID]:
    """Those of these batches that were cancelled."""
    wanted = sorted({key for key in keys if key is not None})
    if not wanted:
        return set()
    cancelled = Batch.objects.using(database()).filter(id__in=wanted, cancelled_at__isnull=False)
    return set(cancelled.values_list("id", flat=True))


def count_overdue_batches(by: timedelta) -> int:
    """How many batches should have been looked at for longer than this."""
    due = Batch.objects.using(database()).filter(due_at__lte=clock.now() - by, cancelled_at=None)
    return due.count()


def state_counts(key: UUID) -> dict[State, int]:
    """How many messages of a batch are in each state."""
    states = messages_of(key).order_by().values_list("state").annotate(Count("id"))
    return {State(state): count for state, count in states}


def has_waiting(key: UUID, by: datetime) -> bool:
    """Whether a batch has a message that could have been taken by then."""
    return any(messages.exists() for messages in _deliverable(key, by))


def first_waiting(by: datetime) -> Coalesce:
    """An expression for rows of batches: a message that could have been taken by then; null where there is none.

    Each of its parts is a value that is looked up in an index for one batch after another. Of ``EXISTS`` joined by
    ``OR`` PostgreSQL may make tables of all messages that wait.
    """
    return Coalesce(*(Subquery(messages.order_by().values("id")[:1]) for messages in _deliverable(OuterRef("pk"), by)))


def other_batches_wait(key: UUID | None) -> bool:
    """Whether another batch than this has messages that may be sent now."""
    now = clock.now()
    others = unfinished_batches(now).exclude(pk=key) if key is not None else unfinished_batches(now)
    return any(has_waiting(other, now) for other in others.values_list("id", flat=True)[:_LOOKED_AT])


def unfinished_batches(by: datetime) -> QuerySet[Batch]:
    """Batches that are due and were to be sent by then, in the order of their due times."""
    unfinished = Batch.objects.using(database()).filter(cancelled_at=None, due_at__isnull=False, pause=None)
    return unfinished.exclude(send_at__gt=by).order_by("due_at")


def _deliverable(key: UUID | OuterRef, now: datetime) -> Iterator[QuerySet[Message]]:
    """What a task for the batch may take now, range by range of an index."""
    mine = open_messages(key)
    yield mine.filter(state=State.QUEUED, due_at=None)
    yield Message.objects.using(database()).filter(deferred_batch=key, due_at__lte=now)
    yield mine.filter(state=State.SCHEDULED, send_at__lte=now)
