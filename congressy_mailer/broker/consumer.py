"""The part of a Celery worker that listens to the broker, made to outlive a Redis that dies or takes nothing."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from celery.worker import state
from celery.worker.consumer import Consumer

from ..replies import error_text

logger = logging.getLogger("congressy_mailer.broker")

_celery_logger = logging.getLogger("celery.worker.consumer.consumer")

# Seconds until a broker that refuses commands is tried again: the first time, and at most.
_FIRST_WAIT = 1.0
_LONGEST_WAIT = 10.0
# Seconds between two lines about it, and without a refusal until the next one counts as the first.
_REPORT_INTERVAL = 60.0
_SHUTDOWN_CHECK_INTERVAL = 0.2


class ReconnectingConsumer(Consumer):
    """Celery's own, but for what it does when its connection is lost or its broker refuses commands.

    kombu gives what is not acknowledged back to Redis while it closes a channel. Where that fails because Redis is
    away, Celery 5.7 is left with half a connection, and ends the worker with an ``AttributeError``. Closing the channel
    beforehand, with the error that is to be expected caught, leaves nothing to give back.

    A Redis that is read-only or full accepts connections and refuses commands. Celery connects again at once, several
    times a second, and writes a few lines each time; this one waits in between, and writes one line a minute.
    """

    # Celery's, of the broker's kind.
    connection_errors: tuple[type[Exception], ...]
    channel_errors: tuple[type[Exception], ...]

    _refusals = 0
    _refused_at = _reported_at = float("-inf")

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Get ready to connect again."""
        if self._is_refusal(exc):
            self._wait(exc)
        else:
            super().on_connection_error_before_connected(exc)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Get ready to connect again."""
        connection: Any = self.connection
        with suppress(*connection.connection_errors, *connection.channel_errors):
            connection.default_channel.close()
        if self._is_refusal(exc):
            with _silenced(_celery_logger):
                super().on_connection_error_after_connected(exc)
            self._wait(exc)
        else:
            super().on_connection_error_after_connected(exc)

    def _is_refusal(self, error: Exception) -> bool:
        return isinstance(error, self.channel_errors) and not isinstance(error, self.connection_errors)

    def _wait(self, error: Exception) -> None:
        now = time.monotonic()
        self._refusals = self._refusals + 1 if now - self._refused_at < _REPORT_INTERVAL else 1
        wait = min(_FIRST_WAIT * 2 ** min(self._refusals - 1, 10), _LONGEST_WAIT)
        if now - self._reported_at >= _REPORT_INTERVAL:
            self._reported_at = now
            logger.error(
                "The broker refuses what this worker asks of it (%s). Mail is stored meanwhile, and sent when it does "
                "not any more; it is tried again at least every %.0f s.",
                error_text(error), _LONGEST_WAIT,
            )  # fmt: skip
        until = now + wait
        while time.monotonic() < until:
            state.maybe_shutdown()
            time.sleep(_SHUTDOWN_CHECK_INTERVAL)
        self._refused_at = time.monotonic()


@contextmanager
def _silenced(other: logging.Logger) -> Iterator[None]:
    """Keep a logger from writing what is written already."""

    def refuse(record: logging.LogRecord) -> bool:
        return False

    other.addFilter(refuse)
    try:
        # Celery 5.6 warns each time of a setting that will change.
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        other.removeFilter(refuse)
