"""Telling the host of messages that are stored."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from django.db import connections, transaction

from ..models import Message, State
from ..models.transactions import commits_manually, database
from ..signals import queued


def announce_queued(messages: Sequence[Message]) -> None:
    """Send the signal for messages that are to be sent, once the transaction that stores them commits."""
    if not queued.has_listeners(Message) or commits_manually(connections[database()]):
        return
    for message in messages:
        if message.state in (State.QUEUED, State.SCHEDULED):
            transaction.on_commit(partial(_send, message), using=database(), robust=True)


def _send(message: Message) -> None:
    queued.send_robust(Message, message=message)
