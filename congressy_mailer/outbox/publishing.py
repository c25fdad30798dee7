"""Publishing messages and batches once the caller's transaction has committed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

from django.db import connections, transaction

from ..broker import sending
from ..conf import mailer_settings
from ..models.transactions import commits_manually, database
from .batches import mark_batch_published, mark_batch_unpublished
from .queued import mark_unpublished


def publish_on_commit(ids: Sequence[UUID]) -> None:
    """Publish these messages once the transaction that stored them has committed, all of its messages together."""
    connection = connections[database()]
    if commits_manually(connection):
        mark_unpublished(ids)
        return
    hooks: list[Any] = connection.run_on_commit
    last = next((hook for _, hook, _ in reversed(hooks) if isinstance(hook, _PublishHook)), None)
    pending = _Pending() if last is None or last.pending.published else last.pending
    pending.ids.extend(ids)
    # Each call has its hook: a savepoint may be rolled back without the others, and a test may run only the hooks of
    # one part of it. The first to run publishes for all; ids of messages that were rolled back find nothing.
    transaction.on_commit(_PublishHook(pending), using=connection.alias, robust=True)


@dataclass
class _Pending:
    """The messages of one transaction."""

    ids: list[UUID] = field(default_factory=list)
    published: bool = False


class _PublishHook:
    """What runs after the commit."""

    def __init__(self, pending: _Pending) -> None:
        self.pending = pending

    def __call__(self) -> None:
        if not self.pending.published:
            self.pending.published = True
            publish(self.pending.ids)


def publish(ids: Sequence[UUID], *, countdown: float | None = None, size: int | None = None) -> bool:
    """Tell the workers of messages. Never raises, and never takes long.

    Args:
        ids: of messages that are stored.
        countdown: seconds until they are to be looked at; at once where it is ``None``.
        size: how many a task gets; ``SLICE_SIZE`` where it is ``None``.

    Returns:
        Whether the broker took them. If not, the next sweep publishes them.
    """
    size = size or mailer_settings().SLICE_SIZE
    published = True
    for start in range(0, len(ids), size):
        part = ids[start : start + size]
        if not (published and sending.send(sending.DELIVER, [str(key) for key in part], countdown=countdown)):
            published = False
            mark_unpublished(part)
    return published


def publish_batch_on_commit(key: UUID, generation: int) -> None:
    """The same for a batch, whose first task sees to it that there are as many as it needs: :func:`publish_batch`."""
    connection = connections[database()]
    if commits_manually(connection):
        mark_batch_unpublished(key)
        return
    transaction.on_commit(partial(_publish_stored_batch, key, generation), using=connection.alias, robust=True)


def _publish_stored_batch(key: UUID, generation: int) -> None:
    # Before a task of it may have come to the batch's end.
    mark_batch_published(key)
    publish_batch(key, generation, starts_others=True)


def publish_batch(key: UUID, generation: int, *, starts_others: bool = False, countdown: float | None = None) -> bool:
    """Ask for a task that works at a batch. Never raises, and never takes long.

    Args:
        key: of a batch that is stored.
        generation: the batch's generation that it belongs to.
        starts_others: the task publishes as many others as the batch needs.
        countdown: seconds until it begins; at once where it is ``None``.

    Returns:
        Whether the broker took it. If not, the sweep finds the batch.
    """
    queue = mailer_settings().BULK_QUEUE
    published = sending.send(
        sending.DELIVER_BATCH, str(key), generation, starts_others, queue=queue, countdown=countdown
    )
    if not published:
        mark_batch_unpublished(key)
    return published
