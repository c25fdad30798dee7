"""An HTTPS server on a free port whose answers a test gives, for what SparkPost's HTTP API might say."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from congressy_mailer.testing.local_sparkpost.certificate import Certificate


@dataclass(frozen=True)
class Request:
    """What a client asked."""

    method: str
    #: Without what is asked for.
    path: str
    #: What is asked for, by name.
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """What the server says."""

    status: int = 200
    #: Written as JSON unless it is bytes.
    body: Any = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    #: Seconds before each byte of it, that of its headers among them.
    drip: float = 0.0


class _Dripping:
    """Writes to another one byte at a time."""

    def __init__(self, file: Any, pause: float) -> None:
        self._file = file
        self._pause = pause

    def write(self, data: bytes) -> None:
        for position in range(len(data)):
            time.sleep(self._pause)
            self._file.write(data[position : position + 1])

    def flush(self) -> None:
        self._file.flush()


#: Returns the answer to a request; ``None`` hangs up without one. It may wait.
Script = Callable[[Request], Answer | None]


class ScriptedHttps:
    """The server. As a context manager it runs from entry to exit."""

    def __init__(self, certificate: Certificate) -> None:
        #: Every request so far, in the order in which they came.
        self.requests: list[Request] = []
        #: What it answers; may be replaced at any time.
        self.script: Script = lambda request: Answer()
        #: Connections since the start.
        self.connections = 0
        self.open_connections: list[Any] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def setup(self) -> None:
                server.connections += 1
                server.open_connections.append(self.request)
                super().setup()

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:
                    # The client went away.
                    self.close_connection = True

            def answer(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                parts = urlsplit(self.path)
                request = Request(
                    self.command,
                    parts.path,
                    parse_qs(parts.query, keep_blank_values=True),
                    dict(self.headers),
                    self.rfile.read(length),
                )
                server.requests.append(request)
                answer = server.script(request)
                if answer is None:
                    self.close_connection = True
                    return
                if answer.drip:
                    self.wfile = _Dripping(self.wfile, answer.drip)  # type: ignore[assignment]
                body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                self.send_response(answer.status)
                for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                if answer.drip:
                    # Whoever has heard all of it is not kept by this connection.
                    self.close_connection = True

            # Their names are http.server's.
            do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.socket = certificate.server_context().wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self._server.handle_error = lambda *args: None  # type: ignore[method-assign]

    @property
    def host(self) -> str:
        """With its port, as ``SPARKPOST_API_HOST`` wants it."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def cut(self) -> None:
        """Close all connections at once."""
        for connection in self.open_connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self.open_connections.clear()

    def __enter__(self) -> ScriptedHttps:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self.cut()
