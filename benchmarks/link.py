"""A long way to a server: a TCP relay that passes everything on later, in order, and at any rate.

It counts round trips as well, and tells when single mails were accepted.
"""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import suppress

from .loop import LoopThread

_READ = 256 * 1024
#: What may be on its way in one direction; there is to be no limit that anybody meets.
_MAX_BYTES_IN_FLIGHT = 64 * 1024 * 1024


class Watch:
    """Times at which the mails were accepted that hold a mark; it can see them where there is no TLS."""

    def __init__(self, mark: bytes) -> None:
        """Look for a mark.

        Args:
            mark: what comes before the number of a mail, in its content only; after it, digits and a ``-``.
        """
        self._mark = re.compile(re.escape(mark) + rb"(\d+)-")
        #: Number of the mail → when the server said yes, as ``time.monotonic()`` has it.
        self.accepted: dict[int, float] = {}

    def numbers_in(self, data: bytes) -> set[int]:
        return {int(number) for number in self._mark.findall(data)}

    def accept(self, numbers: set[int]) -> None:
        now = time.monotonic()
        for number in numbers:
            self.accepted.setdefault(number, now)


class Link(LoopThread):
    """The relay, on a free port; a thread of its own runs it from entry to exit of the context."""

    def __init__(self, port: int, round_trip: float = 0.0, watch: Watch | None = None) -> None:
        """Prepare it.

        Args:
            port: where the server listens.
            round_trip: seconds to the server and back; may be changed while it runs.
            watch: told of what the clients send.
        """
        super().__init__()
        self._server_port = port
        self.round_trip = round_trip
        self._watch = watch
        #: How often a client has begun to speak, as the first or after the server: on one connection at a time, that
        #: is the number of its round trips.
        self.turns = 0
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        # The client believes to be connected. Over a real way that takes one round trip, and what the server says
        # first comes another half of one after the last part of the handshake.
        await asyncio.sleep(1.5 * self.round_trip)
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port, limit=_READ)
        except OSError:
            writer.close()
            return
        self.keep(server_writer)
        observer = _ConnectionObserver(self, self._watch)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(reader, server_writer, observer, from_client=True))
                both.create_task(self._carry(server_reader, writer, observer, from_client=False))
        finally:
            for side in (writer, server_writer):
                side.close()

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        observer: _ConnectionObserver,
        *,
        from_client: bool,
    ) -> None:
        """Read at once, and write what was read in the same order, each part half a round trip later."""
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        room = asyncio.Semaphore(_MAX_BYTES_IN_FLIGHT // _READ)
        delivery = asyncio.create_task(self._deliver(on_the_way, room, writer))
        try:
            while True:
                data = b""
                with suppress(OSError):
                    data = await reader.read(_READ)
                due = time.monotonic() + self.round_trip / 2
                if data:
                    observer.observe(data, from_client=from_client)
                await room.acquire()
                on_the_way.put_nowait((due, data))
                if not data:
                    await delivery
                    return
        finally:
            delivery.cancel()

    async def _deliver(
        self, on_the_way: asyncio.Queue[tuple[float, bytes]], room: asyncio.Semaphore, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            due, data = await on_the_way.get()
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            room.release()
            with suppress(OSError):
                if not data:
                    writer.write_eof()
                    return
                writer.write(data)
                await writer.drain()


class _ConnectionObserver:
    """What has been seen of one connection."""

    #: What of a mark may have come before.
    _OVERLAP = 64

    def __init__(self, link: Link, watch: Watch | None) -> None:
        self._link = link
        self._watch = watch
        self._client_speaks = False
        self._seen: set[int] = set()
        self._end = b""

    def observe(self, data: bytes, *, from_client: bool) -> None:
        if from_client and not self._client_speaks:
            self._link.turns += 1
        self._client_speaks = from_client
        if self._watch is None:
            return
        if from_client:
            data = self._end + data
            self._seen |= self._watch.numbers_in(data)
            self._end = data[-self._OVERLAP :]
        elif self._seen:
            # Content is sent once all has been read that was said before; so this is said of it.
            self._watch.accept(self._seen)
            self._seen = set()
            self._end = b""
