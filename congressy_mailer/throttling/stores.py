"""Which ledger is asked: the one in Redis where Celery's broker is one and it answers, else this process' own."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Any, TypeVar

from celery.exceptions import SoftTimeLimitExceeded
from django.core.exceptions import ImproperlyConfigured
from kombu import Connection

from ..broker.celery_app import find_celery_app
from ..broker.connections import driver, impatient_connection
from .memory_store import LocalLedger
from .redis_store import SharedLedger
from .store import Ledger

logger = logging.getLogger("congressy_mailer.pacing")

_R = TypeVar("_R")

# Seconds. Longest wait for an answer of Redis.
_TIMEOUT = 0.25

# Seconds that Redis is left alone after a failure; doubled with each further one.
_FIRST_BREAK = 5.0
_LONGEST_BREAK = 60.0

# More threads than a worker has: with too few connections, some would count for themselves.
_CONNECTIONS = 1000


class Ledgers:
    """The two ledgers of a process."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._inherited: list[object] = []
        self._begin()
        os.register_at_fork(after_in_child=self._forked)

    def _begin(self) -> None:
        self._local = LocalLedger()
        self._connection: Connection | None = None
        self._shared: SharedLedger | None = None
        self._none_is_shared = False
        self._failures = 0
        self._next_try = 0.0
        self._not_connected_at = 0.0

    def _forked(self) -> None:
        # The socket is the parent's. It must not be used here, nor closed: closing says goodbye on it.
        self._inherited.append((self._connection, self._shared))
        self._lock = Lock()
        self._begin()

    def ask(self, question: Callable[[Ledger], _R]) -> _R:
        """Ask the ledger in Redis; for a while after it did not answer, and where there is none, the local one.

        It takes half a second at the most when Redis does not answer, and no time at all for a while after that.
        """
        if not self._none_is_shared and time.monotonic() >= self._next_try:
            answer = self._ask_shared(question)
            if answer is not None:
                return answer[0]
        return question(self._local)

    def forget(self, question: Callable[[Ledger], object]) -> None:
        """Tell both that something is no more. A ledger that does not answer forgets by itself, in time."""
        question(self._local)
        self.ask(question)

    def _ask_shared(self, question: Callable[[Ledger], _R]) -> tuple[_R] | None:
        began = time.monotonic()
        if self._failures:
            with self._lock:
                if began < self._next_try:
                    return None
                # One thread finds out whether it is back; the others do not wait for that.
                self._next_try = began + self._break()
        try:
            answer = self._ask_at_once(question, began)
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:
            self._failed(error, began)
            return None
        if answer is not None and self._failures:
            self._recovered()
        return answer

    def _ask_at_once(self, question: Callable[[Ledger], _R], began: float) -> tuple[_R] | None:
        shared = self._shared
        if shared is not None:
            try:
                return (self._ask_over(shared, question),)
            except SoftTimeLimitExceeded:
                raise
            except Exception:
                # One that Redis has closed fails at once, and a new one may work. One that hangs has used up the time.
                if time.monotonic() - began > _TIMEOUT / 2:
                    raise
        with self._lock:
            if began < self._not_connected_at:
                # Another thread has waited for a connection in vain meanwhile; that is enough.
                return None
            if self._shared is None:
                self._connect()
            shared = self._shared
        return None if shared is None else (self._ask_over(shared, question),)

    def _ask_over(self, shared: SharedLedger, question: Callable[[Ledger], _R]) -> _R:
        try:
            return question(shared)
        except BaseException:
            # Half an answer may be left on the connection, also where a signal's handler has interrupted.
            with self._lock:
                if self._shared is shared:
                    self._drop()
            raise

    def _connect(self) -> None:
        try:
            app = find_celery_app()
        except ImproperlyConfigured:
            self._none_is_shared = True
            return
        # Whoever runs tasks eagerly has no workers, and often no broker.
        if app.conf.task_always_eager or driver(app) != "redis":
            self._none_is_shared = True
            return
        self._connection = impatient_connection(app, _TIMEOUT, max_connections=_CONNECTIONS)
        try:
            channel: Any = self._connection.default_channel
            self._shared = SharedLedger(channel.client)
        except BaseException:
            self._drop()
            self._not_connected_at = time.monotonic()
            raise

    def _drop(self) -> None:
        connection, self._connection, self._shared = self._connection, None, None
        if connection is not None:
            with suppress(Exception):
                connection.collect()

    def _failed(self, error: Exception, began: float) -> None:
        with self._lock:
            if self._failures and began < self._next_try - self._break():
                # One failure that several threads have met at the same time.
                return
            self._failures += 1
            self._next_try = time.monotonic() + self._break()
            first = self._failures == 1
        logger.log(
            logging.WARNING if first else logging.DEBUG,
            "Redis does not answer (%s: %s). Until it does, RATE_LIMIT, MAX_CONNECTIONS and slow-downs hold for each "
            "process alone; mail goes on.",
            type(error).__name__, error,
        )  # fmt: skip

    def _recovered(self) -> None:
        with self._lock:
            recovered = self._failures > 0
            self._failures, self._next_try = 0, 0.0
        if recovered:
            logger.warning("Redis answers again: the rate and the connections are counted for all workers together.")

    def _break(self) -> float:
        return min(math.ldexp(_FIRST_BREAK, min(max(self._failures - 1, 0), 10)), _LONGEST_BREAK)


ledgers = Ledgers()
