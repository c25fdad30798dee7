"""Stopping a batch that was cancelled or has expired: what waits with it is ended, some at a time.

That a batch has nothing left is noticed by :func:`.batches.reschedule_batch`.
"""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from django.db import connections
from django.db.models import QuerySet

from ..conf import mailer_settings
from ..models import BLOCKED, NO_BATCH, PAUSED, Message, State, clock
from ..models.choices import WAITING
from ..models.transactions import database, lock_free, retry_on_conflict
from .batch_rows import batch_row, messages_of, open_messages

# Messages that are cancelled in one transaction: few enough that its locks are short.
_CHUNK = 1000


def cancel_batch(key: UUID) -> int:
    """Take back what no worker holds, and store nothing more; returns how many messages.

    What a worker holds at this moment and puts back later ends then; what a worker died of ends as well.
    """
    now = clock.now()
    # It stays due: a worker that has not seen this yet may be putting a message back.
    batch_row(key).filter(cancelled_at=None).update(cancelled_at=now, due_at=now + mailer_settings().LOST_AFTER)
    return sum(_end_all(messages, State.CANCELLED, "", wait=True) for messages in waiting_in_batch(key))


def end_waiting_with_batch(key: UUID, state: State, reason: str) -> int:
    """End the unlocked messages of a batch; returns how many."""
    return sum(_end_all(messages, state, reason, wait=False) for messages in waiting_in_batch(key))


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
    return ids, end_rows(Message.objects.using(database()).filter(id__in=ids), state, reason)


def end_rows(messages: QuerySet[Message], state: State, reason: str) -> int:
    """End those of these messages that wait, in one statement; returns how many."""
    waiting = messages.filter(state__in=WAITING)
    return waiting.update(state=state, due_at=None, finished_at=clock.now(), reason=reason)


def waiting_in_batch(key: UUID) -> Iterator[QuerySet[Message]]:
    """Messages of a batch that no worker holds, range by range: a condition of several would read the whole batch.

    Those that a worker died of have tasks of their own, and end with the batch nevertheless.
    """
    for state in WAITING:
        yield open_messages(key).filter(state=state).order_by("priority", "id")
    alone = messages_of(key).filter(open_batch__in=(NO_BATCH, BLOCKED, PAUSED), detached=False, state__in=WAITING)
    yield alone.order_by("id")
