"""The Celery tasks: their names and options.

What they do is in :mod:`.delivery.runs`, :mod:`.delivery.sweep` and :mod:`.delivery.upkeep`, loaded by the first that
runs.

Every process of the host imports this module, and most of them, such as web servers and shells, never run a task.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery import Task, shared_task

from .broker import sending
from .exceptions import DATABASE_AWAY, TransportUnavailable


class WaitingTask(Task):  # type: ignore[type-arg]
    """A task that may have to wait before it begins: see :mod:`congressy_mailer.broker.countdown`."""

    Strategy = "congressy_mailer.broker.countdown:strategy"


class DeliveryTask(WaitingTask):
    """Celery's retrying, at the time that all workers have agreed on, and after five seconds at the least."""

    def retry(self, *args: Any, **options: Any) -> Any:
        from .outbox.backoff import FLOOR

        error = options.get("exc")
        if isinstance(error, TransportUnavailable) and error.retry_in is not None:
            # All workers together try a server that is down once, not each of them.
            options["countdown"] = error.retry_in.total_seconds()
        elif options.get("countdown") is not None:
            options["countdown"] = max(options["countdown"], FLOOR.total_seconds())
        if options.get("countdown"):
            options["headers"] = {**(self.request.headers or {}), sending.COUNTDOWN_HEADER: options["countdown"]}
        # JSON, also where the host's own tasks use another serializer: ids need no pickle.
        return super().retry(*args, serializer="json", **options)


# Of both tasks that deliver.
_DELIVERY_OPTIONS: dict[str, Any] = {
    "bind": True,
    "base": DeliveryTask,
    "acks_late": True,
    "reject_on_worker_lost": True,
    "ignore_result": True,
    "autoretry_for": (TransportUnavailable, *DATABASE_AWAY),
    "max_retries": None,
    "retry_backoff": 5,
    "retry_backoff_max": 600,
    "retry_jitter": True,
}


@shared_task(name=sending.DELIVER, **_DELIVERY_OPTIONS)
def deliver(self: DeliveryTask, ids: Sequence[str]) -> None:
    """Deliver these messages, if they are still to be delivered, for at most one time slice."""
    from .delivery import runs

    runs.deliver(self.request, ids)


@shared_task(name=sending.DELIVER_BATCH, **_DELIVERY_OPTIONS)
def deliver_batch(self: DeliveryTask, key: str, generation: int, starts_others: bool) -> None:
    """Deliver the next messages of a batch for one time slice, and publish the next such task.

    Args:
        key: of the batch.
        generation: of the batch's tasks; if a newer one has begun, this task ends.
        starts_others: whether to publish as many further tasks of this generation as the batch needs.
    """
    from .delivery import runs

    runs.deliver_batch(self.request, key, generation, starts_others)


@shared_task(name=sending.SWEEP, ignore_result=True, throws=DATABASE_AWAY)
def sweep(published_at: float, behind: float | None = None) -> None:
    """Publish all mail that is due and not moving, and the other periodic tasks.

    Args:
        published_at: when this task was published, in seconds since the epoch.
        behind: seconds by which the publisher's clock is behind the database's; ``None``: as this host's clock.
    """
    from .delivery import sweep

    sweep.sweep(published_at, behind)


@shared_task(name=sending.REPORT, ignore_result=True, throws=DATABASE_AWAY)
def report() -> None:
    """Record that the worker which published this task is alive. Workers that publish sweeps do not need it."""
    from .delivery import sweep

    sweep.report()


@shared_task(
    name=sending.PROCESS_WEBHOOKS,
    base=WaitingTask,
    acks_late=True,
    ignore_result=True,
    throws=DATABASE_AWAY,
)
def process_webhooks(key: str, due_at: str) -> None:
    """Process a batch of SparkPost's events. If the database is unreachable, a later sweep publishes it again.

    Args:
        key: of the batch.
        due_at: the batch's due time; if it has changed, another task processes the batch.
    """
    from .delivery import runs

    runs.process_webhooks(key, due_at)


@shared_task(name=sending.PURGE, ignore_result=True, throws=DATABASE_AWAY)
def purge() -> None:
    """Drop content and messages older than ``KEEP_CONTENT`` and ``KEEP_MESSAGES``, and delete unused files.

    One such task works at a time. After ten seconds it publishes the next one for the rest.
    """
    from .delivery import upkeep

    upkeep.purge()


@shared_task(name=sending.SYNC_SUPPRESSIONS, ignore_result=True, throws=DATABASE_AWAY)
def sync_suppressions() -> None:
    """Synchronise the suppression list with SparkPost's, for at most 20 seconds at a time.

    If SparkPost refuses or is unreachable, it continues after ``SUPPRESSION_SYNC`` or SparkPost's ``Retry-After``.
    """
    from .delivery import upkeep

    upkeep.sync_suppressions()
