"""Messages whose worker died, or broke down, while holding them."""

from __future__ import annotations

from uuid import UUID

from django.db.models import F, Q, QuerySet
from django.utils import timezone

from ..broker.processes import is_gone
from ..conf import mailer_settings
from ..models import Event, Message, State
from .backoff import FLOOR
from .rows import change

_UNKNOWN = "Its worker died while handing it over; whether the mail server took it is not known."


def abandoned(messages: QuerySet[Message]) -> list[UUID]:
    """Those of these messages that are held by a process which is gone for certain."""
    held_by = messages.filter(state=State.SENDING).order_by("id").values_list("id", "token")
    return [key for key, token in held_by if is_gone(token)]


def recover(left: QuerySet[Message]) -> list[UUID]:
    """Put messages whose worker died back on the queue, or aside; returns those that are queued again."""
    conf = mailer_settings()
    queued: list[UUID] = []
    for message in left.only("id", "token", "crashes", "begun_at").order_by("id"):
        reason = ""
        if conf.ON_CRASH == "hold" and message.begun_at is not None:
            reason = _UNKNOWN
        elif message.crashes + 1 >= conf.MAX_CRASHES:
            reason = f"Its worker died {message.crashes + 1} times while holding it: it may be the cause."
        condition = Q(state=State.SENDING, token=message.token)
        if _put_back(message, condition, reason) and not reason:
            queued.append(message.id)
    return queued


def crashed(token: str, message: Message, error: str) -> None:
    """Composing a claimed message broke its worker, or used up its time: try again alone, or put it aside.

    Args:
        token: of the claim.
        message: as it was claimed.
        error: what happened, for people.
    """
    crashes = message.crashes + 1
    given_up = crashes >= mailer_settings().MAX_CRASHES
    reason = f"It broke its worker {crashes} times: {error}" if given_up else ""
    _put_back(message, Q(state=State.SENDING, token=token), reason, detail=error)


def _put_back(message: Message, condition: Q, reason: str, detail: str = "") -> bool:
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
        begun_at=None,
        reason=reason or detail,
    )
