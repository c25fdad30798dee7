"""Whether tasks of the host's wait in the broker, asked for by a worker that fetches no more."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from typing import Any

from kombu import Connection

from ..conf import mailer_settings
from .connections import connection_with_timeout

# Seconds for which RabbitMQ is not asked again after it has not answered.
_BREAK = 30.0

# The main process waits for the answer: so many times as long as that takes it does other things.
_REST = 5.0


class _RabbitMQ:
    """A connection for these questions: tasks come and are acknowledged over the worker's."""

    def __init__(self) -> None:
        self._connection: Connection | None = None
        self._asks_again_at = float("-inf")

    def lengths(self, app: Any, names: set[str]) -> list[int] | None:
        """How many tasks wait in each of these queues; ``None``: it is not asked now.

        Raises:
            Exception: the broker has not answered.
        """
        began = time.monotonic()
        if began < self._asks_again_at:
            return None
        self._asks_again_at = began + _BREAK
        try:
            if self._connection is None:
                self._connection = connection_with_timeout(app, mailer_settings().PUBLISH_TIMEOUT.total_seconds())
            found = [_length(self._connection, name) for name in names]
        except BaseException:
            self._drop()
            raise
        now = time.monotonic()
        self._asks_again_at = now + _REST * (now - began)
        return found

    def close(self) -> None:
        """Never raises."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.release()

    def _drop(self) -> None:
        """Without a farewell, for whose answer one would wait once more."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.collect(socket.getdefaulttimeout())


_rabbitmq = _RabbitMQ()


def close() -> None:
    """The worker has come to its end. Never raises."""
    _rabbitmq.close()


def any_waits(consumer: Any) -> bool | None:
    """Whether a task waits in one of the host's queues that a worker serves; ``None``: that is not known now.

    Args:
        consumer: Celery's, of the worker.

    Raises:
        Exception: the broker has not answered.
    """
    conf = mailer_settings()
    ours, served = {conf.QUEUE, conf.BULK_QUEUE}, set(consumer.app.amqp.queues.consume_from)
    hosts = served - ours
    # Where the host's tasks are in the same queue as ours, nobody knows whose waits there.
    shared = {consumer.app.conf.task_default_queue} & served & ours
    kind = consumer.connection.transport.driver_type
    if kind == "redis":
        lengths = {name: _length(consumer.connection, name) for name in hosts | shared}
    elif kind == "amqp":
        found = _rabbitmq.lengths(consumer.app, hosts | shared)
        if found is None:
            return None
        lengths = dict(zip(hosts | shared, found, strict=True))
    else:
        return None
    if any(lengths[name] for name in hosts):
        return True
    return None if any(lengths[name] for name in shared) else False


def _length(connection: Any, name: str) -> int:
    try:
        return int(connection.default_channel.queue_declare(queue=name, passive=True).message_count)
    except connection.channel_errors:
        # A list without elements does not exist.
        return 0
