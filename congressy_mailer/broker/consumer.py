"""The part of a Celery worker that listens to the broker, made to outlive the death of a Redis in the midst of work."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from celery.worker.consumer import Consumer


class ReconnectingConsumer(Consumer):
    """Celery's own, but for what it does first when its connection is lost.

    kombu gives what is not acknowledged back to Redis while it closes a channel. Where that fails because Redis is
    away, Celery 5.7 is left with half a connection, and ends the worker with an ``AttributeError``. Closing the channel
    beforehand, with the error that is to be expected caught, leaves nothing to give back.
    """

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Get ready to connect again."""
        connection: Any = self.connection
        with suppress(*connection.connection_errors, *connection.channel_errors):
            connection.default_channel.close()
        super().on_connection_error_after_connected(exc)
