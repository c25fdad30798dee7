"""What happened to a message, step by step and in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ..models import Event, Message, State
from ..models.choices import FINAL
from .reasons import shown_reason, shown_suppression

Type = Event.Type

_EVENTS: dict[str, Any] = {
    Type.ACCEPTED: _("The mail server took it for this recipient."),
    Type.DEFERRED: _("The mail server put it off; it is tried again."),
    Type.REJECTED: _("The mail server refused it for good."),
    Type.FAILED: _("It could not be sent."),
    Type.CRASHED: _("The worker died while it was sending it."),
    Type.WITHHELD: _("It was set aside before it left."),
    Type.RETRIED: _("Somebody had it sent again."),
    Type.SUPPRESSED: _("This recipient was left out: the address is on the suppression list."),
    Type.INJECTED: _("SparkPost has taken it."),
    Type.DELAYED: _("It has not been delivered yet; SparkPost tries again."),
    Type.DELIVERED: _("It was delivered: the recipient's server has taken it."),
    Type.BOUNCED: _("It bounced: the recipient's server refused it."),
    Type.NOT_TRIED: _("SparkPost did not try to deliver it."),
    Type.COMPLAINED: _("The recipient reported it as spam."),
    Type.OPENED: _("It was opened."),
    Type.CLICKED: _("A link in it was followed."),
    Type.UNSUBSCRIBED: _("The recipient unsubscribed."),
    Type.RESUBSCRIBED: _("The recipient came back, and gets such mail again."),
    Type.OTHER: _("SparkPost reported something else."),
}
_ENDS: dict[str, Any] = {
    State.FAILED: _("It failed, and is not tried again."),
    State.CANCELLED: _("It was cancelled."),
    State.EXPIRED: _("It expired before it could be sent."),
    State.SUPPRESSED: _("It was not sent: every recipient is on the suppression list."),
    State.HELD: _("It is held: a person has to decide."),
}
_WAITS: dict[str, Any] = {
    State.SCHEDULED: _("It will be sent."),
    State.QUEUED: _("It waits for a worker."),
    State.SENDING: _("A worker is sending it."),
    State.DEFERRED: _("It will be tried again."),
}
#: Of steps, those that are good or bad news; the others are neither.
_GOOD = {Type.ACCEPTED, Type.DELIVERED, Type.OPENED, Type.CLICKED, Type.RESUBSCRIBED}
_BAD = {
    Type.REJECTED, Type.FAILED, Type.CRASHED, Type.WITHHELD, Type.SUPPRESSED, Type.BOUNCED, Type.NOT_TRIED,
    Type.COMPLAINED,
}  # fmt: skip

# A webhook may tell of thousands of openings.
_MOST_EVENTS = 200
# SparkPost's clock may be behind ours by so much.
_CLOCKS_APART = timedelta(seconds=5)
# Stored and queued in one call.
_SAME = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened, or is to happen."""

    #: When; ``None``: unknown.
    at: datetime | None
    #: What, in a sentence.
    title: str
    #: Whom it was about; empty: all recipients.
    recipient: str = ""
    #: The server's words, or the reason.
    detail: str = ""
    #: ``good``, ``bad``, ``next`` or empty.
    kind: str = ""
    #: Reported by SparkPost, whose clock differs from ours and counts whole seconds.
    told: bool = False


def timeline(message: Message) -> list[Step]:
    """All that is known, in its order."""
    first, *own = _own_steps(message)
    steps = sorted([*own, *_event_steps(message)], key=partial(_moment, message))
    # Each with the time that it has in this order: a second that goes back would look like a fault.
    shown = [replace(step, at=step.at and _moment(message, step)[0]) for step in steps]
    return [first, *shown, *_next_step(message)]


def _moment(message: Message, step: Step) -> tuple[datetime, bool, datetime]:
    """By which a step is put in order: what SparkPost tells came after it had the mail."""
    at = step.at or message.created_at
    if step.told and message.sent_at is not None and message.sent_at - at < _CLOCKS_APART:
        return max(at, message.sent_at), True, at
    return at, False, at


def _own_steps(message: Message) -> Iterator[Step]:
    yield Step(message.created_at, str(_("It was handed over to be sent.")))
    if message.send_at is not None:
        yield Step(message.created_at, str(_("It is to be sent at a certain time.")))
    if message.queued_at is not None and message.queued_at - message.created_at > _SAME:
        yield Step(message.queued_at, str(_("It was put on the queue.")))
    if message.sent_at is not None:
        yield Step(message.sent_at, str(_("The mail server took it.")), detail=shown_reason(message.reply), kind="good")
    if message.state in FINAL - {State.SENT}:
        yield Step(message.finished_at, str(_ENDS[message.state]), detail=shown_reason(message.reason), kind="bad")
    if message.content_dropped_at is not None:
        yield Step(message.content_dropped_at, str(_("The content was deleted.")))


def _event_steps(message: Message) -> Iterator[Step]:
    for event in reversed(message.events.order_by("-at", "-id")[:_MOST_EVENTS]):
        kind = "good" if event.type in _GOOD else "bad" if event.type in _BAD else ""
        told = event.key is not None
        shown = shown_suppression if event.type == Type.SUPPRESSED else shown_reason
        detail = event.detail if told else shown(event.detail)
        yield Step(event.at, str(_EVENTS[event.type]), event.recipient, detail, kind, told)


def _next_step(message: Message) -> Iterator[Step]:
    if message.state not in _WAITS:
        return
    due = message.due_at if message.state in (State.SCHEDULED, State.DEFERRED) else None
    late = due is not None and due < timezone.now()
    yield Step(None if late else due, str(_WAITS[message.state]), detail=shown_reason(message.reason), kind="next")
