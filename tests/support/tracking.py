"""Events of SparkPost that are recorded, and what they lead to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from congressy_mailer.models import Message, RecipientStatus
from congressy_mailer.sparkpost.events import parse_events
from congressy_mailer.tracking.recording import track
from tests.support.sparkpost_events import START

NOW = datetime.fromtimestamp(START, UTC) + timedelta(days=90)
ANA = "ana@example.com"


def tell(*events: dict[str, Any]) -> int:
    """Record events as the webhook's task does; returns how many were new."""
    return track(parse_events(events, NOW))


def delivery(message: Message) -> str:
    """What a message has come to."""
    message.refresh_from_db()
    return message.delivery


def status(message: Message, recipient: str = ANA) -> RecipientStatus:
    """What one recipient's mail has come to."""
    return message.statuses.get(recipient=recipient)
