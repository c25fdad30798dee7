"""Storing messages, and giving them out under a lease."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from celery.exceptions import SoftTimeLimitExceeded
from django.db import DatabaseError, DataError, connections
from django.db.models import Case, DateTimeField, F, Prefetch, Q, QuerySet, Value
from django.db.models.functions import Coalesce
from django.utils import timezone

from ..conf import mailer_settings
from ..models import Attachment, Batch, Event, Message, State
from ..models.transactions import database, is_away, retry_on_conflict
from .batches import WITH_BATCH, make_due_by
from .recovery import find_abandoned, recover
from .results import fail
from .rows import WAITING, add_event, before_expiry_expression, claimed_row, rows

logger = logging.getLogger("congressy_mailer.outbox")

# What has just been published is left to a worker that is free: only if none takes it, it is taken out of turn.
_IDLE_WORKER_GRACE = timedelta(milliseconds=100)


def claim(ids: Sequence[UUID], token: str, *, redelivered: bool = False) -> list[Message]:
    """Take what may be sent of these messages, under a lease. Two claims never hold the same message.

    A message whose worker died while holding it is only taken when it is asked for alone: were it the cause, it
    would take the others with it again.

    Args:
        ids: what the broker says; ids of messages that are gone, not due or taken are passed over.
        token: from :func:`congressy_mailer.broker.processes.new_claim_token`.
        redelivered: the broker gave this task out before: perhaps because its process died with these messages.

    Returns:
        The messages taken, with their attachments fetched, in the order they should be sent.
    """
    if redelivered:
        recover(rows(find_abandoned(rows(ids))))
    messages = _claimed_messages(token, rows(ids)) if _claim_rows(ids, token) else []
    if len(messages) < len(set(ids)):
        expire(ids)
    return messages


def batch_with_content(key: UUID) -> Batch | None:
    """A batch, with what all of its messages say; ``None`` where it is gone."""
    batches = Batch.objects.using(database()).filter(pk=key)
    return batches.prefetch_related(Prefetch("attachments", Attachment.objects.using(database()))).first()


def claim_from_batch(batch: Batch, token: str, limit: int) -> list[Message]:
    """Take what comes next of a batch; what was refused temporarily and is due goes first.

    What its worker died of is not among it: that is claimed alone, by :func:`claim`.

    Args:
        batch: from :func:`batch_with_content`.
        token: from :func:`congressy_mailer.broker.processes.new_claim_token`.
        limit: the most that is taken.
    """
    now = timezone.now()
    of_batch = _messages().filter(WITH_BATCH, batch=batch)
    in_order = of_batch.order_by("priority", "id")
    for waiting in (
        of_batch.filter(state=State.DEFERRED, due_at__lte=now).order_by("due_at"),
        in_order.filter(state=State.QUEUED, due_at=None),
        in_order.filter(state=State.SCHEDULED, send_at__lte=now),
    ):
        if claimed_ids := _claim_first(waiting, token, limit):
            return _claimed_messages(token, rows(claimed_ids), batch)
    return []


def claim_waiting(token: str, limit: int, *, before: int | None = None) -> list[Message]:
    """Take what has been published, is in no batch, and has been left waiting: it goes before what is less urgent.

    Args:
        token: of the claim.
        limit: the most that is taken.
        before: only what has a lower number as its priority, which is more urgent.
    """
    cutoff = timezone.now() - _IDLE_WORKER_GRACE
    waiting = _messages().filter(batch=None, state=State.QUEUED, crashes=0, queued_at__lte=cutoff)
    if before is not None:
        waiting = waiting.filter(priority__lt=before)
    claimed_ids = _claim_first(waiting.filter(_not_expired(timezone.now())).order_by("priority", "id"), token, limit)
    return _claimed_messages(token, rows(claimed_ids)) if claimed_ids else []


def has_waiting_messages() -> bool:
    """Whether :func:`claim_waiting` would claim a message."""
    cutoff = timezone.now() - _IDLE_WORKER_GRACE
    return _messages().filter(batch=None, state=State.QUEUED, crashes=0, queued_at__lte=cutoff).exists()


@retry_on_conflict
def _claim_first(waiting: QuerySet[Message], token: str, limit: int) -> list[UUID]:
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
            state=State.SENDING, token=token, due_at=now + mailer_settings().LEASE, handover_started_at=None,
            queued_at=Coalesce("queued_at", Value(now, DateTimeField())),
        )  # fmt: skip
    return ids


def _claimed_messages(token: str, queryset: QuerySet[Message], batch: Batch | None = None) -> list[Message]:
    """What this claim holds, with what it says, in the order it should be sent."""
    # Named, because a router may have related rows read from a replica that does not have them yet.
    attachments = Attachment.objects.using(database())
    related: list[Any] = [Prefetch("attachments", attachments)]
    if batch is None:
        related += [Prefetch("batch", Batch.objects.using(database())), Prefetch("batch__attachments", attachments)]
    held = queryset.filter(state=State.SENDING, token=token)
    claimed = _read(held.prefetch_related(*related), token)
    if batch is not None:
        for message in claimed:
            message.batch = batch
    return sorted(claimed, key=lambda message: (message.priority, message.id))


def _read(held: QuerySet[Message], token: str) -> list[Message]:
    """These messages; one that cannot be read is put aside, so that it does not keep the others from being sent."""
    try:
        return list(held)
    except (SystemExit, KeyboardInterrupt, SoftTimeLimitExceeded):
        raise
    except BaseException:
        if is_away():
            raise
    readable = []
    for key in held.prefetch_related(None).order_by("id").values_list("id", flat=True):
        try:
            readable += list(held.filter(id=key))
        except (SystemExit, KeyboardInterrupt, SoftTimeLimitExceeded):
            raise
        except BaseException as error:
            if is_away():
                raise
            _put_aside(key, token, error)
    return readable


@retry_on_conflict
def _put_aside(key: UUID, token: str, error: BaseException) -> None:
    """A stored value that no longer reads as what its column holds will not do so later; all else may."""
    damaged = isinstance(error, DataError | ValueError | TypeError | LookupError)
    conf = mailer_settings()
    now = timezone.now()
    reason = f"Its row cannot be read: {type(error).__name__}"
    ours = claimed_row(key, token)
    logger.error("Message %s is put aside. %s", key, reason)
    if damaged or ours.filter(queued_at__lt=now - conf.RETRY_FOR).exists():
        fail(token, key, reason)
    elif ours.update(
        state=State.DEFERRED, token="", due_at=now + conf.RETRY_BACKOFF_MAX, attempts=F("attempts") + 1, reason=reason
    ):
        add_event(key, Event.Type.DEFERRED, now, detail=reason)


def _messages() -> QuerySet[Message]:
    return Message.objects.using(database())


@retry_on_conflict
def _claim_rows(ids: Sequence[UUID], token: str) -> int:
    now = timezone.now()
    claimable = _claimable(ids, now)
    if len(set(ids)) > 1:
        claimable = claimable.filter(crashes=0)
    return claimable.update(
        state=State.SENDING, token=token, due_at=now + mailer_settings().LEASE, handover_started_at=None
    )


def _claimable(ids: Sequence[UUID], now: datetime) -> QuerySet[Message]:
    return rows(ids).filter(Q(state=State.QUEUED) | Q(state=State.DEFERRED, due_at__lte=now)).filter(_not_expired(now))


def _not_expired(now: datetime) -> Q:
    return Q(expires_at__isnull=True) | Q(expires_at__gt=now)


def needing_solo(ids: Sequence[UUID]) -> list[UUID]:
    """Those of these messages that may be claimed, but only each alone."""
    return list(_claimable(ids, timezone.now()).filter(crashes__gt=0).order_by("id").values_list("id", flat=True))


@retry_on_conflict
def expire(ids: Iterable[UUID]) -> None:
    """End those of these messages that nobody holds and whose ``expires_at`` is over."""
    now = timezone.now()
    rows(ids).filter(state__in=WAITING, expires_at__lte=now).update(
        state=State.EXPIRED, due_at=None, finished_at=now, reason="It was not sent before its expires_at."
    )


@retry_on_conflict
def start_handover(token: str, key: UUID) -> bool:
    """Mark a claimed message as being handed over; returns whether the claim still holds.

    Only needed where a message that was begun must never be sent a second time.
    """
    return bool(claimed_row(key, token).update(handover_started_at=timezone.now()))


@retry_on_conflict
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
        until: when somebody is to look at them; ``None`` where the caller sees to that itself.
    """
    due_at = until or timezone.now() + mailer_settings().LOST_AFTER
    # These wait in the table for the tasks of the batch.
    batches = {message.id: message.batch_id for message in messages if message.waits_with_batch}
    if batches:
        _release(batches, token, None)
        make_due_by([key for key in batches.values() if key], by=due_at)
    if others := [message.id for message in messages if message.id not in batches]:
        _release(others, token, before_expiry_expression(due_at))


def release_claim(token: str) -> None:
    """Put back all messages that this claim holds, where it is not known which they are."""
    release(token, list(_messages().filter(state=State.SENDING, token=token)), timezone.now())


def _release(ids: Iterable[UUID], token: str, due_at: Case | None) -> None:
    claimed = rows(ids).filter(state=State.SENDING, token=token)
    claimed.update(state=State.QUEUED, token="", due_at=due_at, handover_started_at=None)


def mark_unpublished(ids: Iterable[UUID]) -> None:
    """Make these messages due at once, since the broker did not take their ids."""
    # Without this they are found all the same, only later.
    with suppress(DatabaseError):
        _make_due_now(ids)


@retry_on_conflict
def _make_due_now(ids: Iterable[UUID]) -> None:
    rows(ids).filter(state=State.QUEUED).update(due_at=timezone.now())
