"""Storing one message, or several at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from .. import metrics
from ..models import Attachment, Message, State
from ..models.transactions import database
from .expiry import before_expiry
from .files import store_attachments
from .insertion import insert_messages, insert_search_keys
from .rows import publishing_overdue_at
from .search import first_address, has_search_keys
from .suppressing import add_suppressed_events, remove_suppressed_at_call

# Far below max_allowed_packet of MariaDB and MySQL, also where each byte is written as two.
_CHUNK_BYTES = 2_000_000
_CHUNK_ROWS = 200


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
    _set_state(message, suppressed, now)
    if not (attachments or message.idempotency_key or suppressed or has_search_keys(message)):
        insert_messages([message])
        return
    # A savepoint: the caller's transaction must outlive an idempotency_key that exists already.
    with transaction.atomic(using=database()):
        insert_messages([message])
        insert_search_keys([message])
        store_attachments(attachments)
        add_suppressed_events({message.id: suppressed or {}}, now)
        metrics.count_at_call([message])


def add_many(
    messages: Sequence[Message],
    attachments: Sequence[Attachment] = (),
    suppressed: Mapping[UUID, Mapping[str, str]] = MappingProxyType({}),
) -> None:
    """The same for several messages, none of which has an ``idempotency_key``: all are stored, or none.

    Args:
        messages: to be stored.
        attachments: that go with them.
        suppressed: as for one, by message.
    """
    now = timezone.now()
    for message in messages:
        _set_state(message, suppressed.get(message.id), now)
    with transaction.atomic(using=database()):
        for chunk in _chunks(messages):
            insert_messages(chunk)
            insert_search_keys(chunk)
        store_attachments(attachments)
        add_suppressed_events(suppressed, now)
        metrics.count_at_call(messages)


def _set_state(message: Message, suppressed: Mapping[str, str] | None, now: datetime) -> None:
    message.created_at = now
    message.address = first_address(message.recipients)
    if message.send_at is not None and message.send_at > now:
        message.state = State.SCHEDULED
        message.due_at = message.send_at
    else:
        message.state = State.QUEUED
        message.queued_at = now
        message.due_at = before_expiry(message, publishing_overdue_at(now))
    if suppressed:
        remove_suppressed_at_call(message, suppressed, now)


def _chunks(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """No statement is larger than any database takes."""
    chunk: list[Message] = []
    size = 0
    for message in messages:
        chunk.append(message)
        size += len(message.mime or b"")
        if size > _CHUNK_BYTES or len(chunk) == _CHUNK_ROWS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
