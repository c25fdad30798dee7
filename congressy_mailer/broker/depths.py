"""How many tasks wait in the broker."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kombu.exceptions import OperationalError

from .celery_app import find_celery_app
from .connections import connection_with_timeout


def queue_depths(names: Iterable[str], timeout: float) -> dict[str, int]:
    """How many tasks wait in each of these queues; what a worker has fetched already is not counted.

    Args:
        names: of the queues; one that does not exist has no task.
        timeout: seconds after which the broker counts as away.

    Raises:
        kombu.exceptions.OperationalError: the broker cannot be reached.
        django.core.exceptions.ImproperlyConfigured: the host has no Celery app.
    """
    connection: Any = connection_with_timeout(find_celery_app(), timeout)
    try:
        # It connects by the transport options; channel() would try a broker that refuses once more after two seconds.
        _ = connection.default_channel
        return {name: _depth(connection, name) for name in names}
    except (*connection.connection_errors, OSError) as error:
        raise OperationalError(str(error)) from error
    finally:
        connection.release()


def _depth(connection: Any, name: str) -> int:
    # A channel is closed by asking for a queue that does not exist.
    with connection.channel() as channel:
        try:
            return int(channel.queue_declare(name, passive=True).message_count)
        except connection.channel_errors:
            return 0
