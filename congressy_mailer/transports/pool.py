"""The transport for a mail backend; an SMTP connection stays open between the tasks of a thread."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from contextvars import ContextVar
from hashlib import blake2b
from typing import Any, cast

from celery.signals import worker_process_shutdown
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.smtp import EmailBackend

from ..exceptions import SparkPostError, TransportUnavailable
from ..sparkpost.backend import EmailBackend as SparkPostBackend
from ..sparkpost.client import Client
from ..sparkpost.transmissions import MAX_RECIPIENTS
from ..throttling import connections_per_task
from .base import Transport
from .django_backend import DjangoTransport
from .host_backends import open_backend
from .redirecting import RedirectingTransport, configured_redirect
from .smtp.transport import SmtpTransport, sends_as_django_does
from .sparkpost import SparkPostTransport

# What a backend keeps while it works, other than how it was configured.
_WORKING_STATE = {"connection", "_partial_connection", "_lock", "ssl_context"}


@contextmanager
def transport_for(using: str) -> Iterator[Transport]:
    """The transport for an alias, for the length of a ``with`` block.

    Args:
        using: as in :func:`.host_backends.open_backend`.

    Raises:
        TransportUnavailable: there is no such alias, or its backend cannot be made.
    """
    redirect = configured_redirect()
    wrapper = _wrapper.get()
    with _transport_for(using) as found:
        transport = found if redirect is None else RedirectingTransport(found, redirect)
        yield transport if wrapper is None else wrapper(transport)


_wrapper: ContextVar[Callable[[Transport], Transport] | None] = ContextVar("congressy_mailer_wrapper", default=None)


@contextmanager
def wrapping_transports(wrapper: Callable[[Transport], Transport]) -> Iterator[None]:
    """Have each transport that is asked for within this block wrapped: a test's, which places answers before it."""
    token = _wrapper.set(wrapper)
    try:
        yield
    finally:
        _wrapper.reset(token)


@contextmanager
def _transport_for(using: str) -> Iterator[Transport]:
    backend = open_backend(using)
    if sends_as_django_does(backend):
        yield _thread.pool.transport(using, cast(EmailBackend, backend))
    elif type(backend) is SparkPostBackend:
        yield SparkPostTransport(_client(backend), using, most=connections_per_task())
    else:
        with closing(DjangoTransport(backend)) as transport:
            yield transport


def _client(backend: SparkPostBackend) -> Client:
    try:
        return backend.client()
    except SparkPostError as error:
        problem = str(error)
    raise TransportUnavailable(problem)


def max_mails_per_call(using: str) -> int:
    """How many mails of a batch the backend takes at once; 1 where each goes by itself, or it cannot be made.

    Args:
        using: as in :func:`.host_backends.open_backend`.
    """
    try:
        backend = open_backend(using)
    except TransportUnavailable:
        return 1
    return MAX_RECIPIENTS if type(backend) is SparkPostBackend else 1


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


@worker_process_shutdown.connect(dispatch_uid="congressy_mailer.transports")
def close_connections(**kwargs: Any) -> None:
    """Say goodbye when a worker process ends: it ends without what Python does at its end."""
    _thread.pool.close()


def _configuration(backend: BaseEmailBackend) -> object:
    """What tells one configuration from another, and not the password that is part of it."""
    values = {name: value for name, value in vars(backend).items() if name not in _WORKING_STATE}
    return type(backend), blake2b(repr(sorted(values.items())).encode(errors="backslashreplace")).digest()
