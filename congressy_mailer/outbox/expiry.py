"""Messages whose ``expires_at`` is over, and due times that do not lie behind it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from django.db.models import Case, DateTimeField, F, Q, Value, When

from .. import metrics
from ..models import Message, State, clock
from ..models.choices import WAITING
from ..models.transactions import lock_free, retry_on_conflict
from .rows import rows

#: Why what has expired was not sent.
EXPIRED = "It was not sent before its expires_at."


def not_expired(now: datetime) -> Q:
    """The condition that a message may still be sent."""
    return Q(expires_at__isnull=True) | Q(expires_at__gt=now)


def expire(ids: Iterable[UUID]) -> None:
    """End those of these messages that are unlocked and whose ``expires_at`` is over."""
    metrics.count_expired(_expire(ids))


@retry_on_conflict
def _expire(ids: Iterable[UUID]) -> list[Message]:
    now = clock.now()
    over = rows(ids).filter(state__in=WAITING, expires_at__lte=now).order_by("id")
    expired = list(lock_free(over).only("using", "route", "batch_id", "priority"))
    # The state is looked at again for servers without SKIP LOCKED, which have locked nothing.
    rows(message.id for message in expired).filter(state__in=WAITING).update(
        state=State.EXPIRED, due_at=None, finished_at=now, reason=EXPIRED
    )
    return expired


def before_expiry(message: Message, when: datetime) -> datetime:
    """This time, or the time at which the message expires where that is earlier."""
    return min(when, message.expires_at) if message.expires_at is not None else when


def before_expiry_expression(when: datetime) -> Case:
    """The same for many messages at once, in the database."""
    return Case(When(expires_at__lt=when, then=F("expires_at")), default=Value(when, DateTimeField()))
