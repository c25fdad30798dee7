"""An SMTP server that answers exactly what a test tells it to, or says nothing, or hangs up."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

#: Close the connection instead of answering.
DROP = "DROP"


@dataclass
class Session:
    """One connection, as the server saw it."""

    #: Commands in the order they came, without their line ends.
    commands: list[str] = field(default_factory=list)
    #: Contents that came after DATA.
    contents: list[bytes] = field(default_factory=list)


class ScriptedSMTP:
    """A context manager around a server on a free port of the loopback interface.

    Args:
        answer: called with each command, and with ``"."`` for the end of the content; returns the reply without its
            line end, :data:`DROP`, or ``None`` for the usual one.
    """

    def __init__(self, answer: Callable[[str], str | None] = lambda command: None) -> None:
        self.answer = answer
        self.sessions: list[Session] = []
        scripted = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                scripted._serve(self)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> ScriptedSMTP:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def contents(self) -> list[bytes]:
        return [content for session in self.sessions for content in session.contents]

    def _serve(self, handler: socketserver.StreamRequestHandler) -> None:
        session = Session()
        self.sessions.append(session)
        if not self._reply(handler, "CONNECT", "220 scripted"):
            return
        while line := handler.rfile.readline():
            command = line.decode().rstrip("\r\n")
            session.commands.append(command)
            verb = command.split(" ")[0].upper()
            usual = {"EHLO": "250 scripted", "DATA": "354 3.0.0 continue...", "QUIT": "221 2.0.0 bye"}
            if not self._reply(handler, command, usual.get(verb, "250 2.0.0 OK")):
                return
            if verb == "QUIT":
                return
            if verb == "DATA" and self.replied.startswith("354"):
                session.contents.append(self._content(handler))
                if not self._reply(handler, ".", "250 2.0.0 OK 95/6F-30607-EA5D4555"):
                    return

    def _reply(self, handler: socketserver.StreamRequestHandler, command: str, usual: str) -> bool:
        self.replied = self.answer(command) or usual
        if self.replied == DROP:
            return False
        handler.wfile.write(self.replied.encode() + b"\r\n")
        return not self.replied.startswith("421")

    @staticmethod
    def _content(handler: socketserver.StreamRequestHandler) -> bytes:
        lines = []
        while (line := handler.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line[1:] if line.startswith(b"..") else line)
        return b"".join(lines)
