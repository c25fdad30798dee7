"""Leaving out recipients that are on the suppression list, and ending messages that have none left.

The headers stay as the caller wrote them; only the envelope leaves them out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from uuid import UUID

from django.utils import timezone

from ..models import Event, Message, State
from ..models.transactions import database, retry_on_conflict
from .retention import drop_content
from .rows import rows

#: Recipients that are left out, as the envelope has them, and why each.
Reasons = Mapping[str, str]


def remove_suppressed_at_call(message: Message, reasons: Reasons, now: datetime) -> None:
    """Leave only the other recipients of a new message; without any it is ``suppressed``."""
    remaining = [recipient for recipient in message.envelope if recipient not in reasons]
    if remaining:
        message.remaining = remaining
    else:
        message.state, message.due_at, message.queued_at = State.SUPPRESSED, None, None
        message.finished_at, message.reason = now, _format_reasons(reasons)


@retry_on_conflict
def remove_suppressed(token: str, suppressed: Iterable[tuple[Message, Reasons]]) -> set[UUID]:
    """Leave recipients out of claimed messages, as far as the claim still holds them. A recipient who has a copy stays.

    Args:
        token: of the claim.
        suppressed: messages, each with those of its envelope that are left out.

    Returns:
        Those of these messages that the claim holds and that have a recipient left.
    """
    by_id = {message.id: (message, reasons) for message, reasons in suppressed}
    now = timezone.now()
    claimed_rows = rows(by_id).filter(state=State.SENDING, token=token)
    claimed = sorted(claimed_rows.order_by("id").select_for_update().values_list("id", flat=True))
    unfinished = {key for key in claimed if _remove_suppressed(*by_id[key], now)}
    add_suppressed_events({key: by_id[key][1] for key in claimed}, now)
    return unfinished


def _remove_suppressed(message: Message, reasons: Reasons, now: datetime) -> bool:
    """Whether a recipient is left."""
    row = rows([message.id])
    remaining = [recipient for recipient in message.envelope if recipient not in reasons]
    if remaining:
        message.remaining = remaining
        row.update(remaining=remaining)
        return True
    # One recipient may have received a copy before the others were refused temporarily.
    state = State.SENT if message.sent_at else State.SUPPRESSED
    row.update(
        state=state, token="", due_at=None, handover_started_at=None, finished_at=now, reason=_format_reasons(reasons),
        remaining=None if message.sent_at else message.remaining,
    )  # fmt: skip
    message.state = state
    if message.sensitive and message.sent_at:
        drop_content([message.id])
    return False


def add_suppressed_events(suppressed: Mapping[UUID, Reasons], at: datetime) -> None:
    """Write down who was left out, and why."""
    Event.objects.using(database()).bulk_create(
        Event(message_id=key, type=Event.Type.SUPPRESSED, at=at, recipient=recipient, detail=why)
        for key, reasons in suppressed.items()
        for recipient, why in reasons.items()
    )


def _format_reasons(reasons: Reasons) -> str:
    reasons_by_recipient = "; ".join(f"{recipient}: {why}" for recipient, why in reasons.items())
    return f"On the suppression list: {reasons_by_recipient}"
