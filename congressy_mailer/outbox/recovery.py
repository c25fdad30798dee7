"""Messages whose worker died, or broke down, while holding them."""

from __future__ import annotations

from uuid import UUID

from django.db.models import F, Q, QuerySet
from django.utils import timezone

from ..broker.processes import owner_is_gone
from ..conf import mailer_settings
from ..models import Event, Message, State
from .backoff import FLOOR
from .rows import change

_OUTCOME_UNKNOWN = "Its worker died while handing it over; whether the mail server took it is not known."


def find_abandoned(messages: QuerySet[Message]) -> list[UUID]:
    """Those of these messages that are held by a process which is gone for certain."""
    claims = messages.filter(state=State.SENDING).order_by("id").values_list("id", "token")
    return [key for key, token in claims if owner_is_gone(token)]


def recover(messages: QuerySet[Message]) -> list[UUID]:
    """Put messages whose worker died back on the queue, or aside; returns those that are queued again."""
    conf = mailer_settings()
    queued: list[UUID] = []
    for message in messages.only("id", "token", "crashes", "handover_started_at").order_by("id"):
        reason = ""
        if conf.ON_CRASH == "hold" and message.handover_started_at is not None:
            reason = _OUTCOME_UNKNOWN
        elif message.crashes + 1 >= conf.MAX_CRASHES:
            reason = f"Its worker died {message.crashes + 1} times while holding it: it may be the cause."
        condition = Q(state=State.SENDING, token=message.token)
        if _requeue_or_hold(message, condition, reason) and not reason:
            queued.append(message.id)
    return queued


def record_crash(token: str, message: Message, error: str) -> None:
    """Composing a claimed message broke its worker, or used up its time: try again alone, or put it aside.

    Args:
        token: of the claim.
        message: as it was claimed.
        error: what happened, for people.
    """
    crashes = message.crashes + 1
    hold = crashes >= mailer_settings().MAX_CRASHES
    reason = f"It broke its worker {crashes} times: {error}" if hold else ""
    _requeue_or_hold(message, Q(state=State.SENDING, token=token), reason, detail=error)


def _requeue_or_hold(message: Message, condition: Q, reason: str, detail: str = "") -> bool:
    """Queue a message again; aside where there is a reason."""
    now = timezone.now()
    # A message that was claimed alone comes back soon; the sweep publishes it.
    due_at = now + (FLOOR if detail else mailer_settings().LOST_AFTER)
    return change(
        message.id,
        condition,
        Event.Type.CRASHED,
        state=State.HELD if reason else State.QUEUED,
        due_at=None if reason else due_at,
        finished_at=now if reason else None,
        crashes=F("crashes") + 1,
        token="",
        handover_started_at=None,
        reason=reason or detail,
    )
