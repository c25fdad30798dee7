"""The recipients of a message one by one, and what has become of it for each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils.translation import gettext_lazy as _

from ..models import Event, Message, RecipientStatus, State
from .reasons import shown_reason, shown_suppression

#: Recipients that are shown.
MOST_SHOWN = 100

_KINDS: tuple[tuple[str, Any], ...] = (("to", _("To")), ("cc", _("Cc")), ("bcc", _("Bcc")))
_BY_EVENT: dict[str, Any] = {
    Event.Type.ACCEPTED: _("accepted by the mail server"),
    Event.Type.REJECTED: _("refused by the mail server"),
    Event.Type.SUPPRESSED: _("left out: on the suppression list"),
    Event.Type.DEFERRED: _("put off by the mail server"),
}


@dataclass(frozen=True, slots=True)
class Fate:
    """What has become of a message for one of its recipients."""

    #: As the mail has it.
    recipient: str
    #: In the form in which addresses are compared.
    address: str
    #: To, Cc or Bcc.
    kind: str
    #: In a few words.
    label: str
    #: A value of a state or of a delivery status, for the colour.
    value: str
    #: Since when.
    at: datetime | None
    #: The server's words.
    detail: str
    opened_at: datetime | None
    clicked_at: datetime | None
    #: It is on the suppression list now, for this kind of mail.
    suppressed: bool


def fates(message: Message) -> list[Fate]:
    """Of the first recipients, in the order To, Cc, Bcc."""
    from ..mime.addresses import comparable_address
    from ..suppressions.lookup import suppressed_among

    shown = [
        (recipient, comparable_address(recipient), str(label))
        for name, label in _KINDS
        for recipient in getattr(message, name)
    ][:MOST_SHOWN]
    addresses = [address for _, address, _ in shown]
    statuses = {status.recipient: status for status in message.statuses.filter(recipient__in=addresses)}
    told = message.events.filter(type__in=_BY_EVENT).exclude(recipient="").order_by("at", "id")
    events = {comparable_address(event.recipient): event for event in told}
    suppressed = suppressed_among(addresses, transactional=message.transactional, list_id=message.list_id)
    return [
        _fate(message, recipient, address, kind, statuses.get(address), events.get(address), address in suppressed)
        for recipient, address, kind in shown
    ]


def _fate(
    message: Message,
    recipient: str,
    address: str,
    kind: str,
    status: RecipientStatus | None,
    event: Event | None,
    suppressed: bool,
) -> Fate:
    opened_at, clicked_at = (status.opened_at, status.clicked_at) if status else (None, None)
    if status is not None and status.delivery:
        from ..models import DeliveryStatus

        value = DeliveryStatus(status.delivery)
        at = status.complained_at or status.unsubscribed_at or status.arrival_at or opened_at
        return Fate(
            recipient,
            address,
            kind,
            str(value.label),
            value.value,
            at,
            status.detail,
            opened_at,
            clicked_at,
            suppressed,
        )
    if event is not None and not (event.type == Event.Type.DEFERRED and message.state == State.SENT):
        shown = shown_suppression if event.type == Event.Type.SUPPRESSED else shown_reason
        value_of_event = "sent" if event.type == Event.Type.ACCEPTED else event.type
        return Fate(
            recipient, address, kind, str(_BY_EVENT[event.type]), value_of_event, event.at, shown(event.detail), None,
            None,
            suppressed,
        )  # fmt: skip
    at = message.sent_at or message.finished_at
    label = _("accepted by the mail server") if message.state == State.SENT else message.get_state_display()
    return Fate(recipient, address, kind, str(label), message.state, at, "", opened_at, clicked_at, suppressed)
