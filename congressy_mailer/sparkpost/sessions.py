"""HTTP sessions that are kept from call to call, and the deadline of a call, its answer included.

The timeouts of ``requests`` are those of a single read. A server that says one byte at a time would keep a call going
without end, and the claims on its mails would run out meanwhile.
"""

from __future__ import annotations

import os
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool


class _ThreadLocal(threading.local):
    """The HTTP session of one thread, whose connections are kept for its next call, and when its call must be over."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._session = requests.Session()
        self._session.mount("https://", _Adapter())
        self._pid = os.getpid()
        #: By :func:`time.monotonic`; ``None``: no call is being made.
        self.ends_at: float | None = None

    @property
    def session(self) -> requests.Session:
        """A session of this process: after a fork both processes would write to the same connections."""
        if self._pid != os.getpid():
            # The other process's is not closed: its connections are still in use there.
            self._begin()
        return self._session


class _Socket(ssl.SSLSocket):
    """A socket that neither sends nor reads anything once the deadline of its thread's call is over."""

    def send(self, data: Any, flags: int = 0) -> int:
        self._shorten_timeout()
        return super().send(data, flags)

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        self._shorten_timeout()
        return super().recv_into(buffer, nbytes, flags)

    def _shorten_timeout(self) -> None:
        if _thread_local.ends_at is None:
            return
        left = _thread_local.ends_at - time.monotonic()
        if left <= 0:
            raise TimeoutError("The call took too long.")
        timeout = self.gettimeout()
        # urllib3 sets the whole one again for the next request.
        if timeout is None or timeout > left:
            self.settimeout(left)


class _Connection(HTTPSConnection):
    """A connection over the socket above."""

    def connect(self) -> None:
        # Of its own, without authorities: urllib3 loads those that are to be trusted.
        self.ssl_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.ssl_context.sslsocket_class = _Socket
        super().connect()


class _ConnectionPool(HTTPSConnectionPool):
    ConnectionCls = _Connection


class _Adapter(HTTPAdapter):
    """Connections as above, whether or not there is a proxy in between."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)  # type: ignore[no-untyped-call]
        self.poolmanager.pool_classes_by_scheme = {"https": _ConnectionPool}

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*args, **options)  # type: ignore[no-untyped-call]
        manager.pool_classes_by_scheme = {"https": _ConnectionPool}
        return manager


_thread_local = _ThreadLocal()


@contextmanager
def session_for_call(seconds: float) -> Iterator[requests.Session]:
    """This thread's session, for one call.

    Args:
        seconds: after which nothing more is sent, nor read.
    """
    session = _thread_local.session
    _thread_local.ends_at = time.monotonic() + seconds
    try:
        yield session
    finally:
        _thread_local.ends_at = None
