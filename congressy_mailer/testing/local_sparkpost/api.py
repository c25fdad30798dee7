"""SparkPost's HTTP API on 127.0.0.1, over HTTPS."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from .answers import Answer, ApiScript, Request
from .certificate import Certificate
from .resources import Resources

_BASE = "/api/v1"
# A suppression list may be put in 50 MB at a time, which is the most that SparkPost takes.
_LARGEST_BODY = 50_000_000


class Api:
    """The server: a thread, and one more for each connection."""

    host = "127.0.0.1"

    def __init__(self, resources: Resources, certificate: Certificate, *, port: int = 0) -> None:
        #: May be set and replaced while it runs.
        self.script: ApiScript | None = None
        #: Every request so far, in the order in which they came.
        self.requests: list[Request] = []
        self.port = port
        self._resources = resources
        self._certificate = certificate
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self._open: set[socket.socket] = set()

    @property
    def address(self) -> str:
        """Host and port, as ``SPARKPOST_API_HOST`` wants it."""
        return f"{self.host}:{self.port}"

    def start(self) -> None:
        """Listen. After :meth:`stop` it listens on the same port again."""
        server = ThreadingHTTPServer((self.host, self.port), self._handler())
        server.daemon_threads = True
        server.socket = self._certificate.server_context().wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        # A client that disconnects in the middle is no error of the server.
        server.handle_error = lambda *args: None  # type: ignore[method-assign]
        self.port = server.server_port
        self._server = server
        self._thread = threading.Thread(
            target=server.serve_forever, args=(0.05,), name="local-sparkpost-api", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and cut all connections."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server = self._thread = None
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _answer(self, request: Request) -> Answer | str:
        self.requests.append(request)
        scripted = self.script(request) if self.script else None
        return scripted if scripted is not None else self._resources.answer(request)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def setup(self) -> None:
                api._open.add(self.request)
                super().setup()

            def finish(self) -> None:
                api._open.discard(self.request)
                with suppress(OSError):
                    super().finish()

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:
                    self.close_connection = True

            def answer(self) -> None:
                length = self.headers.get("Content-Length", "0")
                if not length.isdigit() or int(length) > _LARGEST_BODY:
                    self.close_connection = True
                    self.write(Answer(413, {"errors": [{"message": "Request Entity Too Large"}]}))
                    return
                parts = urlsplit(self.path)
                response = api._answer(
                    Request(
                        self.command,
                        parts.path.removeprefix(_BASE) if parts.path.startswith(f"{_BASE}/") else "",
                        dict(parse_qsl(parts.query, keep_blank_values=True)),
                        dict(self.headers),
                        self.rfile.read(int(length)),
                    )
                )
                if isinstance(response, Answer):
                    self.write(response)
                else:
                    self.close_connection = True

            def write(self, answer: Answer) -> None:
                body = b"" if answer.body is None else json.dumps(answer.body).encode()
                self.send_response(answer.status)
                for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                    self.send_header(name, value)
                if answer.status != 204:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            # Their names are http.server's.
            do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:
                """Log nothing: the base class writes to standard error."""

        return Handler
