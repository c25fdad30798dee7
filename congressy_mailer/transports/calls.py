"""Calls that are under way at the same time, each in a helper thread. Whoever waits for them may be interrupted.

Celery's time limit raises its exception wherever the main thread happens to be. Were that within a call, its answer
would be lost, and its mails sent again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

from celery.exceptions import SoftTimeLimitExceeded

_T = TypeVar("_T")

# Of a process, for all of its tasks: they are started as they are needed, and keep their connections.
_MOST_THREADS = 100

# Seconds after which a signal is noticed that came in the moment in which a wait began.
_LONGEST_WAIT = 0.5

# Seconds that calls have to come to an end when something else than the time limit ends the process.
_DRAIN = 5.0


class Calls(Generic[_T]):
    """Some calls of one task."""

    def __init__(self) -> None:
        self._under_way: set[Future[_T]] = set()
        #: What interrupted the wait for them; they are heard all the same.
        self.interrupted: BaseException | None = None

    def __len__(self) -> int:
        return len(self._under_way)

    def start(self, call: Callable[[], _T]) -> Future[_T]:
        """Make a call. :meth:`wait` returns it once it has come to its end."""
        future = _executor().submit(call)
        self._under_way.add(future)
        return future

    def wait(self) -> list[Future[_T]]:
        """Those that have come to their end since, at least one where any is under way.

        The time limit does not end the wait: each call has a deadline, and what it has done is to be written down.
        """
        while self._under_way:
            try:
                done = wait(self._under_way, _LONGEST_WAIT, FIRST_COMPLETED).done
            except SoftTimeLimitExceeded as error:
                self.interrupted = error
            else:
                if done:
                    return self._take(done)
        return []

    def finished(self) -> list[Future[_T]]:
        """Those that have come to their end since, without a wait."""
        return self._take(future for future in list(self._under_way) if future.done())

    def drain(self, error: BaseException) -> None:
        """Let calls come to their end; within a moment where the process is ending.

        Args:
            error: what breaks the delivery off.
        """
        seconds = None if isinstance(error, SoftTimeLimitExceeded) else _DRAIN
        self._take(wait(self._under_way, seconds).done)

    def _take(self, futures: Iterable[Future[_T]]) -> list[Future[_T]]:
        taken = list(futures)
        self._under_way.difference_update(taken)
        return taken


_threads: list[ThreadPoolExecutor] = []


def _executor() -> ThreadPoolExecutor:
    if not _threads:
        _threads.append(ThreadPoolExecutor(_MOST_THREADS, "congressy-mailer-http"))
    return _threads[0]


# Its threads are the other process's.
os.register_at_fork(after_in_child=_threads.clear)
