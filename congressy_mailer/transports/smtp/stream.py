"""Bytes to and replies from an SMTP server, over a socket that was opened elsewhere, with TLS or without.

Nothing here waits. What would have to is a generator that yields a :class:`Wait`, and is resumed by whoever waits for
several sessions at once: with true when what it waits for has come, with false when the time is over.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from ...replies import Reply, error_text
from .reply_parser import InvalidReply, ReplyParser

# How much is handed to the socket at once, and read from it.
_CHUNK = 64 * 1024

_PARTIAL_REPLY = Reply(None, "The server has begun to say something unsolicited.")


@dataclass(frozen=True, slots=True)
class Wait:
    """What a generator waits for."""

    #: Of :func:`select.poll`.
    events: int
    #: By :func:`time.monotonic`, when its time is over; ``None``: never.
    until: float | None


_T = TypeVar("_T")

#: Something that goes on while others do, and what comes of it.
Flow: TypeAlias = Generator[Wait, bool, _T]


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
        self.socket = sock
        # As the backend has set it, in seconds; so long may the server be silent, or take nothing.
        self._timeout = sock.gettimeout()
        self._replies = ReplyParser()
        self._end: Reply | None = None
        #: Bytes of the last :meth:`write` that have left this process.
        self.bytes_written = 0
        with suppress(OSError):
            # Otherwise the last part of a content may wait for the acknowledgement of the part before (RFC 896).
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(0)

    @property
    def ended(self) -> bool:
        """The connection can no longer be used."""
        return self._end is not None

    def end(self, reason: Reply) -> None:
        """Regard the connection as lost; input that was not read yet is dropped."""
        self._end = reason
        self._replies = ReplyParser()

    def unsolicited_reply(self) -> Reply | None:
        """What has come although nothing was asked, such as that the server closes; ``None``, as it should be."""
        try:
            self._receive()
            return self._replies.next() or self._end or (None if self._replies.empty else _PARTIAL_REPLY)
        except InvalidReply as error:
            return Reply(None, str(error))

    def write(self, *parts: bytes) -> Flow[None]:
        """Hand over all of it, as far as the connection lasts."""
        self.bytes_written = 0
        try:
            before = 0
            for part in parts:
                view = memoryview(part)
                while self.bytes_written < before + len(view) and not self.ended:
                    yield from self._write_some(view[self.bytes_written - before :])
                before += len(view)
        except TimeoutError:
            self._mark_ended("The server took nothing in time.")
        except OSError:
            # What the server said before is still to be read; reading finds the end by itself.
            return

    def _write_some(self, view: memoryview) -> Flow[None]:
        try:
            self.bytes_written += self.socket.send(view[:_CHUNK])
        except ssl.SSLWantReadError:
            yield from self._wait(select.POLLIN)
        except (BlockingIOError, ssl.SSLWantWriteError):
            # The server may take nothing more before we have taken what it says.
            self._receive()
            if not self.ended:
                yield from self._wait(select.POLLIN | select.POLLOUT)

    def _wait(self, events: int) -> Flow[None]:
        until = None if self._timeout is None else time.monotonic() + self._timeout
        if not (yield Wait(events, until)):
            raise TimeoutError

    def read(self, patience: float | None = None) -> Flow[Reply]:
        """The next reply. A server that says it a byte at a time is not waited for without end.

        Args:
            patience: seconds that it may take, where that is less than the backend's timeout.

        Raises:
            ConnectionLost: there is none, or not all of it within the timeout.
        """
        timeouts = [seconds for seconds in (self._timeout, patience) if seconds is not None]
        until = time.monotonic() + min(timeouts) if timeouts else None
        try:
            while (reply := self._replies.next()) is None:
                if self._end is not None:
                    raise ConnectionLost(self._end)
                if not self._receive() and not self.ended and not (yield Wait(select.POLLIN, until)):
                    silent = self._replies.empty
                    did = "said nothing" if silent else "did not come to the end of its reply"
                    self._mark_ended(f"The server {did} in time.")
        except InvalidReply as error:
            self.end(Reply(None, str(error)))
            raise ConnectionLost(Reply(None, str(error))) from error
        return reply

    def _receive(self) -> bool:
        """Take in what there is; returns whether there was something."""
        try:
            data = self.socket.recv(_CHUNK)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError as error:
            self._mark_ended(f"The connection was lost: {error_text(error)}")
            return False
        if data:
            self._replies.feed(data)
        else:
            self._mark_ended("The server closed the connection.")
        return bool(data)

    def _mark_ended(self, reason: str) -> None:
        """Nothing more will come; what has come is still to be read."""
        self._end = self._end or Reply(None, reason)


def with_end(parts: Sequence[bytes], end: bytes) -> Sequence[bytes]:
    """The same with this behind it, in the last part: what belongs together leaves together."""
    return (*parts[:-1], parts[-1] + end) if parts else (end,)
