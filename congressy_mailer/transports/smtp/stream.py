"""Bytes to and replies from an SMTP server, over a socket that was opened elsewhere, with TLS or without."""

from __future__ import annotations

import select
import selectors
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress

from ...replies import Reply, error_text
from ..base import no_op
from .replies import InvalidReply, ReplyParser

# How much is handed to the socket at once, and read from it.
_CHUNK = 64 * 1024

_READ = selectors.EVENT_READ
_READ_OR_WRITE = selectors.EVENT_READ | selectors.EVENT_WRITE

#: Seconds after which a server counts as one that takes longer than usual.
_USUAL_WAIT = 0.02

_PARTIAL_REPLY = Reply(None, "The server has begun to say something unsolicited.")


class ConnectionLost(Exception):
    """No reply is to be had any more. ``reply`` stands in its place: the server's last word, or what happened."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class Stream:
    """Writes without ever waiting for a server that waits for us: replies are taken in meanwhile.

    Once the connection has come to an end, writing does nothing, and reading gives what had been said before it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        # As the backend has set it, in seconds; so long may the server be silent, or take nothing.
        self._timeout = sock.gettimeout()
        self._replies = ReplyParser()
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._end: Reply | None = None
        #: Bytes of the last :meth:`write` that have left this process.
        self.bytes_written = 0
        #: Called before the server is waited for any longer than it usually takes to answer.
        self.before_waiting: Callable[[], None] = no_op
        with suppress(OSError):
            # Otherwise the last part of a content may wait for the acknowledgement of the part before (RFC 896).
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def ended(self) -> bool:
        """The connection can no longer be used."""
        return self._end is not None

    def end(self, reason: Reply) -> None:
        """Regard the connection as lost, whatever else may have come from it."""
        self._end = reason
        self._replies = ReplyParser()

    def unsolicited_reply(self) -> Reply | None:
        """What has come although nothing was asked, such as that the server closes; ``None``, as it should be."""
        self._socket.settimeout(0)
        try:
            self._receive()
            return self._replies.next() or self._end or (None if self._replies.empty else _PARTIAL_REPLY)
        except InvalidReply as error:
            return Reply(None, str(error))
        finally:
            self._socket.settimeout(self._timeout)

    def write(self, data: bytes) -> None:
        """Hand over all of it, as far as the connection lasts."""
        self.bytes_written = 0
        view = memoryview(data)
        self._socket.settimeout(0)
        try:
            while self.bytes_written < len(view) and not self.ended:
                self._write_some(view)
        except TimeoutError:
            self._mark_ended("The server took nothing in time.")
        except OSError:
            # What the server said before is still to be read; reading finds the end by itself.
            return
        finally:
            self._socket.settimeout(self._timeout)

    def _write_some(self, view: memoryview) -> None:
        try:
            self.bytes_written += self._socket.send(view[self.bytes_written : self.bytes_written + _CHUNK])
        except ssl.SSLWantReadError:
            self._wait(_READ)
        except (BlockingIOError, ssl.SSLWantWriteError):
            # The server may take nothing more before we have taken what it says.
            self._receive()
            if not self.ended:
                self._wait(_READ_OR_WRITE)

    def _wait(self, events: int) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, events)
            if not selector.select(_USUAL_WAIT):
                self.before_waiting()
            if not selector.select(self._timeout):
                raise TimeoutError

    def read(self) -> Reply:
        """The next reply.

        Raises:
            ConnectionLost: there is none, or not all of it within the timeout.
        """
        began = time.monotonic()
        try:
            while (reply := self._replies.next()) is None:
                if self._end is not None:
                    raise ConnectionLost(self._end)
                self._receive_within_timeout(began)
        except InvalidReply as error:
            self.end(Reply(None, str(error)))
            raise ConnectionLost(Reply(None, str(error))) from error
        finally:
            with suppress(OSError):
                self._socket.settimeout(self._timeout)
        return reply

    def _receive_within_timeout(self, began: float) -> None:
        """Take in more of a reply. A server that says it a byte at a time is not waited for without end."""
        if not self._has_data():
            self.before_waiting()
        if self._timeout is not None:
            remaining = began + self._timeout - time.monotonic()
            if remaining <= 0:
                self._mark_ended("The server did not come to the end of its reply in time.")
                return
            self._socket.settimeout(remaining)
        self._receive()

    def _has_data(self) -> bool:
        """Whether there is something to take in, or soon will be."""
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return True
        return bool(self._poll.poll(_USUAL_WAIT * 1000))

    def _receive(self) -> None:
        """Take in what there is; wait for it, if the socket does."""
        try:
            data = self._socket.recv(_CHUNK)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except TimeoutError:
            self._mark_ended("The server said nothing in time.")
        except OSError as error:
            self._mark_ended(f"The connection was lost: {error_text(error)}")
        else:
            if data:
                self._replies.feed(data)
            else:
                self._mark_ended("The server closed the connection.")

    def _mark_ended(self, reason: str) -> None:
        """Nothing more will come; what has come is still to be read."""
        self._end = self._end or Reply(None, reason)
