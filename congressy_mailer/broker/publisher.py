"""Publishing ids to the broker: after the commit, once for a transaction, and never at the caller's expense.

What is published is only a hint that somebody should look; the messages themselves are in the database. So a
publish that fails loses nothing, and one that is repeated repeats no mail.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

from celery import Celery
from celery.app.routes import Router
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from kombu import Connection, Producer, Queue

from .. import outbox
from ..conf import mailer_settings
from ..tracking import inbox
from .celery_app import find_celery_app
from .connections import impatient_connection

logger = logging.getLogger("congressy_mailer.dispatch")

DELIVER = "congressy_mailer.deliver"
DELIVER_BATCH = "congressy_mailer.deliver_batch"
SWEEP = "congressy_mailer.sweep"
PURGE = "congressy_mailer.purge"
SYNC_SUPPRESSIONS = "congressy_mailer.sync_suppressions"
PROCESS_WEBHOOKS = "congressy_mailer.process_webhooks"

_LONGEST_BREAK = 60.0

#: Seconds after which a sweep or purge that nobody has taken from the broker is not worth doing any more. A queue may
#: be hours long, and only what comes through it tells how far it has moved.
_STALE = 86_400.0


def publish_on_commit(ids: Sequence[UUID]) -> None:
    """Publish these messages once the transaction that stored them has committed, all of its messages together."""
    connection = connections[outbox.database()]
    if _commits_by_hand(connection):
        outbox.unpublished(ids)
        return
    hooks: list[Any] = connection.run_on_commit
    last = next((hook for _, hook, _ in reversed(hooks) if isinstance(hook, _PublishHook)), None)
    pending = _Pending() if last is None or last.pending.published else last.pending
    pending.ids.extend(ids)
    # Each call has its hook: a savepoint may be rolled back without the others, and a test may run only the hooks of
    # one part of it. The first to run publishes for all; ids of messages that were rolled back find nothing.
    transaction.on_commit(_PublishHook(pending), using=connection.alias, robust=True)


def _commits_by_hand(connection: BaseDatabaseWrapper) -> bool:
    """Whoever does gets no hook from Django; the next sweep after that commit publishes what it stored."""
    return not (connection.in_atomic_block or connection.get_autocommit())


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


def publish(ids: Sequence[UUID], *, countdown: float | None = None) -> bool:
    """Tell the workers of messages. Never raises, and never takes long.

    Args:
        ids: of messages that are stored.
        countdown: seconds until they are to be looked at; at once where it is ``None``.

    Returns:
        Whether the broker took them. If not, the next sweep publishes them.
    """
    conf = mailer_settings()
    published = True
    for start in range(0, len(ids), conf.SLICE_SIZE):
        part = ids[start : start + conf.SLICE_SIZE]
        if not (published and _send(DELIVER, [str(key) for key in part], countdown=countdown)):
            published = False
            outbox.unpublished(part)
    return published


def publish_batch_on_commit(key: UUID, round: int) -> None:
    """The same for a batch, whose first task sees to it that there are as many as it needs: :func:`publish_batch`."""
    connection = connections[outbox.database()]
    if _commits_by_hand(connection):
        outbox.unpublished_batch(key)
        return
    transaction.on_commit(partial(publish_batch, key, round, lead=True), using=connection.alias, robust=True)


def publish_batch(key: UUID, round: int, *, lead: bool = False, countdown: float | None = None) -> bool:
    """Ask for a task that works at a batch. Never raises, and never takes long.

    Args:
        key: of a batch that is stored.
        round: the batch's round that it belongs to.
        lead: it sees to it that there are as many as the batch needs.
        countdown: seconds until it begins; at once where it is ``None``.

    Returns:
        Whether the broker took it. If not, the sweep finds the batch.
    """
    queue = mailer_settings().BULK_QUEUE
    published = _send(DELIVER_BATCH, str(key), round, lead, queue=queue, countdown=countdown)
    if not published:
        outbox.unpublished_batch(key)
    return published


def publish_webhook_on_commit(ticket: inbox.Ticket) -> None:
    """Have a batch of SparkPost's events processed once the transaction that stored it has committed."""
    connection = connections[outbox.database()]
    if _commits_by_hand(connection):
        inbox.unpublished([ticket])
        return
    transaction.on_commit(partial(publish_webhooks, [ticket]), using=connection.alias, robust=True)


def publish_webhooks(tickets: Sequence[inbox.Ticket]) -> bool:
    """Have these batches of SparkPost's events processed, each by a task of its own. Never raises.

    Returns:
        Whether the broker took them. If not, the next sweep publishes what it did not.
    """
    queue = mailer_settings().BULK_QUEUE
    for position, (key, due_at) in enumerate(tickets):
        if not _send(PROCESS_WEBHOOKS, str(key), due_at.isoformat(), queue=queue):
            inbox.unpublished(tickets[position:])
            return False
    return True


def publish_sweep() -> bool:
    """Ask for a sweep. It tells when it was published, and so how far the queue has moved when it comes through."""
    return _send(SWEEP, time.time(), expires=_STALE)


def publish_purge() -> bool:
    """Ask for a purge."""
    return _send(PURGE, expires=_STALE)


def publish_sync() -> bool:
    """Ask for the suppression list to be brought together with SparkPost's."""
    return _send(SYNC_SUPPRESSIONS, queue=mailer_settings().BULK_QUEUE, expires=_STALE)


def _send(task: str, *arguments: Any, queue: str | None = None, **options: Any) -> bool:
    try:
        app = find_celery_app()
        if app.conf.task_always_eager:
            return _run_here(app, task, arguments, **options)
        conf = mailer_settings()
        return _publisher.send(
            app,
            task,
            args=arguments,
            queue=_queue(app, queue or conf.QUEUE),
            # Without the host's routes: they are for its own tasks, and nobody may serve where they lead.
            router=Router(),
            # Whatever the host's own tasks travel as.
            serializer="json",
            ignore_result=True,
            soft_time_limit=conf.TIME_LIMIT.total_seconds(),
            # Until then it may have something to write down; afterwards nothing it does counts any more.
            time_limit=conf.LEASE.total_seconds(),
            **options,
        )
    except ImproperlyConfigured as error:
        logger.error("Mail is stored but not published: %s", error)
    except Exception:
        logger.exception("Mail is stored but not published.")
    return False


def _queue(app: Celery, name: str) -> Queue:
    """Our queue, declared as our workers declare it, also where the host has Celery create none that is missing."""
    queues = app.amqp.queues
    if name not in queues:
        queues.add(Queue(name, routing_key=name))
    return queues[name]


def _run_here(
    app: Celery, task: str, arguments: tuple[Any, ...], *, countdown: float | None = None, **options: Any
) -> bool:
    """Celery's own ``task_always_eager``, which ``send_task()`` does not know. What is to wait stays deferred."""
    if not countdown:
        app.tasks[task].apply(args=arguments)
    return True


@dataclass
class _Breaker:
    """Leaves the broker alone for a while after it failed, and lets one caller at a time find out whether it is back.

    So a caller waits for a broker that is away only if it called before that was known, or if it is that one.
    """

    failures: int = 0
    failed_at: float = 0.0
    closed_at: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def is_open(self) -> bool:
        return time.monotonic() < self.closed_at

    def lets_through(self) -> bool:
        """Whether the caller may try."""
        if not self.failures:
            return True
        with self.lock:
            if self.is_open():
                return False
            # The break goes on for everybody else, until this one has failed or succeeded.
            self.closed_at = time.monotonic() + self._break()
            return True

    def failed(self, error: Exception, began: float) -> None:
        with self.lock:
            if began < self.failed_at:
                # One failure that several callers have met at the same time is no reason for a longer break.
                return
            self.failures += 1
            self.failed_at = time.monotonic()
            wait = self._break()
            self.closed_at = self.failed_at + wait
            first = self.failures == 1
        logger.log(
            logging.ERROR if first else logging.DEBUG,
            "The broker does not take messages (%s: %s). Mail is stored, and published when it is back; "
            "next try in %.0f s.",
            type(error).__name__, error, wait,
        )  # fmt: skip

    def succeeded(self) -> None:
        if not self.failures:
            return
        with self.lock:
            recovered = self.failures > 0
            self.failures, self.closed_at = 0, 0.0
        if recovered:
            logger.warning("The broker takes messages again.")

    def _break(self) -> float:
        first = mailer_settings().BREAKER_TIME.total_seconds()
        return min(math.ldexp(first, min(self.failures - 1, 10)), _LONGEST_BREAK)


class _Publisher:
    """Connections of our own, so that their timeouts are ours and the host's settings stay as they are."""

    def __init__(self) -> None:
        self.breaker = _Breaker()
        self._idle: deque[tuple[Celery, Producer]] = deque()
        self._inherited: list[object] = []
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        # The sockets are the parent's. They must not be used here, nor closed: closing says goodbye on them.
        self._inherited.extend(self._idle)
        self._idle = deque()
        self.breaker = _Breaker()

    def send(self, app: Celery, task: str, **options: Any) -> bool:
        if not self.breaker.lets_through():
            return False
        timeout = mailer_settings().PUBLISH_TIMEOUT.total_seconds()
        began = time.monotonic()
        try:
            if not self._send_over_idle(app, task, timeout, began, options):
                self._send_over(_connect(app, timeout), app, task, options)
        except Exception as error:
            self.breaker.failed(error, began)
            return False
        self.breaker.succeeded()
        return True

    def _send_over_idle(self, app: Celery, task: str, timeout: float, began: float, options: dict[str, Any]) -> bool:
        """Use a connection left from an earlier call; ``False`` where there is none or the broker has dropped it."""
        try:
            owner, producer = self._idle.pop()
        except IndexError:
            return False
        if owner is not app:
            _drop(producer.connection)
            return False
        try:
            self._send_over(producer, app, task, options)
        except Exception:
            # One that was dropped fails at once, and its neighbours too. One that hangs has used up the time.
            if time.monotonic() - began > timeout / 2:
                raise
            while self._idle:
                _drop(self._idle.pop()[1].connection)
            return False
        return True

    def _send_over(self, producer: Producer, app: Celery, task: str, options: dict[str, Any]) -> None:
        try:
            app.send_task(task, producer=producer, retry=False, add_to_parent=False, **options)
        except BaseException:
            _drop(producer.connection)
            raise
        self._idle.append((app, producer))


def _connect(app: Celery, timeout: float) -> Producer:
    """A new connection, whose every wait is shorter than ``timeout``."""
    connection = impatient_connection(app, timeout)
    try:
        return app.amqp.Producer(connection.default_channel)
    except BaseException:
        _drop(connection)
        raise


def _drop(connection: Connection | None) -> None:
    """End a connection without the farewell of AMQP, for whose answer one would wait once more."""
    try:
        if connection is not None:
            # kombu sets the default timeout of all new sockets of the process meanwhile: to what it is already.
            connection.collect(socket.getdefaulttimeout())
    except Exception:
        logger.debug("A broken connection to the broker could not be closed.", exc_info=True)


_publisher = _Publisher()
