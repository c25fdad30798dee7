"""A small server of the benchmark's own, in a thread that ends with it."""

from __future__ import annotations

import asyncio
import socket
import threading
from abc import ABC, abstractmethod

from congressy_mailer.testing.local_sparkpost.startable import Startable


class LoopThread(Startable, ABC):
    """Listens on a free port of the loopback, and serves each connection in an event loop of its own."""

    #: Of what is read at once.
    limit = 256 * 1024

    def __init__(self) -> None:
        self.port = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._end: asyncio.Event | None = None
        #: With their sockets, which a writer over TLS knows no more once it is closed.
        self._open: list[tuple[asyncio.StreamWriter, socket.socket]] = []
        self._serving: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its beginning to its end."""

    def keep(self, writer: asyncio.StreamWriter) -> None:
        """Have a connection be cut at the end; those that clients open are."""
        still_open = [one for one in self._open if one[1].fileno() >= 0]
        self._open = [*still_open, (writer, writer.get_extra_info("socket"))]

    def start(self) -> None:
        """Listen."""
        listening = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(listening)), daemon=True)
        self._thread.start()
        listening.wait()

    def close(self) -> None:
        """Stop listening, and cut all connections."""
        if self._thread is not None and self._loop is not None and self._end is not None:
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join(10)

    async def _run(self, listening: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        # What this runs into is the end of a connection, which both sides notice by themselves.
        self._loop.set_exception_handler(lambda loop, context: None)
        taken = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = taken.getsockname()[1]
        server = await asyncio.start_server(self._accept, sock=taken, limit=self.limit)
        listening.set()
        await self._end.wait()
        server.close()
        serving = asyncio.all_tasks() - {asyncio.current_task()}
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        for writer, _ in self._open:
            writer.transport.abort()
        # In which the transports hear of it: Python warns of one that is dropped before.
        for _ in range(3):
            await asyncio.sleep(0)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Here, since a task that is cancelled before it has begun would know nothing of its connection.
        self.keep(writer)
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own = writer.get_extra_info("socket")
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await self.serve(reader, writer)
        except (OSError, EOFError, asyncio.LimitOverrunError, ExceptionGroup):
            # A side is gone.
            pass
        finally:
            writer.close()
