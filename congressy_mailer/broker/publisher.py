"""Publishing ids to the broker: after the commit, once for a transaction, and never at the caller's expense.

A published id is only a hint that a message is due; the messages themselves are in the database. So a
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
from dataclasses import dataclass, field
from typing import Any

from celery import Celery
from celery.exceptions import ImproperlyConfigured
from kombu import Connection, Producer

from ..conf import mailer_settings
from ..credentials import loggable
from ..replies import error_text
from .connections import connection_with_timeout

logger = logging.getLogger("congressy_mailer.broker")

_LONGEST_BREAK = 60.0

# Raised before anything is sent: the fault of queues, routes or other settings, and not of the broker.
_CONFIGURATION_ERRORS = (LookupError, TypeError, AttributeError, ImproperlyConfigured)


@dataclass
class Breaker:
    """Leaves the broker alone for a while after it failed, and lets one caller at a time find out whether it is back.

    So a caller waits for a broker that is away only if it called before that was known, or if it is that one.
    """

    failures: int = 0
    failed_at: float = 0.0
    open_until: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def is_open(self) -> bool:
        """Whether the broker is left alone now."""
        return time.monotonic() < self.open_until

    def allows_call(self) -> bool:
        """Whether the caller may try."""
        if not self.failures:
            return True
        with self.lock:
            if self.is_open():
                return False
            # The break goes on for everybody else, until this one has failed or succeeded.
            self.open_until = time.monotonic() + self._break_time()
            return True

    def record_failure(self, error: Exception, began: float) -> None:
        with self.lock:
            if began < self.failed_at:
                # One failure that several callers have met at the same time is no reason for a longer break.
                return
            self.failures += 1
            self.failed_at = time.monotonic()
            wait = self._break_time()
            self.open_until = self.failed_at + wait
            first = self.failures == 1
        logger.log(
            logging.ERROR if first else logging.DEBUG,
            "The Celery app cannot publish as it is configured (%s). Mail is stored, and published when it can be; "
            "next try in %.0f s."
            if isinstance(error, _CONFIGURATION_ERRORS)
            else "The broker does not take messages (%s). Mail is stored, and published when it is back; "
            "next try in %.0f s.",
            error_text(error), wait,
        )  # fmt: skip

    def record_success(self) -> None:
        if not self.failures:
            return
        with self.lock:
            recovered = self.failures > 0
            self.failures, self.open_until = 0, 0.0
        if recovered:
            logger.warning("The broker takes messages again.")

    def _break_time(self) -> float:
        first = mailer_settings().BREAKER_TIME.total_seconds()
        return min(math.ldexp(first, min(self.failures - 1, 10)), _LONGEST_BREAK)


class _Publisher:
    """Connections of our own, so that their timeouts are ours and the host's settings stay as they are."""

    def __init__(self) -> None:
        self.breaker = Breaker()
        self._idle: deque[tuple[Celery, Producer]] = deque()
        self._inherited: list[object] = []
        os.register_at_fork(after_in_child=self._reset_after_fork)

    def _reset_after_fork(self) -> None:
        # The sockets are the parent's. They must not be used here, nor closed: closing says goodbye on them.
        self._inherited.extend(self._idle)
        self._idle = deque()
        self.breaker = Breaker()

    def forget(self) -> None:
        while self._idle:
            _drop(self._idle.pop()[1].connection)
        self.breaker = Breaker()

    def send(self, app: Celery, task: str, **options: Any) -> bool:
        if not self.breaker.allows_call():
            return False
        timeout = mailer_settings().PUBLISH_TIMEOUT.total_seconds()
        began = time.monotonic()
        try:
            if not self._send_over_idle(app, task, timeout, began, options):
                self._send_over(_connect(app, timeout), app, task, options)
        except Exception as error:
            self.breaker.record_failure(error, began)
            return False
        self.breaker.record_success()
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
    connection = connection_with_timeout(app, timeout)
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
    except Exception as error:
        logger.debug("A broken connection to the broker could not be closed.", exc_info=loggable(error))


_publisher = _Publisher()


def send(app: Celery, task: str, **options: Any) -> bool:
    """Publish a task over a connection of our own; never raises, and takes ``PUBLISH_TIMEOUT`` at the most.

    Args:
        app: the host's Celery app.
        task: its name.
        options: of Celery's ``send_task``.

    Returns:
        Whether the broker has taken it.
    """
    return _publisher.send(app, task, **options)


def forget() -> None:
    """Begin anew: without open connections, and as if no broker had ever been away."""
    _publisher.forget()


def breaker() -> Breaker:
    """What says whether the broker may be asked now."""
    return _publisher.breaker
