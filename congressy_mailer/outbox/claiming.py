"""Storing messages, and giving them out under a lease."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import DatabaseError, connections
from django.db.models import Case, DateTimeField, Prefetch, Q, QuerySet, Value
from django.db.models.functions import Coalesce
from django.utils import timezone

from ..conf import mailer_settings
from ..models import Attachment, Batch, Message, Priority, State
from ..models.transactions import database, without_conflicts
from .batches import WITH_BATCH, watch
from .recovery import abandoned, recover
from .rows import WAITING, held, or_when_it_expires, rows

# What has just been published is left to a worker that is free: only if none takes it, it is taken out of turn.
_A_FREE_WORKERS_TURN = timedelta(milliseconds=100)


def claim(ids: Sequence[UUID], token: str, *, redelivered: bool = False) -> list[Message]:
    """Take what may be sent of these messages, under a lease. Two claims never hold the same message.

    A message whose worker died while holding it is only taken when it is asked for alone: were it the cause, it
    would take the others with it again.

    Args:
        ids: what the broker says; ids of messages that are gone, not due or taken are passed over.
        token: from :func:`congressy_mailer.broker.processes.new_token`.
        redelivered: the broker gave this task out before: perhaps because its process died with these messages.

    Returns:
        The messages taken, with their attachments fetched, in the order they should be sent.
    """
    if redelivered:
        recover(rows(abandoned(rows(ids))))
    messages = _held_by(token, rows(ids)) if _claim_rows(ids, token) else []
    if len(messages) < len(set(ids)):
        expire(ids)
    return messages


def batch_with_content(key: UUID) -> Batch | None:
    """A batch, with what all of its messages say; ``None`` where it is gone."""
    batches = Batch.objects.using(database()).filter(pk=key)
    return batches.prefetch_related(Prefetch("attachments", Attachment.objects.using(database()))).first()


def claim_of_batch(batch: Batch, token: str, limit: int) -> list[Message]:
    """Take what comes next of a batch; what was refused temporarily and is due goes first.

    What its worker died of is not among it: that is claimed alone, by :func:`claim`.

    Args:
        batch: from :func:`batch_with_content`.
        token: from :func:`congressy_mailer.broker.processes.new_token`.
        limit: the most that is taken.
    """
    now = timezone.now()
    mine = _messages().filter(WITH_BATCH, batch=batch)
    in_order = mine.order_by("priority", "id")
    for waiting in (
        mine.filter(state=State.DEFERRED, due_at__lte=now).order_by("due_at"),
        in_order.filter(state=State.QUEUED, due_at=None),
        in_order.filter(state=State.SCHEDULED, send_at__lte=now),
    ):
        if taken := _take(waiting, token, limit):
            return _held_by(token, rows(taken), batch)
    return []


def claim_waiting(token: str, limit: int, *, before: Priority | None = None) -> list[Message]:
    """Take what has been published, is in no batch, and has been left waiting: it goes before what is less urgent.

    Args:
        token: of the claim.
        limit: the most that is taken.
        before: only what is more urgent than this.
    """
    patience = timezone.now() - _A_FREE_WORKERS_TURN
    waiting = _messages().filter(batch=None, state=State.QUEUED, crashes=0, queued_at__lte=patience)
    if before is not None:
        waiting = waiting.filter(priority__lt=before)
    taken = _take(waiting.filter(_unexpired(timezone.now())).order_by("priority", "id"), token, limit)
    return _held_by(token, rows(taken)) if taken else []


def anything_waiting() -> bool:
    """Whether :func:`claim_waiting` would take something."""
    patience = timezone.now() - _A_FREE_WORKERS_TURN
    return _messages().filter(batch=None, state=State.QUEUED, crashes=0, queued_at__lte=patience).exists()


@without_conflicts
def _take(waiting: QuerySet[Message], token: str, limit: int) -> list[UUID]:
    """Claim the first of these."""
    connection = connections[database()]
    if connection.features.has_select_for_update_skip_locked:
        waiting = waiting.select_for_update(skip_locked=True)
    elif connection.vendor == "sqlite":
        # Whoever writes holds the database to the end of the transaction, also if it changes nothing: what is read
        # after that nobody else takes.
        _messages().filter(state="", token=token).update(token=token)
    ids = list(waiting.values_list("id", flat=True)[:limit])
    if ids:
        now = timezone.now()
        rows(ids).filter(state__in=WAITING).update(
            state=State.SENDING, token=token, due_at=now + mailer_settings().LEASE, begun_at=None,
            queued_at=Coalesce("queued_at", Value(now, DateTimeField())),
        )  # fmt: skip
    return ids


def _held_by(token: str, among: QuerySet[Message], batch: Batch | None = None) -> list[Message]:
    """What this claim holds, with what it says, in the order it should be sent."""
    # Named, because a router may have related rows read from a replica that does not have them yet.
    attachments = Attachment.objects.using(database())
    related: list[Any] = [Prefetch("attachments", attachments)]
    if batch is None:
        related += [Prefetch("batch", Batch.objects.using(database())), Prefetch("batch__attachments", attachments)]
    held = list(among.filter(state=State.SENDING, token=token).prefetch_related(*related))
    if batch is not None:
        for message in held:
            message.batch = batch
    return sorted(held, key=lambda message: (message.priority, message.id))


def _messages() -> QuerySet[Message]:
    return Message.objects.using(database())


@without_conflicts
def _claim_rows(ids: Sequence[UUID], token: str) -> int:
    now = timezone.now()
    claimable = _claimable(ids, now)
    if len(set(ids)) > 1:
        claimable = claimable.filter(crashes=0)
    return claimable.update(state=State.SENDING, token=token, due_at=now + mailer_settings().LEASE, begun_at=None)


def _claimable(ids: Sequence[UUID], now: datetime) -> QuerySet[Message]:
    return rows(ids).filter(Q(state=State.QUEUED) | Q(state=State.DEFERRED, due_at__lte=now)).filter(_unexpired(now))


def _unexpired(now: datetime) -> Q:
    return Q(expires_at__isnull=True) | Q(expires_at__gt=now)


def suspects(ids: Sequence[UUID]) -> list[UUID]:
    """Those of these messages that may be claimed, but only each alone."""
    return list(_claimable(ids, timezone.now()).filter(crashes__gt=0).order_by("id").values_list("id", flat=True))


@without_conflicts
def expire(ids: Iterable[UUID]) -> None:
    """End those of these messages that nobody holds and whose ``expires_at`` is over."""
    now = timezone.now()
    rows(ids).filter(state__in=WAITING, expires_at__lte=now).update(
        state=State.EXPIRED, due_at=None, finished_at=now, reason="It was not sent before its expires_at."
    )


@without_conflicts
def begin(token: str, key: UUID) -> bool:
    """Mark a claimed message as being handed over; returns whether the claim still holds.

    Only needed where a message that was begun must never be sent a second time.
    """
    return bool(held(key, token).update(begun_at=timezone.now()))


@without_conflicts
def note_route(token: str, ids: Iterable[UUID], via: str) -> None:
    """Write down which mail backend claimed messages are about to go over.

    Before they are handed over: a message whose worker dies then must not go over another one afterwards.

    Args:
        token: of the claim.
        ids: of the messages.
        via: the backend's alias; empty: the one that the messages name.
    """
    rows(ids).filter(state=State.SENDING, token=token).update(via=via)


@without_conflicts
def release(token: str, messages: Iterable[Message], until: datetime | None = None) -> None:
    """Put claimed messages that were not handed over back on the queue; no attempt is counted.

    Args:
        token: of the claim.
        messages: as they were claimed.
        until: when somebody is to look at them; ``None`` where the caller sees to that itself.
    """
    due_at = until or timezone.now() + mailer_settings().LOST_AFTER
    # These wait in the table for the tasks of the batch.
    batches = {message.id: message.batch_id for message in messages if message.waits_with_batch}
    if batches:
        _release(batches, token, None)
        watch([key for key in batches.values() if key], by=due_at)
    if others := [message.id for message in messages if message.id not in batches]:
        _release(others, token, or_when_it_expires(due_at))


def give_back(token: str) -> None:
    """Put back whatever this claim holds: it is not known what that is."""
    release(token, list(_messages().filter(state=State.SENDING, token=token)), timezone.now())


def _release(ids: Iterable[UUID], token: str, due_at: Case | None) -> None:
    held = rows(ids).filter(state=State.SENDING, token=token)
    held.update(state=State.QUEUED, token="", due_at=due_at, begun_at=None)


def unpublished(ids: Iterable[UUID]) -> None:
    """The broker did not take these ids: let the next sweep see to them."""
    # Without this they are found all the same, only later.
    with suppress(DatabaseError):
        _publish_again(ids)


@without_conflicts
def _publish_again(ids: Iterable[UUID]) -> None:
    rows(ids).filter(state=State.QUEUED).update(due_at=timezone.now())
