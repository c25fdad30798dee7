"""Storing a single message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from django.db import transaction
from django.utils import timezone

from ..conf import mailer_settings
from ..models import Attachment, Message, State
from ..models.transactions import database
from .rows import no_later_than
from .suppressing import leave_out_at_call, tell


def add(message: Message, attachments: Sequence[Attachment] = (), left_out: Mapping[str, str] | None = None) -> None:
    """Store a new message in the caller's transaction, ``scheduled`` or ``queued``.

    Args:
        message: to be stored.
        attachments: that go with it.
        left_out: those of its envelope that are on the suppression list, and why; where that is everybody, it is
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
        message.due_at = no_later_than(message, now + mailer_settings().LOST_AFTER)
    if left_out:
        leave_out_at_call(message, left_out, now)
    if not (attachments or message.idempotency_key or left_out):
        message.save(force_insert=True, using=database())
        return
    # A savepoint: the caller's transaction must outlive an idempotency_key that exists already.
    with transaction.atomic(using=database()):
        message.save(force_insert=True, using=database())
        Attachment.objects.using(database()).bulk_create(attachments)
        tell({message.id: left_out or {}}, now)
