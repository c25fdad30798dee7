"""What waits and for how long, for :mod:`congressy_mailer.health`; every question is a range of an index."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import QuerySet
from django.utils import timezone

from ..models import Message, Priority, State
from ..models.transactions import database
from .batches import has_waiting, unfinished_batches

#: Counting goes no further: a long queue is counted each time somebody asks.
COUNTED = 10_000

#: So many messages of each priority are looked at for the oldest.
_HEAD = 1000


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits in one queue."""

    #: How many messages, counted up to :data:`COUNTED` of each kind; of batches, how many batches.
    count: int
    #: When the oldest of them became ready to be sent; ``None``: nothing waits.
    oldest: datetime | None


def waiting_messages() -> Queue:
    """Messages that wait for a task of their own: in no batch, or no longer with their batch."""
    single = _messages().filter(batch=None, state=State.QUEUED)
    # Those that wait with their batch have no due_at.
    left_batch = _messages().filter(batch__isnull=False, state=State.QUEUED, due_at__isnull=False).order_by("due_at")
    # Those that are sent next, of each priority a range of the index of what is in no batch. Their ids are in the order
    # of the calls; a message that was scheduled or is sent once more became ready later than that.
    heads = [single.filter(priority=priority).order_by("id") for priority in Priority]
    moments = [
        moment
        for head in (*heads, left_batch)
        for moment in head.values_list("queued_at", flat=True)[:_HEAD]
        if moment is not None
    ]
    return Queue(single[:COUNTED].count() + left_batch[:COUNTED].count(), min(moments, default=None))


def waiting_batches() -> Queue:
    """Batches that have something left which may be sent now."""
    now = timezone.now()
    begun = [
        max(send_at or created_at, created_at)
        for key, created_at, send_at in unfinished_batches(now).values_list("id", "created_at", "send_at")[:COUNTED]
        if has_waiting(key, now)
    ]
    return Queue(len(begun), min(begun, default=None))


def stuck_batches(by: timedelta) -> list[UUID]:
    """Batches that have had something to send for longer than this, and of which nothing was sent meanwhile."""
    now = timezone.now()
    since = now - by
    return [
        key
        for key in unfinished_batches(since).filter(created_at__lte=since).values_list("id", flat=True)[:COUNTED]
        if has_waiting(key, since) and not _messages().filter(batch_id=key, finished_at__gte=since).exists()
    ]


def count_held() -> int:
    """Messages that were set aside, and wait for a person."""
    return _messages().filter(state=State.HELD)[:COUNTED].count()


def _messages() -> QuerySet[Message]:
    return Message.objects.using(database())
