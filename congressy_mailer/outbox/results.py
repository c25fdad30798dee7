"""Writing down what became of a claimed message, as long as the claim is still ours."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import F
from django.utils import timezone

from ..conf import mailer_settings
from ..models import Event, Message, State
from ..retry import LONGEST_COUNTDOWN, Reply, delay
from ..transports.base import Outcome
from .claiming import no_later_than
from .retention import drop_content
from .rows import database, held, tell, without_conflicts

_IN_DOUBT = " (in doubt: the server may have taken it)"


@without_conflicts
def record(token: str, message: Message, outcome: Outcome) -> timedelta | None:
    """Write down what became of a claimed message, unless the claim is no longer ours.

    Returns:
        How long until it should be tried again; ``None`` where it is final, or too far ahead for the broker.
    """
    ours = held(message.id, token)
    if not ours.exists():
        return None
    wait = None
    if not outcome.deferred:
        _finish(token, message, outcome)
    elif outcome.in_doubt and _is_enough(message):
        # Those who were refused are answered: a person's retry() is for the others.
        ours.update(
            state=State.HELD, token="", due_at=None, finished_at=timezone.now(), attempts=F("attempts") + 1,
            crashes=F("crashes") + 1, reason=_said(outcome.deferred) + _IN_DOUBT, remaining=list(outcome.deferred),
        )  # fmt: skip
    else:
        message.remaining = list(outcome.deferred)
        message.sent_at = message.sent_at or (timezone.now() if outcome.accepted else None)
        reason = _said(outcome.deferred) + (_IN_DOUBT if outcome.in_doubt else "")
        wait = _defer(token, message, reason, str(outcome.reply), crashes=message.crashes + outcome.in_doubt)
    if outcome.deferred or outcome.rejected:
        _tell_recipients(message.id, outcome)
    return wait


def _is_enough(message: Message) -> bool:
    """A server that takes too long to say that it has a mail would get it again and again."""
    conf = mailer_settings()
    return conf.ON_CRASH == "hold" or message.crashes + 1 >= conf.MAX_CRASHES


def _said(replies: Mapping[str, Reply]) -> str:
    return "; ".join(f"{recipient}: {reply}" for recipient, reply in replies.items())


def _finish(token: str, message: Message, outcome: Outcome) -> None:
    now = timezone.now()
    sent_at = message.sent_at or (now if outcome.accepted else None)
    state = State.SENT if sent_at is not None else State.FAILED
    held(message.id, token).update(
        state=state, token="", due_at=None, finished_at=now, sent_at=sent_at, attempts=F("attempts") + 1,
        reply=str(outcome.reply), reason=_said(outcome.rejected), remaining=None,
    )  # fmt: skip
    _forget_if_sensitive(message, state)


def _forget_if_sensitive(message: Message, state: State) -> None:
    # What failed may be sent again by a person: see retention.
    if message.sensitive and state == State.SENT:
        drop_content([message.id])


@without_conflicts
def postpone(token: str, key: UUID, reason: str) -> timedelta | None:
    """Put a claimed message aside that this worker cannot compose yet: tried again like a temporary refusal."""
    message = held(key, token).first()
    return _defer(token, message, reason, None) if message is not None else None


@without_conflicts
def fail(token: str, key: UUID, reason: str) -> None:
    """End a claimed message that can never be sent."""
    now = timezone.now()
    if held(key, token).update(state=State.FAILED, token="", due_at=None, finished_at=now, reason=reason):
        tell(key, Event.Type.FAILED, now, detail=reason)


def _defer(
    token: str, message: Message, reason: str, reply: str | None, *, crashes: int | None = None
) -> timedelta | None:
    """Try again later, or give up once ``RETRY_FOR`` is over."""
    conf = mailer_settings()
    now = timezone.now()
    attempts = message.attempts + 1
    wait = delay(attempts, conf.RETRY_BACKOFF, conf.RETRY_BACKOFF_MAX)
    values: dict[str, object] = {
        "token": "", "attempts": attempts, "remaining": message.remaining, "sent_at": message.sent_at,
    }  # fmt: skip
    if reply is not None:
        values["reply"] = reply
    if crashes is not None:
        values["crashes"] = crashes
    ours = held(message.id, token)
    if now + wait > (message.queued_at or message.created_at) + conf.RETRY_FOR:
        given_up = f"Given up after {conf.RETRY_FOR}: {reason}"
        state = State.SENT if message.sent_at else State.FAILED
        if ours.update(state=state, due_at=None, finished_at=now, reason=given_up, **values):
            tell(message.id, Event.Type.FAILED, now, detail=given_up)
            _forget_if_sensitive(message, state)
        return None
    due_at = no_later_than(message, now + wait)
    if not ours.update(state=State.DEFERRED, due_at=due_at, reason=reason, **values):
        return None
    if reply is None:
        tell(message.id, Event.Type.DEFERRED, now, detail=reason)
    return wait if wait <= LONGEST_COUNTDOWN else None


@without_conflicts
def hasten(held_back_until: datetime) -> None:
    """Let the next sweep publish what was held back until then: what it waited for is known already.

    Args:
        held_back_until: exactly as it was given to :func:`.claiming.release`.
    """
    waiting = Message.objects.using(database()).filter(state=State.QUEUED, due_at=held_back_until)
    waiting.update(due_at=timezone.now())


def _tell_recipients(key: UUID, outcome: Outcome) -> None:
    now = timezone.now()
    said = [(Event.Type.ACCEPTED, recipient, str(outcome.reply)) for recipient in outcome.accepted]
    said += [(Event.Type.DEFERRED, recipient, str(reply)) for recipient, reply in outcome.deferred.items()]
    said += [(Event.Type.REJECTED, recipient, str(reply)) for recipient, reply in outcome.rejected.items()]
    Event.objects.using(database()).bulk_create(
        Event(message_id=key, type=event, at=now, recipient=recipient, detail=detail)
        for event, recipient, detail in said
    )
