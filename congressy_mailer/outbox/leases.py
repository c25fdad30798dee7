"""Claimed messages, while the claim holds them: their lease, their handing over, and their way back to the queue."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from uuid import UUID

from ..conf import mailer_settings
from ..models import Message, State, clock
from ..models.transactions import retry_on_conflict, retry_statement
from .batches import make_due_by
from .cursors import CURSORS
from .expiry import before_expiry_expression
from .rows import all_messages, rows

_last_lease_end: datetime | None = None
_lease_lock = threading.Lock()


def lease_end(now: datetime) -> datetime:
    """When a lease ends that begins now: another time for each claim of this process, since it is known by that."""
    global _last_lease_end
    end: datetime = now + mailer_settings().LEASE
    with _lease_lock:
        # Not for longer than a moment: the clock may have been set back.
        if _last_lease_end is not None and timedelta(0) <= _last_lease_end - end < timedelta(seconds=1):
            end = _last_lease_end + timedelta(microseconds=1)
        _last_lease_end = end
    return end


@retry_on_conflict
def start_handover(token: str, ids: Collection[UUID]) -> set[UUID]:
    """Mark claimed messages as being handed over, in one statement; returns those that the claim still holds.

    Only needed where a message that was begun must never be sent a second time.
    """
    held = rows(ids).filter(state=State.SENDING, token=token)
    if held.update(handover_started_at=clock.now()) == len(ids):
        return set(ids)
    return set(held.values_list("id", flat=True))


@retry_statement
def extend_claim(token: str, ids: Iterable[UUID]) -> int:
    """Hold claimed messages for another ``LEASE``; returns how many of them the claim still held.

    Only by the process that works on them at this moment: the server is slow, and the worker is not gone.

    Args:
        token: of the claim.
        ids: of the messages.
    """
    held = rows(ids).filter(state=State.SENDING, token=token)
    return held.update(due_at=lease_end(clock.now()))


@retry_statement
def set_route(token: str, ids: Iterable[UUID], route: str) -> None:
    """Write down which mail backend claimed messages are about to go over.

    Before they are handed over: a message whose worker dies then must not go over another one afterwards.

    Args:
        token: of the claim.
        ids: of the messages.
        route: the backend's alias; empty: the one that the messages name.
    """
    rows(ids).filter(state=State.SENDING, token=token).update(route=route)


@retry_on_conflict
def release(token: str, messages: Iterable[Message], until: datetime | None = None) -> None:
    """Put claimed messages that were not handed over back on the queue; no attempt is counted.

    Args:
        token: of the claim.
        messages: as they were claimed.
        until: when they become due, and not before; ``None`` where the caller publishes them.
    """
    now = clock.now()
    due_at = until or now + mailer_settings().LOST_AFTER
    # These wait in the table for the tasks of the batch.
    batches = {message.id: message.batch_id for message in messages if message.waits_with_batch}
    if batches:
        _release(batches, token, due_at=None)
        for key in {key for key in batches.values() if key}:
            CURSORS.rewind(key, [message for message, batch in batches.items() if batch == key])
        make_due_by([key for key in batches.values() if key], by=due_at)
    if others := [message.id for message in messages if message.id not in batches]:
        blocked = until is not None and until > now
        _release(others, token, due_at=before_expiry_expression(due_at), blocked=blocked)


def release_claim(token: str, known: Collection[UUID] = ()) -> None:
    """Put back all messages that this claim holds, where it is not known which they are.

    Args:
        token: of the claim.
        known: those that it is known to hold, and keeps.
    """
    held = all_messages().filter(state=State.SENDING, token=token)
    release(token, [message for message in held if message.id not in known], clock.now())


def _release(ids: Iterable[UUID], token: str, **values: object) -> None:
    claimed = rows(ids).filter(state=State.SENDING, token=token)
    claimed.update(state=State.QUEUED, token="", handover_started_at=None, **values)
