"""The SMTP transports of a thread, whose connections stay open between its tasks.

How many connections one of them has is decided in :mod:`.smtp.connections`; which transport a mail backend has, in
:mod:`.selection`.
"""

from __future__ import annotations

import threading
import weakref
from hashlib import blake2b
from typing import Any, cast

from celery.signals import worker_process_shutdown
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.smtp import EmailBackend

from ..throttling import connections_per_task
from .host_backends import open_backend
from .smtp.transport import SmtpTransport

# What a backend keeps while it works, other than how it was configured.
_WORKING_STATE = {"connection", "_partial_connection", "_lock", "ssl_context"}


def _close_all(transports: dict[str, tuple[object, SmtpTransport]]) -> None:
    while transports:
        _, (_, transport) = transports.popitem()
        transport.close()


class _ConnectionPool:
    """The SMTP transports of one thread, by alias."""

    def __init__(self) -> None:
        self._transports: dict[str, tuple[object, SmtpTransport]] = {}
        # The connection belongs to this thread only: it is closed when the thread ends, or the process.
        weakref.finalize(self, _close_all, self._transports)

    def transport(self, using: str, backend: EmailBackend) -> SmtpTransport:
        """The one with that alias, unless it is configured otherwise by now."""
        configuration = _configuration(backend)
        known_configuration, transport = self._transports.get(using, (None, None))
        if transport is None or known_configuration != configuration:
            if transport is not None:
                transport.close()
            transport = SmtpTransport(
                backend, using, most=connections_per_task(), another=lambda: cast(EmailBackend, open_backend(using))
            )
            self._transports[using] = (configuration, transport)
        return transport

    def close(self) -> None:
        """Close all connections."""
        _close_all(self._transports)


class _ThreadPool(threading.local):
    def __init__(self) -> None:
        self.pool = _ConnectionPool()


_thread = _ThreadPool()


def pooled_transport(using: str, backend: EmailBackend) -> SmtpTransport:
    """This thread's transport for an alias; its connection may be open.

    Args:
        using: the alias.
        backend: as it is configured now.
    """
    return _thread.pool.transport(using, backend)


@worker_process_shutdown.connect(dispatch_uid="congressy_mailer.transports")
def close_connections(**kwargs: Any) -> None:
    """Say goodbye when a worker process ends: it ends without what Python does at its end."""
    _thread.pool.close()


def _configuration(backend: BaseEmailBackend) -> object:
    """What tells one configuration from another, and not the password that is part of it."""
    values = {name: value for name, value in vars(backend).items() if name not in _WORKING_STATE}
    return type(backend), blake2b(repr(sorted(values.items())).encode(errors="backslashreplace")).digest()
