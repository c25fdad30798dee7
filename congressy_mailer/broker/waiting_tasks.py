"""Whether other tasks wait for a process of this worker. Its main process knows, and says so in shared memory.

A process sees in the outbox what waits of our own mail, and nothing of the host's tasks. What the main process writes
is a time rather than a flag, so that it counts no longer than the main process is at work.
"""

from __future__ import annotations

import mmap
import struct
import time
from typing import Any

from . import host_queues
from .sending import DELIVER, DELIVER_BATCH

#: Seconds between two looks of the main process.
INTERVAL = 0.2

# Seconds for which its word counts. It may be connecting to the broker again, coming to its end, or gone.
_VALID = 1.0

#: Their mail is seen in the outbox.
OUR_DELIVERIES = frozenset({DELIVER, DELIVER_BATCH})

# When that was seen, and whether a task was waiting.
_SIGHT = struct.Struct("d?")

#: What the main process has seen last, its time by :func:`time.monotonic`, which is one clock for all processes of a
#: host. ``None`` outside of workers, and in pool processes that did not inherit it.
_shared: mmap.mmap | None = None
#: The worker is coming to its end.
_stopping = False


def share() -> None:
    """Have the processes that are forked from now on see what :func:`observe` finds out."""
    global _shared, _stopping
    _shared, _stopping = mmap.mmap(-1, _SIGHT.size), False
    forget()


def observe(consumer: Any) -> None:
    """Find out whether a task waits, in the main process. Never raises.

    Args:
        consumer: Celery's, of this worker.
    """
    if _shared is None or _stopping:
        return
    try:
        waits = _some_wait(consumer)
    except Exception:
        # Requests come and go meanwhile in other threads, and the broker may be away. It is not known this time.
        return
    if waits is not None:
        _write(time.monotonic(), waits)


def stop() -> None:
    """Have the slices of all processes end as if another task waited, because the worker is to stop."""
    global _stopping
    _stopping = True
    if _shared is not None:
        _write(time.monotonic(), True)


def forget() -> None:
    """What was seen does not hold any more: in a process of this worker a task has just begun that waited."""
    if _shared is not None:
        _write(float("-inf"), False)


def none_waited_lately() -> bool:
    """Whether it is known that no other task has waited for a process of this worker within the last second."""
    return _seen() is False


def some_wait() -> bool:
    """Whether it is known that another task waits for a process of this worker, or that the worker is to stop."""
    return _seen() is True


def _seen() -> bool | None:
    if _shared is None:
        return None
    seen_at, waits = _SIGHT.unpack_from(_shared)
    return bool(waits) if 0 <= time.monotonic() - seen_at < _VALID else None


def _write(seen_at: float, waits: bool) -> None:
    assert _shared is not None
    _SIGHT.pack_into(_shared, 0, seen_at, waits)


def _some_wait(consumer: Any) -> bool | None:
    """Whether a task waits; ``None`` where one may do so without this worker knowing."""
    from celery.concurrency import solo
    from celery.worker import state

    if isinstance(consumer.pool, solo.TaskPool):
        # While a task runs, nothing is fetched.
        return None
    fetched, active = set(state.reserved_requests), set(state.active_requests)
    if any(request.name not in OUR_DELIVERIES for request in fetched - active):
        return True
    return host_queues.any_waits(consumer) if _fetches_no_more(consumer, fetched | active) else False


def _fetches_no_more(consumer: Any, held: set[Any]) -> bool:
    """Whether tasks may wait in the broker since this worker has as many as it fetches, perhaps all of them ours."""
    from celery.worker import state

    if consumer.app.conf.get("worker_disable_prefetch"):
        return len(held) >= int(consumer.pool.num_processes)
    if not consumer.initial_prefetch_count:
        return False
    # Tasks with an ETA are not counted as fetched, up to worker_eta_task_limit; Celery 5.6 does not list them.
    room = min(consumer.initial_prefetch_count, consumer.qos.value - len(getattr(state, "scheduled_requests", ())))
    rate_limited = sum(len(bucket.contents) for bucket in consumer.task_buckets.values() if bucket)
    return bool(len(held) + rate_limited >= room)
