"""A TCP relay between a client and a server, which counts whose turn it is to speak."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from types import TracebackType


class Relay:
    """Passes on what comes from one side to the other, unread."""

    def __init__(self, port: int) -> None:
        """Listen.

        Args:
            port: where the server listens.
        """
        self._server_port = port
        #: How often the client has begun to speak, as the first or after the server: on one connection that is the
        #: number of its round trips.
        self.turns = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wake.close()
        self._thread.join(10)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector, self._listener, self._woken, contextlib.ExitStack() as pairs:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            peers: dict[socket.socket, tuple[socket.socket, bool]] = {}
            clients_turn = False
            while True:
                # With one connection at a time, the order of arrival is the order of speaking.
                for key, _ in selector.select():
                    ready = key.fileobj
                    if ready is self._woken:
                        return
                    if ready is self._listener:
                        client = pairs.enter_context(self._listener.accept()[0])
                        server = pairs.enter_context(socket.create_connection(("127.0.0.1", self._server_port)))
                        for side, peer, is_client in ((client, server, True), (server, client, False)):
                            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                            peers[side] = (peer, is_client)
                            selector.register(side, selectors.EVENT_READ)
                        continue
                    assert isinstance(ready, socket.socket)
                    peer, is_client = peers[ready]
                    data = b""
                    with contextlib.suppress(OSError):
                        data = ready.recv(65536)
                    if not data:
                        selector.unregister(ready)
                        with contextlib.suppress(OSError):
                            peer.shutdown(socket.SHUT_WR)
                        continue
                    if is_client and not clients_turn:
                        self.turns += 1
                    clients_turn = is_client
                    with contextlib.suppress(OSError):
                        peer.sendall(data)
