"""Messages of a batch wait in the table: storing them, giving them out some at a time, and knowing when there are more.

The broker carries a few tasks for the batch as a whole, each of which takes the next of its messages. So it makes no
difference to the broker, nor to whoever stores them, how many there are; and what is more urgent goes before them.

:attr:`Batch.due_at <congressy_mailer.models.Batch.due_at>` says when a sweep should look at it if nothing else happens.
It is set when the batch is stored, and cleared, by a worker that holds the row, only when no message of it is open and
no recipient can come any more. So a worker that leaves something waiting need not write it, and waits for nobody who
holds the row; it does so where it can, to have the batch looked at earlier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from django.db import connections
from django.db.models import Count, F, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce

from .. import metrics
from ..conf import mailer_settings
from ..models import BLOCKED, NO_BATCH, PAUSED, Attachment, Batch, Message, State, clock
from ..models.choices import WAITING
from ..models.transactions import database, lock_free, retry_on_conflict
from .bulk_insert import BatchMessage, insert
from .files import store_attachments
from .rows import publishing_overdue_at
from .settled import LONGEST_SUBMISSION

#: Tasks that work at one batch at the same time: SparkPost's "SMTP and REST API Injection Best Practices" asks for up
#: to ten connections.
MAX_CONCURRENCY = 10

# Messages that are cancelled in one transaction: few enough that its locks are short.
_CHUNK = 1000

# Other batches that are looked at for whether one of them waits.
_LOOKED_AT = 20

# The pause before further tasks of a batch are published doubles with each that has not begun, up to half an hour.
_MOST_DOUBLINGS = 5


# Of a batch, what a task looks at before it works at it.
_HEARTBEAT_FIELDS = ("due_at", "expires_at", "cancelled_at", "begun_generation", "using", "priority")

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
    if not _batches(batch.pk).filter(free).update(storing_token=token, storing_until=now + STORING_LEASE):
        return False
    batch.refresh_from_db(using=database())
    return True


@retry_on_conflict
def end_storing(batch: Batch) -> None:
    """Give the lease back before the end of the recipients: another caller may go on at once."""
    _batches(batch.pk).filter(storing_token=batch.storing_token).update(storing_token="", storing_until=None)


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
    batch_row = _batches(batch.pk).filter(cancelled_at=None, storing_token=batch.storing_token)
    if not batch_row.update(due_at=_initial_due_at(batch, now), last_stored_at=now, storing_until=now + STORING_LEASE):
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


@retry_on_conflict
def start_generation(key: UUID) -> int:
    """Begin a generation of tasks for a batch: once one of them works, tasks of older ones end after their time slice.

    Returns:
        The number of the generation, for the tasks to be published with.
    """
    now = clock.now()
    _batches(key).filter(cancelled_at=None).update(generation=F("generation") + 1, due_at=publishing_overdue_at(now))
    return _batches(key).values_list("generation", flat=True).get()


def concurrency(key: UUID, generation: int, share_of: Callable[[str], int]) -> int:
    """How many tasks should work at a batch now; none where it is finished, or their generation is overtaken.

    Args:
        key: of the batch.
        generation: of the tasks.
        share_of: how many messages are worth a task of their own, by the alias of the batch's mail backend.
    """
    current = _batches(key).filter(cancelled_at=None, begun_generation__lte=generation)
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
    batch = _batches(key).only(*_HEARTBEAT_FIELDS).first()
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
        return State.EXPIRED, "It was not sent before its expires_at."
    return None


@retry_on_conflict
def _update_if_free(key: UUID, **values: object) -> None:
    """Where a caller holds the row, it stays due as it is: a sweep may start tasks that are not needed, and no more."""
    for free in lock_free(_batches(key)).values_list("id", flat=True):
        _batches(free).update(**values)


@retry_on_conflict
def reschedule_batch(key: UUID, generation: int) -> bool:
    """Set when the batch is due next, after nothing was found waiting in it.

    It stays due for as long as a message of it is open or a recipient may come. Where a caller holds the batch's row,
    or rows of its messages, the lock is not waited for: the next sweep looks again.

    Returns:
        Whether an unlocked message is waiting by now.
    """
    now = clock.now()
    free = lock_free(_batches(key).filter(begun_generation__lte=generation))
    batch = free.only("stored_at", "cancelled_at", "last_stored_at", "created_at").first()
    if batch is None:
        return False
    recheck_at = now + mailer_settings().LOST_AFTER
    if any(lock_free(messages).values_list("id", flat=True)[:1] for messages in _deliverable(key, now)):
        _batches(key).update(due_at=recheck_at)
        return True
    _batches(key).update(due_at=min(_next_times(batch, now, recheck_at), default=None))
    return False


def _next_times(batch: Batch, now: datetime, recheck_at: datetime) -> Iterator[datetime]:
    deferred = Message.objects.using(database()).filter(deferred_batch=batch.pk).order_by("due_at")
    yield from (max(due_at, now) for due_at in deferred.values_list("due_at", flat=True)[:1] if due_at is not None)
    mine = _open_messages(batch.pk)
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
        for messages in _waiting_in_batch(key):
            _end_rows(messages, State.CANCELLED, "")


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
        _batches(key).update(generation=generation + 1, due_at=now + pause)
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


def cancel_batch(key: UUID) -> int:
    """Take back what no worker holds, and store nothing more; returns how many messages.

    What a worker holds at this moment and puts back later ends then; what a worker died of ends as well.
    """
    now = clock.now()
    # It stays due: a worker that has not seen this yet may be putting a message back.
    _batches(key).filter(cancelled_at=None).update(cancelled_at=now, due_at=now + mailer_settings().LOST_AFTER)
    return sum(_end_all(messages, State.CANCELLED, "", wait=True) for messages in _waiting_in_batch(key))


def end_waiting_with_batch(key: UUID, state: State, reason: str) -> int:
    """End the unlocked messages of a batch; returns how many."""
    return sum(_end_all(messages, state, reason, wait=False) for messages in _waiting_in_batch(key))


def _end_all(messages: QuerySet[Message], state: State, reason: str, *, wait: bool) -> int:
    # A look that locks would lock the gaps beside the rows as well on MariaDB and MySQL, under REPEATABLE READ: there
    # belong the keys that are being recorded at this moment, for any batch.
    unlocked = wait and connections[database()].vendor == "mysql"
    total = 0
    last: UUID | None = None
    while True:
        following = messages if last is None else messages.filter(id__gt=last)
        ids, ended = _end_chunk(following, state, reason, wait=wait, unlocked=unlocked)
        total += ended
        if not ids or not (ended or unlocked):
            return total
        if unlocked:
            # What such a look shows may have ended since.
            last = ids[-1]


@retry_on_conflict
def _end_chunk(
    messages: QuerySet[Message], state: State, reason: str, *, wait: bool, unlocked: bool
) -> tuple[list[UUID], int]:
    """The ids of the first of these, and how many of them have ended."""
    # Locked, also to see what is there now: in a transaction of the host's a plain look may show what there was. What
    # such a look does not show, the next task of the batch ends.
    locked = messages.select_for_update() if wait else lock_free(messages)
    ids = list((messages if unlocked else locked).values_list("id", flat=True)[:_CHUNK])
    return ids, _end_rows(Message.objects.using(database()).filter(id__in=ids), state, reason)


def _end_rows(messages: QuerySet[Message], state: State, reason: str) -> int:
    waiting = messages.filter(state__in=WAITING)
    return waiting.update(state=state, due_at=None, finished_at=clock.now(), reason=reason)


def _waiting_in_batch(key: UUID) -> Iterator[QuerySet[Message]]:
    """Messages of a batch that no worker holds, range by range: a condition of several would read the whole batch.

    Those that a worker died of have tasks of their own, and end with the batch nevertheless.
    """
    for state in WAITING:
        yield _open_messages(key).filter(state=state).order_by("priority", "id")
    alone = _messages(key).filter(open_batch__in=(NO_BATCH, BLOCKED, PAUSED), detached=False, state__in=WAITING)
    yield alone.order_by("id")


def state_counts(key: UUID) -> dict[State, int]:
    """How many messages of a batch are in each state."""
    states = _messages(key).order_by().values_list("state").annotate(Count("id"))
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
    mine = _open_messages(key)
    yield mine.filter(state=State.QUEUED, due_at=None)
    yield Message.objects.using(database()).filter(deferred_batch=key, due_at__lte=now)
    yield mine.filter(state=State.SCHEDULED, send_at__lte=now)


def _open_messages(key: UUID | OuterRef) -> QuerySet[Message]:
    """Messages that wait or are sent with their batch: see :attr:`.Message.open_batch`."""
    return Message.objects.using(database()).filter(open_batch=key)


def _messages(key: UUID) -> QuerySet[Message]:
    return Message.objects.using(database()).filter(batch_id=key)


def _batches(key: UUID) -> QuerySet[Batch]:
    return Batch.objects.using(database()).filter(id=key)
