"""The sweep: publishes what is due and not moving, and begins what else is due.

A Celery task for it is published by each worker, and each task that delivers sees to it that one has run.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from celery import current_task

from .. import metrics, outbox, periodic
from ..broker import sending
from ..conf import mailer_settings
from ..models import clock
from ..outbox import publishing
from ..tracking import inbox
from .failure_summary import send_failure_summary
from .task_run import log_run, task_run

logger = logging.getLogger("congressy_mailer.outbox")

_PURGE_INTERVAL = timedelta(hours=1)
#: How often one of the workers adds up what all of them have counted.
_FOLD_INTERVAL = timedelta(seconds=30)

# Seconds between two looks of one process at whether the sweep has run, and when it last looked.
_SWEEP_LOOKED_AT_EVERY = 15.0
_sweep_looked_at = -math.inf

# Seconds between two warnings of one process that its clock is wrong, and when the last one was.
_TELL_DIFFERENCE_EVERY = 600.0
_difference_told_at = -_TELL_DIFFERENCE_EVERY


@task_run
def sweep(published_at: float, behind: float | None) -> None:
    """Run :func:`congressy_mailer.tasks.sweep`.

    Args:
        published_at: when the task was published, in seconds since the epoch.
        behind: as the task's.
    """
    _tell_difference_of_clocks()
    # In the database's time, as the due times are.
    difference = clock.difference() if behind is None else timedelta(seconds=behind)
    publish_due(min(datetime.fromtimestamp(published_at, UTC) + difference, clock.now()))
    outbox.remove_ended_journals()
    periodic.mark_run(periodic.SWEEP)
    record_worker()
    if periodic.claim_run(periodic.FOLD, _FOLD_INTERVAL):
        while metrics.fold():
            pass
        metrics.forget_workers()
    if periodic.claim_run(periodic.PURGE, _PURGE_INTERVAL) or periodic.claim_broken_chain(
        periodic.PURGE, mailer_settings().LEASE
    ):
        sending.publish_purge()
    conf = mailer_settings()
    every = conf.SUPPRESSION_SYNC
    if every is not None and conf.SPARKPOST_API_KEY is not None and periodic.claim_run(periodic.SYNC, every):
        sending.publish_sync()
    send_failure_summary()


@task_run
def report() -> None:
    """Run :func:`congressy_mailer.tasks.report`."""
    record_worker()


def record_worker() -> None:
    """Write down that the worker is alive which has published this task."""
    told = current_task.request.get(sending.WORKER_HEADER) if current_task else None
    # Whatever else is in the queue of another project must not end the sweep.
    with suppress(LookupError, TypeError, ValueError):
        if told:
            metrics.record_worker(told)


def _tell_difference_of_clocks() -> None:
    global _difference_told_at
    difference = clock.difference()
    if abs(difference) < clock.WORTH_TELLING or time.monotonic() < _difference_told_at + _TELL_DIFFERENCE_EVERY:
        return
    _difference_told_at = time.monotonic()
    logger.warning(
        "The clock of this host is %.1f s %s that of the database. Workers go by the database's; the dates in mails "
        "and the times that callers store are the hosts'.",
        abs(difference.total_seconds()), "behind" if difference > timedelta(0) else "ahead of",
    )  # fmt: skip


def after_delivery(*, made_due: bool) -> None:
    """Have due mail published where it does not wait for the next sweep, and tell where this host's clock is wrong.

    Args:
        made_due: the task has made mail due that only a sweep publishes.
    """
    if made_due:
        # Through the queue: only so does it find messages that are in it, and it waits behind nothing else than they.
        sending.publish_sweep()
    # The sweep itself is held up by a long queue; what has become due need not wait for it.
    if _looks_at_sweep():
        # All sweeps may be run by workers on other hosts.
        _tell_difference_of_clocks()
        if periodic.claim_run(periodic.SWEEP, mailer_settings().SWEEP_INTERVAL * 2):
            publish_due(None)


def _looks_at_sweep() -> bool:
    global _sweep_looked_at
    now = time.monotonic()
    if now - _sweep_looked_at < min(_SWEEP_LOOKED_AT_EVERY, mailer_settings().SWEEP_INTERVAL.total_seconds()):
        return False
    _sweep_looked_at = now
    return True


def look_at_sweep_again() -> None:
    """Have the next task look at whether the sweep has run."""
    global _sweep_looked_at
    _sweep_looked_at = -math.inf


def publish_due(drained_until: datetime | None) -> None:
    """Publish what is due and not moving.

    Args:
        drained_until: as :func:`.outbox.sweep` has it.
    """
    began = time.monotonic()
    published: Counter[str] = Counter(messages=0, batches=0)
    try:
        if ended := outbox.ended_pauses():
            outbox.release_batches(ended)
            while released := outbox.release_messages(ended):
                if not publishing.publish(released):
                    return
                published["resumed messages"] += len(released)
            outbox.forget_ended_pauses()
        for key, generation in outbox.claim_due_batches():
            published["batches"] += publishing.publish_batch(key, generation, starts_others=True)
        while ready := outbox.sweep(drained_until):
            if not publishing.publish(ready):
                return
            published["messages"] += len(ready)
        while due := inbox.due_batches():
            if not inbox.publish_webhooks(due):
                return
            published["batches of events"] += len(due)
    finally:
        log_run(logger, "Sweep, published again", published, began)
