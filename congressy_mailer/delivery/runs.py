"""One run of each Celery task: :mod:`congressy_mailer.tasks` names the tasks, and imports this when one begins."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial, wraps
from typing import Any, ParamSpec
from uuid import UUID

from celery import current_task
from django.core.exceptions import ImproperlyConfigured
from django.db import Error, connections

from .. import metrics, outbox, periodic, suppressions
from ..broker import sending
from ..conf import mailer_settings
from ..exceptions import SparkPostError, TransportUnavailable
from ..models import State, clock
from ..models.transactions import explaining_missing_tables
from ..outbox import publishing
from ..redaction import error_summary
from ..suppressions.sync import SyncResult, sync
from ..tracking import inbox
from ..tracking.processing import process
from . import sending_rate
from .claims import HELD_BACK, PUT_BACK
from .failure_summary import send_failure_summary
from .foreign import hand_on
from .kept_connection import kept_connection
from .noting import noting
from .slice import Delivery, SliceResult

# Each run tells its outcome where the room's other words go.
_delivery_logger = logging.getLogger("congressy_mailer.delivery")
_outbox_logger = logging.getLogger("congressy_mailer.outbox")
_retention_logger = logging.getLogger("congressy_mailer.retention")
_suppressions_logger = logging.getLogger("congressy_mailer.suppressions")

_PURGE_INTERVAL = timedelta(hours=1)
_PURGE_TIME = 10.0
#: How often one of the workers adds up what all of them have counted.
_FOLD_INTERVAL = timedelta(seconds=30)

# Seconds between two looks of one process at whether the sweep has run, and when it last looked.
_SWEEP_LOOKED_AT_EVERY = 15.0
_sweep_looked_at = -math.inf

# Seconds between two warnings of one process that its clock is wrong, and when the last one was.
_TELL_DIFFERENCE_EVERY = 600.0
_difference_told_at = -_TELL_DIFFERENCE_EVERY

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


_P = ParamSpec("_P")


def _committing(run: Callable[_P, None]) -> Callable[_P, None]:
    """Have each change of a worker commit by itself, over the connection of the task before where there is one.

    Raises:
        ImproperlyConfigured: the host runs our tasks inside a transaction of its own, which may be rolled back.
    """

    @wraps(run)
    def committing(*args: _P.args, **options: _P.kwargs) -> None:
        request = current_task.request if current_task else None
        connection = connections[outbox.database()]
        if request is None or request.is_eager or request.called_directly:
            run(*args, **options)
            metrics.flush()
            return
        if connection.in_atomic_block:
            raise ImproperlyConfigured(
                "A task of the mailer runs inside a transaction of the host's. What it records about a mail that has "
                "left must not be rolled back: do not wrap these tasks in atomic()."
            )
        of_host = connection.settings_dict
        if of_host["AUTOCOMMIT"]:
            with kept_connection():
                _run_and_count(run, *args, **options)
            return
        # Nobody would commit, and each sweep would find the same mail again. In the settings of this connection alone,
        # since it may be opened once more while the task runs.
        connection.settings_dict = {**of_host, "AUTOCOMMIT": True}
        connection.close()
        try:
            _run_and_count(run, *args, **options)
        finally:
            connection.settings_dict = of_host
            connection.close()

    return committing


def _run_and_count(run: Callable[_P, None], *args: _P.args, **options: _P.kwargs) -> None:
    try:
        run(*args, **options)
    finally:
        metrics.flush_if_due()


@_committing
@explaining_missing_tables()
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
        keys = _share_out(keys)
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
        _sweep_if_needed(delivery.result)


@_committing
@explaining_missing_tables()
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
    is_repeated = request.retries or (request.delivery_info or {}).get("redelivered")
    if starts_others and not is_repeated and not request.is_eager:
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
        # Without a broker the next task would begin within this one.
        continue_now = request.is_eager and result.continue_at is not None and result.continue_at <= clock.now()
    if request.is_eager:
        return
    if result.continue_at is not None:
        wait = (result.continue_at - clock.now()).total_seconds()
        publishing.publish_batch(batch, generation, countdown=wait if wait > 0 else None)
    _sweep_if_needed(result)


def _share_out(ids: Sequence[UUID]) -> Sequence[UUID]:
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
    _log(_delivery_logger, what, {name: counts[key] for key, name in _OUTCOMES.items()}, began)


def _log(logger: logging.Logger, what: str, counts: dict[str, int], began: float) -> None:
    """One line with what a run has done; at the level DEBUG where that is nothing."""
    done = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    # Everything is recorded already: a handler or filter of the host's that raises must not repeat it.
    with suppress(Exception):
        logger.log(
            logging.INFO if done else logging.DEBUG,
            "%s: %s, %.1f s", what, done or "nothing to do", time.monotonic() - began,
        )  # fmt: skip


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


def _sweep_if_needed(result: SliceResult) -> None:
    if result.made_due:
        # Through the queue: only so does it find messages that are in it, and it waits behind nothing else than they.
        sending.publish_sweep()
    # The sweep itself is held up by a long queue; what has become due need not wait for it.
    if _looks_at_sweep() and periodic.claim_run(periodic.SWEEP, mailer_settings().SWEEP_INTERVAL * 2):
        _publish_due(None)


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


@_committing
@explaining_missing_tables()
def sweep(published_at: float, behind: float | None) -> None:
    """Run :func:`congressy_mailer.tasks.sweep`.

    Args:
        published_at: when the task was published, in seconds since the epoch.
        behind: as the task's.
    """
    _tell_difference_of_clocks()
    # In the database's time, as the due times are.
    difference = clock.difference() if behind is None else timedelta(seconds=behind)
    _publish_due(min(datetime.fromtimestamp(published_at, UTC) + difference, clock.now()))
    outbox.remove_ended_journals()
    periodic.mark_run(periodic.SWEEP)
    _record_worker()
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


@_committing
@explaining_missing_tables()
def report() -> None:
    """Run :func:`congressy_mailer.tasks.report`."""
    _record_worker()


def _record_worker() -> None:
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
    _outbox_logger.warning(
        "The clock of this host is %.1f s %s that of the database. Workers go by the database's; the dates in mails "
        "and the times that callers store are the hosts'.",
        abs(difference.total_seconds()), "behind" if difference > timedelta(0) else "ahead of",
    )  # fmt: skip


def _publish_due(drained_until: datetime | None) -> None:
    """Publish what is due and not moving."""
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
        _log(_outbox_logger, "Sweep, published again", published, began)


@_committing
@explaining_missing_tables()
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


@_committing
@explaining_missing_tables()
def purge() -> None:
    """Run :func:`congressy_mailer.tasks.purge`."""
    lease = mailer_settings().LEASE
    token = outbox.new_claim_token("purge")
    if not periodic.begin_part(periodic.PURGE, token, lease):
        _retention_logger.debug("Purge: another task works at it")
        return
    began = time.monotonic()
    outbox.may_delete_files(rotate=True)
    ended: set[str] = set()
    while purge_some(ended):
        if not periodic.renew_part(periodic.PURGE, token, lease):
            return
        if time.monotonic() - began >= _PURGE_TIME:
            periodic.hand_over(periodic.PURGE, token, lease)
            _retention_logger.info("Purge: some is left, and goes on in a further task, %.1f s", _PURGE_TIME)
            sending.publish_purge()
            return
    periodic.end_chain(periodic.PURGE, token)
    _retention_logger.info("Purge: done, %.1f s", time.monotonic() - began)


def purge_some(ended: set[str] | None = None) -> bool:
    """Drop a chunk of everything that is old, and delete some of the files that nothing uses.

    Args:
        ended: as :func:`.outbox.purge` has it.

    Returns:
        Whether there may be more.
    """
    ended = set() if ended is None else ended
    parts: dict[str, Callable[[], object]] = {
        "messages": partial(outbox.purge, ended),
        "suppressions": suppressions.purge,
        "lost files": outbox.find_lost_files,
    }
    # None waits for the others to come to their end.
    ended |= {name for name, part in parts.items() if name not in ended and not part()}
    # Asked each time: the others have just made more of them due.
    return outbox.delete_files() or not ended.issuperset(parts)


@_committing
@explaining_missing_tables()
def sync_suppressions() -> None:
    """Run :func:`congressy_mailer.tasks.sync_suppressions`."""
    began = time.monotonic()
    try:
        result: SyncResult = sync()
    except SparkPostError as error:
        _suppressions_logger.warning("The suppression list is brought together with SparkPost's later: %s", error)
        every = mailer_settings().SUPPRESSION_SYNC
        if every is not None and error.retry_after is not None:
            periodic.postpone_run(periodic.SYNC, timedelta(seconds=error.retry_after), every)
        return
    counts = {
        name: getattr(result, name) for name in ("fetched", "imported", "removed", "exported", "deleted", "refused")
    }
    _log(_suppressions_logger, "Suppression list", counts, began)
    if not result.complete:
        sending.publish_sync()
