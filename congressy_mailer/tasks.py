"""The Celery tasks, thin: what they do is in :mod:`.delivery` and :mod:`.outbox`."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from celery import Task, shared_task
from django.db import DatabaseError, Error, InterfaceError, InternalError, OperationalError
from django.utils import timezone

from . import outbox, periodic, suppressions
from .broker import sending
from .conf import mailer_settings
from .delivery.slice import Delivery, SliceResult
from .exceptions import SparkPostError, TransportUnavailable
from .outbox import publishing
from .outbox.backoff import FLOOR
from .redaction import error_summary
from .suppressions.sync import sync
from .tracking import inbox
from .tracking.processing import DATABASE_ERRORS, process

logger = logging.getLogger("congressy_mailer.suppressions")

_PURGE_INTERVAL = timedelta(hours=1)
_PURGE_TIME = 10.0


class DeliveryTask(Task):  # type: ignore[type-arg]
    """Celery's retrying, at the time that all workers have agreed on, and after five seconds at the least."""

    def retry(self, *args: Any, **options: Any) -> Any:
        error = options.get("exc")
        if isinstance(error, TransportUnavailable) and error.retry_in is not None:
            # All workers together try a server that is down once, not each of them.
            options["countdown"] = error.retry_in.total_seconds()
        elif options.get("countdown") is not None:
            options["countdown"] = max(options["countdown"], FLOOR.total_seconds())
        # Whatever the host's own tasks use: ids need no pickle.
        return super().retry(*args, serializer="json", **options)


# Of both tasks that deliver.
_DELIVERY_OPTIONS: dict[str, Any] = {
    "bind": True,
    "base": DeliveryTask,
    "acks_late": True,
    "reject_on_worker_lost": True,
    "ignore_result": True,
    "autoretry_for": (TransportUnavailable, OperationalError, InterfaceError, InternalError),
    "max_retries": None,
    "retry_backoff": 5,
    "retry_backoff_max": 600,
    "retry_jitter": True,
}


@shared_task(name=sending.DELIVER, **_DELIVERY_OPTIONS)
def deliver(self: DeliveryTask, ids: Sequence[str]) -> None:
    """Deliver these messages, as far as they are still to be delivered and one time slice reaches."""
    request = self.request
    token = outbox.new_claim_token(str(request.id))
    redelivered = bool((request.delivery_info or {}).get("redelivered"))
    try:
        with _failures_counted(mailer_settings().QUEUE):
            result = Delivery(token).run([UUID(key) for key in ids], redelivered=redelivered)
    except (TransportUnavailable, DatabaseError, InterfaceError):
        if request.is_eager:
            # Retrying an eager task runs it again at once, without end, in the caller's own process.
            return
        raise
    _publish_unfinished(result)
    if not request.is_eager:
        _sweep_if_overdue()


@shared_task(name=sending.DELIVER_BATCH, **_DELIVERY_OPTIONS)
def deliver_batch(self: DeliveryTask, key: str, generation: int, starts_others: bool) -> None:
    """Deliver what comes next of a batch, as far as one time slice reaches, and ask for the next such task.

    Args:
        key: of the batch.
        generation: of the tasks for it; where a newer one has begun since, this task is not needed any more.
        starts_others: publish as many further tasks of this generation as the batch needs.
    """
    request = self.request
    batch = UUID(key)
    if not outbox.heartbeat(batch, generation):
        return
    is_repeated = request.retries or (request.delivery_info or {}).get("redelivered")
    if starts_others and not is_repeated and not request.is_eager:
        for _ in range(outbox.concurrency(batch, generation) - 1):
            publishing.publish_batch(batch, generation)
    continue_now = True
    while continue_now:
        token = outbox.new_claim_token(str(request.id))
        try:
            with _failures_counted(str(batch)):
                result = Delivery(token).run_batch(batch, generation)
        except (TransportUnavailable, DatabaseError, InterfaceError):
            if request.is_eager:
                return
            raise
        _publish_unfinished(result)
        # Without a broker the next task would begin within this one.
        continue_now = request.is_eager and result.continue_at is not None and result.continue_at <= timezone.now()
    if request.is_eager:
        return
    if result.continue_at is not None:
        wait = (result.continue_at - timezone.now()).total_seconds()
        publishing.publish_batch(batch, generation, countdown=wait if wait > 0 else None)
    _sweep_if_overdue()


@contextmanager
def _failures_counted(task: str) -> Iterator[None]:
    """Have ``health`` see a task that ends in an error each time, and whose mail does not move for it.

    A mail backend that cannot be used is known otherwise, and a database that is away answers nobody.
    """
    try:
        yield
    except TransportUnavailable:
        raise
    except BaseException as error:
        with suppress(Error):
            outbox.record_task_failure(task, error_summary(error))
        raise


def _publish_unfinished(result: SliceResult) -> None:
    publishing.publish(result.unfinished)
    for key in result.solo:
        publishing.publish([key])
    for seconds, waiting in result.retries.items():
        publishing.publish(waiting, countdown=seconds)


def _sweep_if_overdue() -> None:
    """The sweep itself is held up by a long queue; what has become due need not wait for it."""
    if periodic.claim_run(periodic.SWEEP, mailer_settings().SWEEP_INTERVAL * 2):
        _publish_due(None)


@shared_task(name=sending.SWEEP, ignore_result=True, throws=(OperationalError, InterfaceError))
def sweep(published_at: float) -> None:
    """Publish whatever is due and not moving, and now and then a purge.

    Args:
        published_at: when this task was published, in seconds since the epoch.
    """
    _publish_due(datetime.fromtimestamp(published_at, UTC))
    periodic.mark_run(periodic.SWEEP)
    if periodic.claim_run(periodic.PURGE, _PURGE_INTERVAL):
        sending.publish_purge()
    conf = mailer_settings()
    every = conf.SUPPRESSION_SYNC
    if every is not None and conf.SPARKPOST_API_KEY is not None and periodic.claim_run(periodic.SYNC, every):
        sending.publish_sync()


def _publish_due(drained_until: datetime | None) -> None:
    for key, generation in outbox.claim_due_batches():
        publishing.publish_batch(key, generation, starts_others=True)
    while ready := outbox.sweep(drained_until):
        if not publishing.publish(ready):
            return
    while due := inbox.due_batches():
        if not inbox.publish_webhooks(due):
            return


@shared_task(name=sending.PROCESS_WEBHOOKS, acks_late=True, ignore_result=True, throws=DATABASE_ERRORS)
def process_webhooks(key: str, due_at: str) -> None:
    """Process a batch of SparkPost's events. What the database does not take now comes with a later sweep.

    Args:
        key: of the batch.
        due_at: which it has, unless another task is to process it or has done so.
    """
    process((UUID(key), datetime.fromisoformat(due_at)))


@shared_task(name=sending.PURGE, ignore_result=True, throws=(OperationalError, InterfaceError))
def purge() -> None:
    """Drop what is older than ``KEEP_CONTENT`` and ``KEEP_MESSAGES``, for at most ten seconds at a time."""
    until = time.monotonic() + _PURGE_TIME
    while outbox.purge() or suppressions.purge():
        if time.monotonic() > until:
            sending.publish_purge()
            return
    day = periodic.last_run(periodic.ORPHANS)
    checked_until = outbox.remove_orphans(day.date() if day else None)
    periodic.mark_run(periodic.ORPHANS, datetime.combine(checked_until, datetime.min.time(), UTC))


@shared_task(name=sending.SYNC_SUPPRESSIONS, ignore_result=True, throws=(OperationalError, InterfaceError))
def sync_suppressions() -> None:
    """Bring the suppression list together with SparkPost's, for at most 20 seconds at a time.

    Where SparkPost says no or cannot be asked, it goes on after ``SUPPRESSION_SYNC``.
    """
    try:
        result = sync()
    except SparkPostError as error:
        logger.warning("The suppression list is brought together with SparkPost's later: %s", error)
        return
    if not result.complete:
        sending.publish_sync()
