"""The Celery tasks, thin: what they do is in :mod:`.delivery` and :mod:`.outbox`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from celery import Task, shared_task
from django.db import InterfaceError, OperationalError

from . import dispatch, outbox
from .delivery import Delivery
from .exceptions import TransportUnavailable
from .retry import FLOOR

logger = logging.getLogger("congressy_mailer.tasks")


class DeliveryTask(Task):  # type: ignore[type-arg]
    """Celery's retrying, with the five seconds that SparkPost asks for as the least wait."""

    def retry(self, *args: Any, **options: Any) -> Any:
        if options.get("countdown") is not None:
            options["countdown"] = max(options["countdown"], FLOOR.total_seconds())
        return super().retry(*args, **options)


@shared_task(
    bind=True,
    base=DeliveryTask,
    name=dispatch.DELIVER,
    acks_late=True,
    reject_on_worker_lost=True,
    ignore_result=True,
    autoretry_for=(TransportUnavailable, OperationalError, InterfaceError),
    max_retries=None,
    retry_backoff=5,
    retry_backoff_max=600,
    retry_jitter=True,
)
def deliver(self: DeliveryTask, ids: Sequence[str]) -> None:
    """Deliver these messages, as far as they are still to be delivered and one time slice reaches."""
    request = self.request
    token = outbox.new_token(str(request.id))
    redelivered = bool((request.delivery_info or {}).get("redelivered"))
    try:
        result = Delivery(token).run([UUID(key) for key in ids], redelivered=redelivered)
    except TransportUnavailable as error:
        logger.error("%s Its mail stays queued.", error)
        if request.is_eager:
            # Retrying an eager task runs it again at once, without end, in the caller's own process.
            return
        raise
    if result.left:
        dispatch.publish(result.left)
    for seconds, waiting in result.waiting.items():
        dispatch.publish(waiting, countdown=seconds)


@shared_task(name=dispatch.SWEEP, ignore_result=True)
def sweep() -> None:
    """Publish whatever is due and not moving."""
    while ready := outbox.sweep():
        if not dispatch.publish(ready):
            return
