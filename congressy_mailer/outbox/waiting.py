"""What waits and for how long, for :mod:`congressy_mailer.health`.

Every question is a range of an index, and their number does not grow with what waits, nor with the number of batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Count, Min, OuterRef, Q, Subquery
from django.db.models.functions import Coalesce, Greatest

from ..models import BLOCKED, NO_BATCH, PAUSED, Batch, Priority, Retention, State, clock
from ..models.transactions import database
from .batches import first_waiting, unfinished_batches
from .rows import all_messages

#: Counting stops here, since a long queue is counted at each call of ``health``.
COUNTED = 10_000

#: The same for batches, each of which is looked up. PostgreSQL would compile a statement that looks up five times as
#: many, which takes longer than the statement.
COUNTED_BATCHES = 2_000

# Of batches of which none of the newest messages is, so many are looked through.
_LOOKED_THROUGH = 10

#: So many messages of each priority are looked at for the oldest.
HEAD = 1000


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits in one queue."""

    #: How many messages, counted up to :data:`COUNTED` of each kind; of batches, how many of the first
    #: :data:`COUNTED_BATCHES`.
    count: int
    #: When the oldest of them became ready to be sent; ``None``: nothing waits.
    oldest: datetime | None


@dataclass(frozen=True, slots=True)
class Deferred:
    """What is tried again later."""

    #: How many messages, counted up to :data:`COUNTED` of each kind.
    count: int
    #: When the first of them is tried again; ``None``: there are none.
    next_try: datetime | None


def deferred_messages() -> Deferred:
    """Messages that were refused temporarily, or that no worker could compose yet."""
    # Each kind by the key that holds no finished message.
    alone = all_messages().filter(state=State.DEFERRED, sweep_at__isnull=False)
    with_batch = all_messages().filter(deferred_batch__isnull=False)
    times = [part[:COUNTED].aggregate(first=Min("due_at"))["first"] for part in (alone, with_batch)]
    return Deferred(
        sum(part[:COUNTED].count() for part in (alone, with_batch)),
        min((moment for moment in times if moment is not None), default=None),
    )


def waiting_messages() -> Queue:
    """Messages that wait for a task of their own: in no batch, or no longer with their batch."""
    kinds = [all_messages().filter(open_batch=kind, state=State.QUEUED) for kind in (NO_BATCH, BLOCKED)]
    # Those that are sent next, of each priority a range of the index of what is in no batch. Their ids are in the order
    # of the calls; a message that was scheduled or is sent once more became ready later than that.
    heads = [single.filter(priority=priority).order_by("id") for single in kinds for priority in Priority]
    moments = [
        moment for head in heads for moment in head.values_list("queued_at", flat=True)[:HEAD] if moment is not None
    ]
    return Queue(sum(single[:COUNTED].count() for single in kinds), min(moments, default=None))


def waiting_batches() -> Queue:
    """Batches that have something left which may be sent now."""
    now = clock.now()
    begun = Greatest(Coalesce("send_at", "created_at"), "created_at")
    batches = unfinished_batches(now).annotate(waits=first_waiting(now), begun=begun)[:COUNTED_BATCHES]
    found = batches.aggregate(count=Count("waits"), oldest=Min("begun", filter=Q(waits__isnull=False)))
    return Queue(found["count"], found["oldest"])


@dataclass(frozen=True, slots=True)
class WaitingBatch:
    """A batch that has something left to send."""

    #: Its campaign, else its template, else its key or id.
    name: str
    #: How many messages wait, counted up to :data:`COUNTED`.
    count: int
    #: When it could first be sent.
    since: datetime


def batches_with_mail(limit: int) -> list[WaitingBatch]:
    """Batches that have something left which may be sent now, those first that are due first.

    Args:
        limit: look at so many at the most.
    """
    fields = ("id", "key", "campaign", "template", "created_at", "send_at")
    batches = list(unfinished_batches(clock.now()).only(*fields)[:limit])
    counts = {
        batch.id: all_messages().filter(open_batch=batch.id, state=State.QUEUED)[:COUNTED].count() for batch in batches
    }
    return [
        WaitingBatch(
            name=batch.campaign or batch.template or batch.key or str(batch.id),
            count=counts[batch.id],
            since=max(batch.send_at or batch.created_at, batch.created_at),
        )
        for batch in batches
        if counts[batch.id]
    ]


def waiting_head(limit: int) -> list[tuple[str, datetime | None]]:
    """Campaign of the messages that wait for a task of their own, and when each became ready to be sent.

    Args:
        limit: of so many at the most.
    """
    kinds = [all_messages().filter(open_batch=kind, state=State.QUEUED) for kind in (NO_BATCH, BLOCKED)]
    return [
        row for kind in kinds for row in kind.order_by("priority", "id").values_list("campaign", "queued_at")[:limit]
    ]


def stuck_batches(by: timedelta) -> list[UUID]:
    """Batches that have had something to send for longer than this, and of which nothing was sent meanwhile.

    Of the first :data:`COUNTED_BATCHES`. Where more than :data:`COUNTED` messages were sent meanwhile, ten at the most.
    """
    since = clock.now() - by
    batches = unfinished_batches(since).filter(created_at__lte=since).annotate(waits=first_waiting(since))
    waiting = [key for key, waits in batches.values_list("id", "waits")[:COUNTED_BATCHES] if waits is not None]
    if not waiting:
        return []
    # Which batches the newest messages are of, and not whether there is a new one of each batch: there is no index of
    # the messages of a batch by time, and most of a batch may have been sent long ago.
    moving: set[UUID | None] = set()
    all_seen = True
    for retention in Retention:
        newest = all_messages().filter(retention=retention, finished_at__gte=since).order_by("-finished_at")
        keys = list(newest.values_list("batch_id", flat=True)[:COUNTED])
        moving.update(keys)
        all_seen = all_seen and len(keys) < COUNTED
    found = [key for key in waiting if key not in moving]
    if all_seen or not found:
        return found
    found = found[:_LOOKED_THROUGH]
    sent = all_messages().filter(batch_id__in=found, finished_at__gte=since).order_by()
    moving = set(sent.values_list("batch_id", flat=True).distinct())
    return [key for key in found if key not in moving]


def waiting_senders() -> set[tuple[str, str]]:
    """Mail backend and sender of what waits or is being sent, each once; of the first :data:`COUNTED` messages and
    :data:`COUNTED_BATCHES` batches of each kind."""
    queued = [all_messages().filter(open_batch=kind, state=State.QUEUED) for kind in (NO_BATCH, BLOCKED, PAUSED)]
    deferred = all_messages().filter(open_batch=NO_BATCH, state=State.DEFERRED)
    sending = all_messages().filter(sweep_at__isnull=False, state=State.SENDING)
    found: set[tuple[str, str]] = set()
    for kind in (*queued, deferred, sending):
        found.update(kind.order_by().values_list("using", "from_email")[:COUNTED])
    # All messages of a batch have its backend and its sender.
    states = (State.QUEUED, State.DEFERRED)
    mine = [all_messages().filter(open_batch=OuterRef("pk"), state=state).order_by() for state in states]
    waits = Coalesce(*(Subquery(messages.values("id")[:1]) for messages in mine))
    batches = Batch.objects.using(database()).filter(cancelled_at=None, due_at__isnull=False).order_by("due_at")
    rows = batches.annotate(waits=waits).values_list("using", "from_email", "waits")[:COUNTED_BATCHES]
    return found | {(alias, sender) for alias, sender, waiting in rows if waiting is not None}


def count_open() -> dict[State, int]:
    """Messages of which something is still to become, without those that wait with their batch: by state, each counted
    up to :data:`COUNTED`. Paused ones are among those that are queued."""
    kinds = (NO_BATCH, BLOCKED, PAUSED)
    queued = [all_messages().filter(open_batch=kind, state=State.QUEUED) for kind in kinds]
    due = {
        state: [all_messages().filter(state=state, sweep_at__isnull=False)]
        for state in (State.SCHEDULED, State.SENDING, State.DEFERRED)
    }
    parts = {State.SCHEDULED: due[State.SCHEDULED], State.QUEUED: queued, State.SENDING: due[State.SENDING]}
    # A batch's message that is to be tried again is found by its batch.
    parts[State.DEFERRED] = [*due[State.DEFERRED], all_messages().filter(deferred_batch__isnull=False)]
    counts = {state: sum(part[:COUNTED].count() for part in several) for state, several in parts.items()}
    return {**counts, State.HELD: count_held()}


def count_held() -> int:
    """Messages that were set aside, and wait for a person."""
    return sum(
        all_messages().filter(retention=held)[:COUNTED].count() for held in (Retention.HELD, Retention.SENSITIVE_HELD)
    )
