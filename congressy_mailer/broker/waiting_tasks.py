"""Whether other tasks wait for a process of this worker. Its main process knows, and says so in shared memory.

A process sees in the outbox what waits of our own mail, and nothing of the host's tasks. What the main process writes
is a time rather than a flag, so that it counts no longer than the main process is at work.
"""

from __future__ import annotations

import mmap
import struct
import time
from typing import Any

from .sending import DELIVER, DELIVER_BATCH

#: Seconds between two looks of the main process.
INTERVAL = 0.2

# Seconds for which its word counts. It may be connecting to the broker again, coming to its end, or gone.
_VALID = 1.0

# Their mail is seen in the outbox.
_OUR_DELIVERIES = frozenset({DELIVER, DELIVER_BATCH})

_TIME = struct.Struct("d")

#: When nothing was waiting, by :func:`time.monotonic`, which is one clock for all processes of a host. ``None`` outside
#: of workers, and in pool processes that did not inherit it.
_shared: mmap.mmap | None = None
#: The worker is coming to its end.
_stopping = False


def share() -> None:
    """Have the processes that are forked from now on see what :func:`observe` finds out."""
    global _shared, _stopping
    _shared, _stopping = mmap.mmap(-1, _TIME.size), False


def observe(consumer: Any) -> None:
    """Find out whether a task waits, in the main process. Never raises.

    Args:
        consumer: Celery's, of this worker.
    """
    if _shared is None or _stopping:
        return
    try:
        if not _some_wait(consumer):
            _write(time.monotonic())
    except Exception:
        # Requests come and go meanwhile in other threads, and the broker may be away. It is not known this time.
        return


def stop() -> None:
    """Have the slices of all processes end as if another task waited, because the worker is to stop."""
    global _stopping
    _stopping = True
    if _shared is not None:
        _write(0.0)


def none_waited_lately() -> bool:
    """Whether it is known that no other task has waited for a process of this worker within the last second."""
    if _shared is None:
        return False
    (observed_at,) = _TIME.unpack_from(_shared)
    return bool(0 <= time.monotonic() - observed_at < _VALID)


def _write(observed_at: float) -> None:
    assert _shared is not None
    _TIME.pack_into(_shared, 0, observed_at)


def _some_wait(consumer: Any) -> bool:
    """Whether a task waits, or may do so without this worker knowing."""
    from celery.concurrency import solo
    from celery.worker import state

    if isinstance(consumer.pool, solo.TaskPool):
        # While a task runs, nothing is fetched.
        return True
    fetched, active = set(state.reserved_requests), set(state.active_requests)
    if any(request.name not in _OUR_DELIVERIES for request in fetched - active):
        return True
    if consumer.app.conf.get("worker_disable_prefetch"):
        return len(active) >= int(consumer.pool.num_processes)
    room = consumer.initial_prefetch_count
    return bool(room) and len(fetched | active) >= room and _others_queued(consumer)


def _others_queued(consumer: Any) -> bool:
    """Whether tasks of the host wait in the broker: this worker fetches no more, perhaps for tasks of ours."""
    connection = consumer.connection
    if connection.transport.driver_type != "redis":
        # Others would have to be asked over the connection that tasks are acknowledged on.
        return True
    from ..conf import mailer_settings

    conf = mailer_settings()
    for name in set(consumer.app.amqp.queues.consume_from) - {conf.QUEUE, conf.BULK_QUEUE}:
        try:
            if connection.default_channel.queue_declare(queue=name, passive=True).message_count:
                return True
        except connection.channel_errors:
            # A list without elements does not exist.
            continue
    return False
