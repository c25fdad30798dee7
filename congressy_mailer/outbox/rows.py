"""Short transactions on rows in one order: what every change of the outbox stands on."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from django.db.models import Case, DateTimeField, F, Q, QuerySet, Value, When
from django.utils import timezone

from ..models import Event, Message, State
from ..models.transactions import database, retry_on_conflict

#: States in which no worker holds a message and something is still to be done.
WAITING = (State.SCHEDULED, State.QUEUED, State.DEFERRED)


def rows(ids: Iterable[UUID]) -> QuerySet[Message]:
    """These messages, whatever their state."""
    # Sorted: updates that lock rows in the same order do not deadlock.
    return Message.objects.using(database()).filter(id__in=sorted(ids))


def claimed_row(key: UUID, token: str) -> QuerySet[Message]:
    """This message, if the claim with this token still holds it."""
    return rows([key]).filter(state=State.SENDING, token=token)


@retry_on_conflict
def change(key: UUID, condition: Q, event: Event.Type, **values: object) -> bool:
    """One message's change together with the event that records it."""
    if not rows([key]).filter(condition).update(**values):
        return False
    add_event(key, event, timezone.now(), detail=str(values.get("reason", "")))
    return True


def add_event(key: UUID, event: Event.Type, at: datetime, recipient: str = "", detail: str = "") -> None:
    """Write down what happened to a message."""
    # Without signals: a receiver of the host's for all models would decide whether this is recorded.
    Event.objects.using(database()).bulk_create(
        [Event(message_id=key, type=event, at=at, recipient=recipient, detail=detail)]
    )


def before_expiry(message: Message, when: datetime) -> datetime:
    """This time, or the time at which the message expires where that is earlier."""
    return min(when, message.expires_at) if message.expires_at is not None else when


def before_expiry_expression(when: datetime) -> Case:
    """The same for many messages at once, in the database."""
    return Case(When(expires_at__lt=when, then=F("expires_at")), default=Value(when, DateTimeField()))
