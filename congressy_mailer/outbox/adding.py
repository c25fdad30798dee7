"""Storing a single message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from django.db import transaction
from django.utils import timezone

from ..conf import mailer_settings
from ..models import Attachment, Message, State
from ..models.transactions import database
from .rows import before_expiry
from .suppressing import add_suppressed_events, remove_suppressed_at_call


def add(message: Message, attachments: Sequence[Attachment] = (), suppressed: Mapping[str, str] | None = None) -> None:
    """Store a new message in the caller's transaction, ``scheduled`` or ``queued``.

    Args:
        message: to be stored.
        attachments: that go with it.
        suppressed: those of its envelope that are on the suppression list, and why; where that is everybody, it is
            stored as ``suppressed``.

    Raises:
        django.db.IntegrityError: its ``idempotency_key`` exists already.
    """
    now = timezone.now()
    message.created_at = now
    if message.send_at is not None and message.send_at > now:
        message.state = State.SCHEDULED
        message.due_at = message.send_at
    else:
        message.state = State.QUEUED
        message.queued_at = now
        message.due_at = before_expiry(message, now + mailer_settings().LOST_AFTER)
    if suppressed:
        remove_suppressed_at_call(message, suppressed, now)
    if not (attachments or message.idempotency_key or suppressed):
        message.save(force_insert=True, using=database())
        return
    # A savepoint: the caller's transaction must outlive an idempotency_key that exists already.
    with transaction.atomic(using=database()):
        message.save(force_insert=True, using=database())
        Attachment.objects.using(database()).bulk_create(attachments)
        add_suppressed_events({message.id: suppressed or {}}, now)
