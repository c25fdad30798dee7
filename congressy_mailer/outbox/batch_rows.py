"""Rows of a batch, and of its messages: ranges that one index has each."""

from __future__ import annotations

from uuid import UUID

from django.db.models import OuterRef, QuerySet

from ..models import Batch, Message
from ..models.transactions import database


def open_messages(key: UUID | OuterRef) -> QuerySet[Message]:
    """Messages that wait or are sent with their batch: see :attr:`.Message.open_batch`."""
    return Message.objects.using(database()).filter(open_batch=key)


def messages_of(key: UUID) -> QuerySet[Message]:
    """All messages of a batch, in any state."""
    return Message.objects.using(database()).filter(batch_id=key)


def batch_row(key: UUID) -> QuerySet[Batch]:
    """This batch, in any state."""
    return Batch.objects.using(database()).filter(id=key)
