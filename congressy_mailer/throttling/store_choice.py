"""Which store is asked: the one in Redis where Celery's broker is one and it answers, else this process' own."""

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
from django.utils.crypto import salted_hmac
from kombu import Connection

from ..broker.celery_app import find_celery_app
from ..broker.connections import connection_with_timeout, driver
from ..conf import mailer_settings
from .memory_store import MemoryStore
from .redis_store import RedisStore
from .store import LimitStore

logger = logging.getLogger("congressy_mailer.throttling")

_R = TypeVar("_R")

# Seconds. Longest wait for an answer of Redis.
_TIMEOUT = 0.25

# Seconds that Redis is left alone after a failure; doubled with each further one.
_FIRST_BREAK = 5.0
_LONGEST_BREAK = 60.0

# More threads than a worker has: with too few connections, some would count for themselves.
_CONNECTIONS = 1000


class LimitStores:
    """The two stores of a process: the one in Redis, and the one in memory."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._inherited: list[object] = []
        self._reset()
        os.register_at_fork(after_in_child=self._reset_after_fork)

    def _reset(self) -> None:
        self._memory = MemoryStore()
        self._connection: Connection | None = None
        self._redis: RedisStore | None = None
        self._no_redis = False
        #: How often Redis has not answered since it did last.
        self.failures = 0
        self._next_try = 0.0
        self._connect_failed_at = 0.0

    def _reset_after_fork(self) -> None:
        # The socket is the parent's. It must not be used here, nor closed: closing says goodbye on it.
        self._inherited.append((self._connection, self._redis))
        self._lock = Lock()
        self._reset()

    def run(self, operation: Callable[[LimitStore], _R]) -> _R:
        """Run an operation on the store in Redis; in memory where there is none, or it has not answered lately.

        It takes half a second at the most when Redis does not answer, and no time at all for a while after that.
        """
        if not self._no_redis and time.monotonic() >= self._next_try:
            answer = self._run_on_redis(operation)
            if answer is not None:
                return answer[0]
        return operation(self._memory)

    def run_on_both(self, operation: Callable[[LimitStore], object]) -> None:
        """Run an operation that releases something on both stores; in one that does not answer it expires."""
        operation(self._memory)
        self.run(operation)

    def _run_on_redis(self, operation: Callable[[LimitStore], _R]) -> tuple[_R] | None:
        began = time.monotonic()
        if self.failures:
            with self._lock:
                if began < self._next_try:
                    return None
                # One thread finds out whether it is back; the others do not wait for that.
                self._next_try = began + self._break_time()
        try:
            answer = self._try_redis(operation, began)
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:
            self._record_failure(error, began)
            return None
        if answer is not None and self.failures:
            self._record_recovery()
        return answer

    def _try_redis(self, operation: Callable[[LimitStore], _R], began: float) -> tuple[_R] | None:
        redis_store = self._redis
        if redis_store is not None:
            try:
                return (self._run_over(redis_store, operation),)
            except SoftTimeLimitExceeded:
                raise
            except Exception:
                # One that Redis has closed fails at once, and a new one may work. One that hangs has used up the time.
                if time.monotonic() - began > _TIMEOUT / 2:
                    raise
        with self._lock:
            if began < self._connect_failed_at:
                # Another thread has waited for a connection in vain meanwhile; that is enough.
                return None
            if self._redis is None:
                self._connect()
            redis_store = self._redis
        return None if redis_store is None else (self._run_over(redis_store, operation),)

    def _run_over(self, redis_store: RedisStore, operation: Callable[[LimitStore], _R]) -> _R:
        try:
            return operation(redis_store)
        except BaseException:
            # Half an answer may be left on the connection, also where a signal's handler has interrupted.
            with self._lock:
                if self._redis is redis_store:
                    self._drop()
            raise

    def _connect(self) -> None:
        try:
            app = find_celery_app()
        except ImproperlyConfigured:
            self._no_redis = True
            return
        # A project that runs tasks eagerly has no workers, and often no broker.
        if app.conf.task_always_eager or driver(app) != "redis":
            self._no_redis = True
            return
        self._connection = connection_with_timeout(app, _TIMEOUT, max_connections=_CONNECTIONS)
        try:
            channel: Any = self._connection.default_channel
            self._redis = RedisStore(channel.client, throttling_group())
        except BaseException:
            self._drop()
            self._connect_failed_at = time.monotonic()
            raise

    def end_break(self) -> None:
        """Ask Redis at the next time, although it has not answered lately."""
        self._next_try = 0.0

    def _drop(self) -> None:
        connection, self._connection, self._redis = self._connection, None, None
        if connection is not None:
            with suppress(Exception):
                connection.collect()

    def _record_failure(self, error: Exception, began: float) -> None:
        with self._lock:
            if self.failures and began < self._next_try - self._break_time():
                # One failure that several threads have met at the same time.
                return
            self.failures += 1
            self._next_try = time.monotonic() + self._break_time()
            first = self.failures == 1
        logger.log(
            logging.WARNING if first else logging.DEBUG,
            "Redis does not answer (%s: %s). Until it does, RATE_LIMIT, MAX_CONNECTIONS and slow-downs hold for each "
            "process alone; mail goes on.",
            type(error).__name__, error,
        )  # fmt: skip

    def _record_recovery(self) -> None:
        with self._lock:
            recovered = self.failures > 0
            self.failures, self._next_try = 0, 0.0
        if recovered:
            logger.warning("Redis answers again: the rate and the connections are counted for all workers together.")

    def _break_time(self) -> float:
        return min(math.ldexp(_FIRST_BREAK, min(max(self.failures - 1, 0), 10)), _LONGEST_BREAK)


def throttling_group() -> str:
    """Name under which workers find each other in Redis: ``THROTTLING_GROUP``, else one that each project has.

    All processes of a project have its ``SECRET_KEY``, and no other project has it. Eight bytes of a hash tell nobody
    what it is.
    """
    configured = mailer_settings().THROTTLING_GROUP
    return configured or salted_hmac("congressy_mailer.throttling", "group", algorithm="sha256").hexdigest()[:16]


limit_stores = LimitStores()
