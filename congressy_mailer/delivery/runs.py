"""The tasks that the broker is given work with: messages, a batch, or a batch of SparkPost's events."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from typing import Any
from uuid import UUID

from celery import current_task
from django.db import Error

from .. import outbox
from ..broker import sending, turns
from ..conf import mailer_settings
from ..exceptions import TransportUnavailable
from ..models import State, clock
from ..outbox import publishing
from ..redaction import error_summary
from ..tracking import inbox
from ..tracking.processing import process
from . import sending_rate
from .claims import HELD_BACK, PUT_BACK
from .foreign import hand_on
from .noting import noting
from .slice import Delivery, SliceResult
from .sweep import after_delivery
from .task_run import log_run, task_run

logger = logging.getLogger("congressy_mailer.delivery")

#: How a run tells what became of its messages, in this order.
_OUTCOMES = {
    State.SENT: "sent",
    State.DEFERRED: "deferred",
    State.FAILED: "failed",
    State.SUPPRESSED: "suppressed",
    State.HELD: "held",
    PUT_BACK: "put back",
    HELD_BACK: "paused",
}


@task_run
def deliver(request: Any, ids: Sequence[str]) -> None:
    """Run :func:`congressy_mailer.tasks.deliver`.

    Args:
        request: Celery's, of the task.
        ids: of the messages.
    """
    token = outbox.new_claim_token(str(request.id))
    redelivered = bool((request.delivery_info or {}).get("redelivered"))
    queue = mailer_settings().QUEUE
    keys: Sequence[UUID] = [UUID(key) for key in ids]
    if not (redelivered or request.is_eager):
        keys = share_out(keys)
    try:
        with _failures_counted(queue), _delivery(token, f"Queue {queue}", request) as delivery:
            delivery.run(keys, redelivered=redelivered, takes_more=not request.is_eager)
        if not any(delivery.counts.values()) and not outbox.any_stored(keys):
            hand_on(request, sending.DELIVER, [str(key) for key in keys], queue=queue)
    except (TransportUnavailable, Error):
        if request.is_eager:
            # Retrying an eager task runs it again at once, without end, in the caller's own process.
            return
        raise
    if not request.is_eager:
        after_delivery(made_due=delivery.result.made_due)


@task_run
def deliver_batch(request: Any, key: str, generation: int, starts_others: bool) -> None:
    """Run :func:`congressy_mailer.tasks.deliver_batch`.

    Args:
        request: Celery's, of the task.
        key: of the batch.
        generation: as the task's.
        starts_others: as the task's.
    """
    batch = UUID(key)
    if not outbox.heartbeat(batch, generation):
        if not outbox.is_batch_stored(batch):
            queue = mailer_settings().BULK_QUEUE
            hand_on(request, sending.DELIVER_BATCH, key, generation, starts_others, queue=queue)
        return
    # Those of a task that comes again have been started.
    is_repeated = request.retries or (request.delivery_info or {}).get("redelivered")
    starts_others = starts_others and not is_repeated and not request.is_eager
    if not request.is_eager and _gives_way(batch, generation, starts_others=starts_others):
        return
    if starts_others:
        for _ in range(outbox.concurrency(batch, generation, sending_rate.task_share) - 1):
            publishing.publish_batch(batch, generation)
    continue_now = True
    while continue_now:
        token = outbox.new_claim_token(str(request.id))
        try:
            with _failures_counted(str(batch)), _delivery(token, f"Batch {batch}", request) as delivery:
                result = delivery.run_batch(batch, generation)
        except (TransportUnavailable, Error):
            if request.is_eager:
                return
            raise
        finally:
            turns.slice_ended()
        # Without a broker the next task would begin within this one.
        continue_now = request.is_eager and result.continue_at is not None and result.continue_at <= clock.now()
    if request.is_eager:
        return
    if result.continue_at is not None:
        wait = (result.continue_at - clock.now()).total_seconds()
        publishing.publish_batch(batch, generation, countdown=wait if wait > 0 else None)
    after_delivery(made_due=result.made_due)


def _gives_way(batch: UUID, generation: int, *, starts_others: bool) -> bool:
    """Whether a task for a batch has left its turn to another task, and comes again behind that."""
    return turns.gives_way() and publishing.publish_batch(batch, generation, starts_others=starts_others)


def share_out(ids: Sequence[UUID]) -> Sequence[UUID]:
    """Leave what this task cannot send in its time to others, at once; returns what it keeps."""
    fitting = sending_rate.fitting_claim("", mailer_settings().TIME_SLICE.total_seconds())
    # Before anything is claimed: were this process killed now, its task would come again for all of them.
    if len(ids) > fitting:
        outbox.mark_published_again(ids[fitting:])
        publishing.publish(ids[fitting:], size=fitting)
    return ids[:fitting]


@contextmanager
def _delivery(token: str, what: str, request: Any) -> Iterator[Delivery]:
    """A delivery whose outcome is logged in one line and whose rest is published, also where it ends in an error."""
    began = time.monotonic()
    with ExitStack() as stack:
        # An eager task is a developer's or a test's: no files for those.
        notes = None if request.is_eager else stack.enter_context(noting(token))
        delivery = Delivery(token, notes)
        stack.callback(_conclude, delivery, what, began)
        yield delivery


def _conclude(delivery: Delivery, what: str, began: float) -> None:
    _publish_unfinished(delivery.result)
    counts = delivery.counts
    log_run(logger, what, {name: counts[key] for key, name in _OUTCOMES.items()}, began)


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


@task_run
def process_webhooks(key: str, due_at: str) -> None:
    """Run :func:`congressy_mailer.tasks.process_webhooks`.

    Args:
        key: of the batch of events.
        due_at: as the task's.
    """
    if inbox.is_stored(UUID(key)):
        process((UUID(key), datetime.fromisoformat(due_at)))
    else:
        hand_on(current_task.request, sending.PROCESS_WEBHOOKS, key, due_at, queue=mailer_settings().BULK_QUEUE)
