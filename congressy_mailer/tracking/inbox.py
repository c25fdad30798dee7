"""Batches of events between the answer to SparkPost and their processing: stored, given out under a lease, finished.

A batch is published with its ``due_at``, and only a task that names the one which the batch still has may take it. So
of several tasks for the same batch one processes it, and one that is believed lost does nothing should it come after
all.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from uuid import UUID

from django.db import DatabaseError, IntegrityError, connections, transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from ..broker import sending
from ..conf import mailer_settings
from ..models import WebhookBatch
from ..models.transactions import commits_manually, database, retry_on_conflict
from ..replies import printable_text

#: What a task is published with: the batch, and the ``due_at`` that it has.
Ticket = tuple[UUID, datetime]

#: A worker that says nothing for so long has died. Processing a batch twice does no harm.
LEASE = timedelta(minutes=2)

# One sweep takes no more.
_LIMIT = 500
_LONGEST_ID = 64


def store(batch_id: str, body: bytes, events: int) -> Ticket | None:
    """Store a batch as it came, in the caller's transaction.

    Args:
        batch_id: SparkPost's; may be empty.
        body: JSON.
        events: how many it has.

    Returns:
        What to publish; ``None`` where the same batch was stored before.
    """
    # With the hash: two bodies under one id would be a mistake of somebody's, and events must not be lost by it.
    key = f"{printable_text(batch_id)[:_LONGEST_ID]} {sha256(body).hexdigest()[:32]}".strip()
    if WebhookBatch.objects.using(database()).filter(key=key).exists():
        return None
    now = timezone.now()
    # The fastest level: SparkPost waits.
    batch = WebhookBatch(key=key, received_at=now, body=zlib.compress(body, 1), events=events)
    batch.due_at = now + mailer_settings().LOST_AFTER
    try:
        with transaction.atomic(using=database()):
            batch.save(force_insert=True, using=database())
    except IntegrityError:
        # The same batch has come twice at the same moment.
        return None
    return batch.id, batch.due_at


def make_due_now(tickets: Sequence[Ticket]) -> None:
    """The broker did not take these: let the next sweep see to them."""
    # Without this they are found all the same, only later.
    with suppress(DatabaseError):
        for key, due_at in tickets:
            _batches(key).filter(due_at=due_at).update(due_at=timezone.now())


@retry_on_conflict
def due_batches() -> list[Ticket]:
    """Batches that nobody seems to be processing. Several sweeps at once share them."""
    now = timezone.now()
    next_due_at = now + mailer_settings().LOST_AFTER
    rows = WebhookBatch.objects.using(database()).filter(due_at__lte=now).order_by("due_at")
    due = []
    for key, due_at in rows.values_list("id", "due_at")[:_LIMIT]:
        if _batches(key).filter(due_at=due_at).update(due_at=next_due_at):
            due.append((key, next_due_at))
    return due


@retry_on_conflict
def claim(ticket: Ticket) -> WebhookBatch | None:
    """Take a batch to process it; ``None`` where another has, or it has been processed."""
    key, due_at = ticket
    until = timezone.now() + LEASE
    if not _batches(key).filter(due_at=due_at).update(due_at=until, attempts=F("attempts") + 1):
        return None
    return _batches(key).get()


def extend_lease(batch: WebhookBatch) -> bool:
    """Go on holding a batch; ``False`` where another has it by now."""
    until = timezone.now() + LEASE
    if not _claimed(batch).update(due_at=until):
        return False
    batch.due_at = until
    return True


def release_claim(batch: WebhookBatch) -> None:
    """It could not be processed now, for a reason that is not its own: the sweep sees to it."""
    # Without this its lease ends, only later.
    with suppress(DatabaseError):
        _claimed(batch).update(due_at=timezone.now(), attempts=0)


def finish(batch: WebhookBatch, problem: str = "") -> None:
    """It has been processed: forget what it said, unless there is a problem that somebody will want to look into."""
    changes: dict[str, object] = {"due_at": None, "attempts": 0, "problem": problem}
    _claimed(batch).update(**changes if problem else {**changes, "body": None})


def body_of(batch: WebhookBatch) -> bytes:
    """JSON, as it came."""
    return zlib.decompress(batch.body or b"")


def _batches(key: UUID) -> QuerySet[WebhookBatch]:
    return WebhookBatch.objects.using(database()).filter(id=key)


def _claimed(batch: WebhookBatch) -> QuerySet[WebhookBatch]:
    return _batches(batch.pk).filter(due_at=batch.due_at)


def publish_webhook_on_commit(ticket: Ticket) -> None:
    """Have a batch of SparkPost's events processed once the transaction that stored it has committed."""
    connection = connections[database()]
    if commits_manually(connection):
        make_due_now([ticket])
        return
    transaction.on_commit(partial(publish_webhooks, [ticket]), using=connection.alias, robust=True)


def publish_webhooks(tickets: Sequence[Ticket]) -> bool:
    """Have these batches of SparkPost's events processed, each by a task of its own. Never raises.

    Returns:
        Whether the broker took them. If not, the next sweep publishes what it did not.
    """
    queue = mailer_settings().BULK_QUEUE
    for position, (key, due_at) in enumerate(tickets):
        if not sending.send(sending.PROCESS_WEBHOOKS, str(key), due_at.isoformat(), queue=queue):
            make_due_now(tickets[position:])
            return False
    return True
