"""Which transport a mail backend has: pipelined SMTP, SparkPost's HTTP API, or the backend's own way of sending."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from contextvars import ContextVar
from typing import cast

from django.core.mail.backends.smtp import EmailBackend

from ..exceptions import SparkPostError, TransportUnavailable
from ..sparkpost.backend import EmailBackend as SparkPostBackend
from ..sparkpost.client import Client
from ..sparkpost.transmissions import MAX_RECIPIENTS
from ..throttling import connections_per_task
from .base import Transport
from .django_backend import DjangoTransport
from .host_backends import open_backend
from .pool import pooled_transport
from .redirecting import RedirectingTransport, configured_redirect
from .smtp.transport import sends_as_django_does
from .sparkpost.transport import SparkPostTransport


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
        yield pooled_transport(using, cast(EmailBackend, backend))
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
