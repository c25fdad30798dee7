"""Mail that a test queues, has delivered by one task in its own process, and looks at."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

from congressy_mailer import outbox, send_mail
from congressy_mailer.delivery.slice import Delivery
from congressy_mailer.models import Message


def queue(count: int = 1, **options: Any) -> list[UUID]:
    """Queue so many mails that are alike, to Ana where the options name nobody; returns their ids."""
    return [send_mail("x", "y", **{"to": "ana@example.com", **options}).pk for _ in range(count)]


def deliver(*messages: Message) -> None:
    """Have one task deliver these messages."""
    Delivery(outbox.new_claim_token(str(uuid4()))).run([message.pk for message in messages], redelivered=False)


def state(message: Message) -> str:
    """The state that a message has now."""
    message.refresh_from_db()
    return message.state
