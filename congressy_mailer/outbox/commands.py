"""What people may ask for: take a message back, or send it again."""

from __future__ import annotations

from uuid import UUID

from django.db.models import Case, DateTimeField, F, Q, Value, When
from django.utils import timezone

from ..conf import mailer_settings
from ..exceptions import InvalidTransition
from ..models import Event, State
from ..models.choices import FINAL
from ..models.transactions import retry_on_conflict
from .rows import WAITING, change, rows

#: States from which a person may send a message again.
RETRYABLE = frozenset({State.FAILED, State.CANCELLED, State.EXPIRED, State.SUPPRESSED, State.HELD})


@retry_on_conflict
def cancel(key: UUID) -> bool:
    """Take a message back that no worker holds; returns whether it could be."""
    now = timezone.now()
    return bool(rows([key]).filter(state__in=WAITING).update(state=State.CANCELLED, due_at=None, finished_at=now))


def retry(key: UUID) -> None:
    """Queue a message again that failed, expired, was cancelled, suppressed or held, for whoever has no copy.

    Raises:
        InvalidTransition: it is in another state, or its content has been dropped.
    """
    _queue_again(key, RETRYABLE)


def resend(key: UUID) -> None:
    """Queue a message again that is final, for all its recipients: whoever has it gets a second copy.

    Raises:
        InvalidTransition: it is in another state, or its content has been dropped.
    """
    _queue_again(key, FINAL, remaining=None, sent_at=None)


def _queue_again(key: UUID, states: frozenset[State], **values: object) -> None:
    now = timezone.now()
    lost_at = now + mailer_settings().LOST_AFTER
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
        # A time that is over would end it at once; one that is ahead still means what the caller meant.
        expires_at=Case(When(expires_at__gt=now, then=F("expires_at")), default=None),
        crashes=0,
        detached=True,
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
