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


class _Deadline(threading.local):
    """When the call of a thread must be over."""

    #: By :func:`time.monotonic`; ``None``: no call is being made.
    ends_at: float | None = None


class _Socket(ssl.SSLSocket):
    """A socket that neither sends nor reads anything once the deadline of its thread's call is over."""

    def send(self, data: Any, flags: int = 0) -> int:
        self._shorten_timeout()
        return super().send(data, flags)

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        self._shorten_timeout()
        return super().recv_into(buffer, nbytes, flags)

    def _shorten_timeout(self) -> None:
        if _deadline.ends_at is None:
            return
        left = _deadline.ends_at - time.monotonic()
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
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = {"https": _ConnectionPool}

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*args, **options)
        manager.pool_classes_by_scheme = {"https": _ConnectionPool}
        return manager


_deadline = _Deadline()

#: Sessions that no call uses, the last one used at the end: so there are no more connections than calls at a time.
_idle: list[requests.Session] = []


@contextmanager
def session_for_call(seconds: float) -> Iterator[requests.Session]:
    """A session for one call.

    Args:
        seconds: after which nothing more is sent, nor read.
    """
    try:
        session = _idle.pop()
    except IndexError:
        session = requests.Session()
        session.mount("https://", _Adapter())
    _deadline.ends_at = time.monotonic() + seconds
    try:
        yield session
    finally:
        _deadline.ends_at = None
        _idle.append(session)


# After a fork both processes would write to the same connections, which stay open: they are the other one's.
os.register_at_fork(after_in_child=_idle.clear)
