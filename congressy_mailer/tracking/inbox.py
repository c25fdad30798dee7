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

from django.db import Error, IntegrityError, connections, transaction
from django.db.models import F, QuerySet

from ..broker import sending
from ..conf import mailer_settings
from ..models import WebhookBatch, clock
from ..models.transactions import commits_manually, database, lock_free, retry_on_conflict
from ..replies import printable_text

#: What a task is published with: the batch, and the ``due_at`` that it has.
Ticket = tuple[UUID, datetime]

#: A worker that says nothing for so long has died. Processing a batch twice does no harm.
LEASE = timedelta(minutes=2)
# After each further try that came to nothing, although the database answers, so much longer.
_PAUSE = timedelta(seconds=30)

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
    # With the hash, no event is lost if two different bodies come under one id by mistake.
    key = f"{printable_text(batch_id)[:_LONGEST_ID]} {sha256(body).hexdigest()[:32]}".strip()
    if WebhookBatch.objects.using(database()).filter(key=key).exists():
        return None
    now = clock.now()
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
    # As for mail: without this they are found all the same, only later.
    with suppress(Exception):
        for key, due_at in tickets:
            _batches(key).filter(due_at=due_at).update(due_at=clock.now())


@retry_on_conflict
def due_batches() -> list[Ticket]:
    """Batches that no worker seems to be processing. Several sweeps at once share them."""
    now = clock.now()
    next_due_at = now + mailer_settings().LOST_AFTER
    due = WebhookBatch.objects.using(database()).filter(due_at__lte=now).order_by("due_at")
    keys = list(lock_free(due).values_list("id", flat=True)[:_LIMIT])
    WebhookBatch.objects.using(database()).filter(id__in=keys).update(due_at=next_due_at)
    return [(key, next_due_at) for key in keys]


@retry_on_conflict
def claim(ticket: Ticket) -> WebhookBatch | None:
    """Take a batch to process it; ``None`` where another has, or it has been processed."""
    key, due_at = ticket
    until = clock.now() + LEASE
    if not _batches(key).filter(due_at=due_at).update(due_at=until, attempts=F("attempts") + 1):
        return None
    return _batches(key).get()


def save_progress(batch: WebhookBatch, processed: int, problem: str) -> bool:
    """Go on holding a batch. Should this worker die, the next one begins behind the events that are processed.

    Args:
        batch: held by this worker.
        processed: events from its beginning.
        problem: why some of these could not be recorded; empty: all could.

    Returns:
        ``False`` where another worker has it by now.
    """
    until = clock.now() + LEASE
    # A batch that makes progress is none that kills its workers.
    if not _claimed(batch).update(due_at=until, attempts=0, processed=processed, problem=problem):
        return False
    batch.due_at, batch.attempts, batch.processed, batch.problem = until, 0, processed, problem
    return True


def release_claim(batch: WebhookBatch) -> None:
    """The database is away, or the worker stops: the next sweep sees to the batch, and this try does not count."""
    # Without this its lease ends, only later.
    with suppress(Error):
        _claimed(batch).update(due_at=clock.now(), attempts=0)


def postpone(batch: WebhookBatch) -> None:
    """It could not be processed now although the database answers. This try counts, and the next one waits longer."""
    with suppress(Error):
        _claimed(batch).update(due_at=clock.now() + _PAUSE * batch.attempts)


def finish(batch: WebhookBatch, problem: str = "") -> None:
    """Drop the body of a processed batch, unless it has a problem that a person should look into."""
    changes: dict[str, object] = {"due_at": None, "attempts": 0, "processed": batch.events, "problem": problem}
    _claimed(batch).update(**changes if problem else {**changes, "body": None})


def set_aside() -> QuerySet[WebhookBatch]:
    """Batches some of whose events could not be recorded. They are purged as all others are."""
    return WebhookBatch.objects.using(database()).filter(due_at=None).exclude(problem="")


def process_again(batches: QuerySet[WebhookBatch]) -> int:
    """Have batches that were set aside processed once more, from their first event, by the next sweep.

    Returns:
        How many there were.
    """
    due = batches.using(database()).filter(due_at=None, body__isnull=False)
    return due.update(due_at=clock.now(), attempts=0, processed=0, problem="")


def has_unprocessed() -> bool:
    """Whether a batch of events has come that is not processed."""
    return WebhookBatch.objects.using(database()).filter(due_at__isnull=False).exists()


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


def is_stored(key: UUID) -> bool:
    """Whether this batch of events is in this database, processed or not."""
    return WebhookBatch.objects.using(database()).filter(pk=key).exists()


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
