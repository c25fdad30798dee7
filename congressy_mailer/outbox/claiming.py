"""Storing messages, and giving them out under a lease."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from uuid import UUID

from django.db import DatabaseError, transaction
from django.db.models import Case, DateTimeField, F, Prefetch, Q, QuerySet, Value, When
from django.utils import timezone

from ..conf import mailer_settings
from ..models import Attachment, Message, State
from .recovery import abandoned, recover
from .rows import WAITING, database, held, rows, without_conflicts


def add(message: Message, attachments: Sequence[Attachment] = ()) -> None:
    """Store a new message in the caller's transaction, ``scheduled`` or ``queued``.

    Raises:
        django.db.IntegrityError: its ``idempotency_key`` exists already.
    """
    now = timezone.now()
    message.created_at = now
    if message.send_at is not None and message.send_at > now:
        message.state = State.SCHEDULED
        message.due_at = message.send_at
    else:
        message.state = State.QUEUED
        message.queued_at = now
        message.due_at = no_later_than(message, now + mailer_settings().LOST_AFTER)
    if not attachments and not message.idempotency_key:
        message.save(force_insert=True, using=database())
        return
    # A savepoint: the caller's transaction must outlive an idempotency_key that exists already.
    with transaction.atomic(using=database()):
        message.save(force_insert=True, using=database())
        Attachment.objects.using(database()).bulk_create(attachments)


def no_later_than(message: Message, when: datetime) -> datetime:
    """A message that expires must be looked at by then."""
    return min(when, message.expires_at) if message.expires_at is not None else when


def or_when_it_expires(when: datetime) -> Case:
    """The same for many messages at once, in the database."""
    return Case(When(expires_at__lt=when, then=F("expires_at")), default=Value(when, DateTimeField()))


def claim(ids: Sequence[UUID], token: str, *, redelivered: bool = False) -> list[Message]:
    """Take what may be sent of these messages, under a lease. Two claims never hold the same message.

    A message whose worker died while holding it is only taken when it is asked for alone: were it the cause, it
    would take the others with it again.

    Args:
        ids: what the broker says; ids of messages that are gone, not due or taken are passed over.
        token: from :func:`.holders.new_token`.
        redelivered: the broker gave this task out before: perhaps because its process died with these messages.

    Returns:
        The messages taken, with their attachments fetched, in the order they should be sent.
    """
    if redelivered:
        recover(rows(abandoned(rows(ids))))
    if not _claim_rows(ids, token):
        expire(ids)
        return []
    # Named, because a router may have related rows read from a replica that does not have them yet.
    attachments = Prefetch("attachments", Attachment.objects.using(database()))
    claimed = rows(ids).filter(state=State.SENDING, token=token).prefetch_related(attachments)
    messages = sorted(claimed, key=lambda message: (message.priority, message.id))
    if len(messages) < len(set(ids)):
        expire(ids)
    return messages


@without_conflicts
def _claim_rows(ids: Sequence[UUID], token: str) -> int:
    now = timezone.now()
    claimable = _claimable(ids, now)
    if len(set(ids)) > 1:
        claimable = claimable.filter(crashes=0)
    return claimable.update(state=State.SENDING, token=token, due_at=now + mailer_settings().LEASE, begun_at=None)


def _claimable(ids: Sequence[UUID], now: datetime) -> QuerySet[Message]:
    return (
        rows(ids)
        .filter(Q(state=State.QUEUED) | Q(state=State.DEFERRED, due_at__lte=now))
        .filter(Q(expires_at__isnull=True) | Q(expires_at__gt=now))
    )


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
def release(token: str, ids: Iterable[UUID], until: datetime | None = None) -> None:
    """Put claimed messages that were not handed over back on the queue; no attempt is counted.

    Args:
        token: of the claim.
        ids: of the messages.
        until: when a sweep is to publish them; ``None`` where the caller publishes them itself.
    """
    due_at = until or timezone.now() + mailer_settings().LOST_AFTER
    rows(ids).filter(state=State.SENDING, token=token).update(
        state=State.QUEUED, token="", due_at=or_when_it_expires(due_at), begun_at=None
    )


def unpublished(ids: Iterable[UUID]) -> None:
    """The broker did not take these ids: let the next sweep see to them."""
    # Without this they are found all the same, only later.
    with suppress(DatabaseError):
        _publish_again(ids)


@without_conflicts
def _publish_again(ids: Iterable[UUID]) -> None:
    rows(ids).filter(state=State.QUEUED).update(due_at=timezone.now())
