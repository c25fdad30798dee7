"""Leaving out recipients that are on the suppression list, and ending messages that have none left.

The headers stay as the caller wrote them; only the envelope leaves them out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from uuid import UUID

from django.utils import timezone

from ..models import Event, Message, State
from ..models.transactions import database, without_conflicts
from .retention import drop_content
from .rows import rows

#: Recipients that are left out, as the envelope has them, and why each.
Reasons = Mapping[str, str]


def leave_out_at_call(message: Message, reasons: Reasons, now: datetime) -> None:
    """Have a new message be for the others only; where there are none, it is ``suppressed``."""
    others = [recipient for recipient in message.envelope if recipient not in reasons]
    if others:
        message.remaining = others
    else:
        message.state, message.due_at, message.queued_at = State.SUPPRESSED, None, None
        message.finished_at, message.reason = now, _said(reasons)


@without_conflicts
def leave_out(token: str, found: Iterable[tuple[Message, Reasons]]) -> set[UUID]:
    """Leave recipients out of claimed messages, as far as the claim still holds them. Whoever has a copy keeps it.

    Args:
        token: of the claim.
        found: messages, each with those of its envelope that are left out.

    Returns:
        Those of these messages that the claim holds, and that have somebody left to be sent to.
    """
    by_id = {message.id: (message, reasons) for message, reasons in found}
    now = timezone.now()
    ours = rows(by_id).filter(state=State.SENDING, token=token)
    mine = sorted(ours.order_by("id").select_for_update().values_list("id", flat=True))
    left = {key for key in mine if _leave_out(*by_id[key], now)}
    tell({key: by_id[key][1] for key in mine}, now)
    return left


def _leave_out(message: Message, reasons: Reasons, now: datetime) -> bool:
    """Whether somebody is left."""
    row = rows([message.id])
    others = [recipient for recipient in message.envelope if recipient not in reasons]
    if others:
        message.remaining = others
        row.update(remaining=others)
        return True
    # Somebody may have had a copy before the others were refused temporarily.
    state = State.SENT if message.sent_at else State.SUPPRESSED
    row.update(
        state=state, token="", due_at=None, begun_at=None, finished_at=now, reason=_said(reasons),
        remaining=None if message.sent_at else message.remaining,
    )  # fmt: skip
    if message.sensitive and message.sent_at:
        drop_content([message.id])
    return False


def tell(left_out: Mapping[UUID, Reasons], at: datetime) -> None:
    """Write down who was left out, and why."""
    Event.objects.using(database()).bulk_create(
        Event(message_id=key, type=Event.Type.SUPPRESSED, at=at, recipient=recipient, detail=why)
        for key, reasons in left_out.items()
        for recipient, why in reasons.items()
    )


def _said(reasons: Reasons) -> str:
    listed = "; ".join(f"{recipient}: {why}" for recipient, why in reasons.items())
    return f"On the suppression list: {listed}"
