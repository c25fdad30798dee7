"""Connections of our own to the broker, so that their timeouts are ours and the host's settings stay as they are."""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu import Connection

from ..credentials import remember, remember_urls


def driver(app: Celery) -> str:
    """What kind of broker the host has, as kombu names it: ``"redis"``, ``"amqp"``, …"""
    return str(app.connection_for_write().get_transport_cls().driver_type)


def connection_with_timeout(app: Celery, timeout: float, **options: Any) -> Connection:
    """A new connection that is not opened yet.

    Args:
        app: the host's.
        timeout: seconds. Each wait on the connection ends after so long, and connecting to all addresses of a list
            together.
        options: further transport options.
    """
    remember_urls(app.conf.broker_url, app.conf.broker_write_url)
    host_connection = app.connection_for_write()
    remember(host_connection.password)
    addresses = max(len(host_connection.alt), 1)
    configured: dict[str, Any] = host_connection.transport_options or {}
    kind = driver(app)
    # Sentinel's addresses are tried by redis-py, the others by kombu, which without max_retries would go on and on.
    sentinel = kind == "redis" and "master_name" in configured
    if not sentinel:
        timeout /= addresses
    options |= {"max_retries": 0 if sentinel else addresses - 1, "connect_retries_timeout": None}
    if kind == "redis":
        options |= {"socket_timeout": timeout, "socket_connect_timeout": timeout, "retry_on_timeout": False}
    elif kind == "amqp":
        options |= {"read_timeout": timeout, "write_timeout": timeout, "confirm_publish": True}
    if sentinel:
        options["sentinel_kwargs"] = {
            **(configured.get("sentinel_kwargs") or {}),
            **_sentinel_timeouts(timeout / addresses),
        }
    return app.connection_for_write(connect_timeout=timeout, transport_options=options)


def _sentinel_timeouts(timeout: float) -> dict[str, Any]:
    """By default redis-py asks each Sentinel again and again, for ten seconds and more."""
    # Imported already where this is called, and not needed with other brokers.
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return {"socket_timeout": timeout, "socket_connect_timeout": timeout, "retry": Retry(NoBackoff(), 0)}
