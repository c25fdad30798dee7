"""What people may ask for: take a message back, or send it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db.models import Case, DateTimeField, F, Q, Value, When
from django.utils import timezone

from ..exceptions import InvalidTransition
from ..models import Event, Message, SearchKey, State
from ..models.choices import FINAL, RETRYABLE, WAITING
from ..models.transactions import database, retry_on_conflict
from .insertion import insert_search_keys
from .rows import change, publishing_overdue_at, rows
from .search import first_address


@retry_on_conflict
def cancel(key: UUID) -> bool:
    """Take a message back that no worker holds; returns whether it could be."""
    now = timezone.now()
    return bool(rows([key]).filter(state__in=WAITING).update(state=State.CANCELLED, due_at=None, finished_at=now))


def retry(key: UUID) -> None:
    """Queue a failed, expired, cancelled, suppressed or held message again, for the recipients without a copy.

    Raises:
        InvalidTransition: it is in another state, or its content has been dropped.
    """
    _queue_again(key, RETRYABLE)


def resend(key: UUID) -> None:
    """Queue a final message again for all its recipients: those who have it get a second copy.

    Raises:
        InvalidTransition: it is in another state, or its content has been dropped.
    """
    _queue_again(key, FINAL, remaining=None, sent_at=None)


def replace_recipients(message: Message, fields: Mapping[str, Any]) -> bool:
    """Change whom a message is for, in the caller's transaction; returns whether it is as it was read and nobody holds
    it.

    Args:
        message: as it was read.
        fields: its recipients, and what else changes with them.
    """
    values = {**fields, "address": first_address([*fields["to"], *fields["cc"], *fields["bcc"]])}
    same = rows([message.pk]).filter(state=message.state).exclude(state=State.SENDING)
    if not same.update(**values):
        return False
    changed = rows([message.pk]).get()
    SearchKey.objects.using(database()).filter(message=message.pk).delete()
    insert_search_keys([changed])
    return True


def _queue_again(key: UUID, states: frozenset[State], **values: object) -> None:
    now = timezone.now()
    lost_at = publishing_overdue_at(now)
    changed = change(
        key,
        Q(state__in=states, content_dropped_at__isnull=True),
        Event.Type.RETRIED,
        # Not before its time, where that is still ahead.
        state=Case(When(send_at__gt=now, then=Value(State.SCHEDULED)), default=Value(State.QUEUED)),
        due_at=Case(
            When(send_at__gt=now, then=F("send_at")),
            When(expires_at__gt=now, expires_at__lt=lost_at, then=F("expires_at")),
            default=Value(lost_at, DateTimeField()),
        ),
        queued_at=Case(When(send_at__gt=now, then=None), default=Value(now, DateTimeField())),
        finished_at=None,
        first_attempt_at=None,
        # A time that is over would end it at once; one that is ahead still means what the caller meant.
        expires_at=Case(When(expires_at__gt=now, then=F("expires_at")), default=None),
        crashes=0,
        detached=True,
        blocked=False,
        pause=None,
        reason="",
        **values,
    )
    if changed:
        return
    message = rows([key]).only("state").first()
    if message is None:
        raise InvalidTransition(f"Message {key} is gone.")
    if message.state in states:
        raise InvalidTransition(f"Message {key} has nothing left to say: its content has been dropped.")
    raise InvalidTransition(
        f"Message {key} is {message.state}; it can be queued again only when it is {', '.join(sorted(states))}."
    )
