"""An SMTP server that answers as a script says, over plain TCP, and keeps the truth about what it took."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from celery.signals import worker_process_shutdown


@dataclass(frozen=True)
class Step:
    """One answer of the server."""

    #: The reply without its line end; empty: yes, whatever that is at the time.
    reply: str = ""
    #: Hang up after so many bytes of the reply, line end included; ``None``: all of it is sent.
    cut: int | None = None
    #: In answer to a content: said when some of it has come, and does.
    early: bool = False
    #: In answer to a content: said before any of it has come, and the connection is closed.
    unasked: bool = False
    #: Goes on after 421 as if nothing had been said.
    stays_open: bool = False


YES = Step()


@dataclass
class ReceivedContent:
    """A content that has come in whole."""

    key: str
    recipients: tuple[str, ...]
    #: The server took it.
    accepted: bool
    #: The server has said whether it took it, in a whole reply that means something.
    answered: bool
    content: bytes = field(repr=False, default=b"")


class ConnectionOver(Exception):
    """The connection is over."""


class ScriptedServer:
    """Serves one connection after the other, from the first step of the script on; when it is used up, says yes."""

    def __init__(
        self,
        steps: Sequence[Step] = (),
        *,
        extensions: Sequence[str] = ("PIPELINING", "8BITMIME"),
        input_limits: Sequence[int | None] = (),
        data_without_recipients: bool = True,
        buffers: int = 0,
        yes: str = "yes",
        behind_content: str | None = None,
        pace: float = 0.0,
    ) -> None:
        """Listen.

        Args:
            steps: one for each answer after EHLO.
            extensions: for the reply to EHLO.
            input_limits: for each connection, after how many bytes from the client to hang up.
            data_without_recipients: DATA is answered as if there were some (RFC 2920 §3.1 allows it).
            buffers: bytes that fit between client and server before one waits for the other to read; 0: usual.
            yes: what a yes says.
            behind_content: what each command that came in one group with the end of a content is answered with; empty:
                such commands are thrown away; ``None``: they are commands like any other.
            pace: seconds that it takes for each recipient.
        """
        self._buffers = buffers
        self._yes = yes
        self._behind_content = behind_content
        self._pace = pace
        self.follow(steps)
        self._extensions = extensions
        self._limits = iter(input_limits)
        self._data_without_recipients = data_without_recipients
        self.received: list[ReceivedContent] = []
        #: What a client must never do.
        self.violations: list[str] = []
        self.commands: list[str] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def follow(self, steps: Sequence[Step]) -> None:
        """Answer by another script from here on."""
        self._steps = iter(steps)

    def close(self) -> None:
        """Stop, once the client is gone."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with client:
                client.settimeout(10)
                if self._buffers:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._buffers)
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffers)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with contextlib.suppress(ConnectionOver, OSError):
                    _Connection(self, client, next(self._limits, None)).serve()


class _Connection:
    def __init__(self, server: ScriptedServer, client: socket.socket, limit: int | None) -> None:
        self._server = server
        self._client = client
        self._remaining_bytes = limit
        self._unread = bytearray()
        self._sender: str | None = None
        self._recipients: list[str] = []

    def serve(self) -> None:
        self._client.sendall(b"220 scripted\r\n")
        while True:
            command = self._until(b"\r\n").decode()
            self._server.commands.append(command)
            verb = command.split(maxsplit=1)[0].upper() if command.strip() else ""
            if verb == "EHLO":
                lines = ["scripted", *self._server._extensions]
                self._client.sendall(
                    b"".join(
                        f"250{'-' if n < len(lines) else ' '}{line}\r\n".encode() for n, line in enumerate(lines, 1)
                    )
                )
            elif verb == "QUIT":
                self._client.sendall(b"221 bye\r\n")
                raise ConnectionOver
            elif verb in ("MAIL", "RCPT", "DATA", "RSET"):
                getattr(self, f"_{verb.lower()}")(command)
            else:
                self._server.violations.append(f"unknown command {command[:50]!r}")
                raise ConnectionOver

    def _mail(self, command: str) -> None:
        if self._sender is not None:
            self._server.violations.append("MAIL within a transaction")
        if self._answer(250):
            self._sender = command
            self._recipients = []

    def _rcpt(self, command: str) -> None:
        if self._sender is None:
            self._client.sendall(b"503 MAIL first\r\n")
            return
        time.sleep(self._server._pace)
        if self._answer(250):
            self._recipients.append(command.partition("<")[2].partition(">")[0])

    def _data(self, command: str) -> None:
        if self._unread:
            self._server.violations.append(f"{bytes(self._unread[:50])!r} before the reply to DATA")
        if not self._recipients and not self._server._data_without_recipients:
            self._client.sendall(b"503 RCPT first\r\n")
        else:
            step = next(self._server._steps, YES)
            if step.reply and step.reply[0] != "3":
                self._say(step, 354)
            else:
                self._take_content(step)

    def _rset(self, command: str) -> None:
        # RFC 5321 §4.1.1.5: there is no refusing it, whatever is said.
        self._sender = None
        self._answer(250)

    def _take_content(self, invitation: Step) -> None:
        step = next(self._server._steps, YES)
        if step.unasked:
            # In one piece: a client that reads the first reply alone sends its content, and the second one is about it.
            self._client.sendall(f"{invitation.reply or f'354 {self._server._yes}'}\r\n{step.reply}\r\n".encode())
            raise ConnectionOver
        self._say(invitation, 354)
        if step.early:
            self._unread += self._client.recv(1000)
            self._say(step, 250)
        # With a line break put before it, an empty content ends like any other.
        self._unread[:0] = b"\r\n"
        content = self._until(b"\r\n.\r\n").replace(b"\r\n.", b"\r\n")[2:] + b"\r\n"
        # Garbage in answer to a mail that was taken is the worst of it.
        accepted = not re.match(r"[45]\d\d\b", step.reply)
        answered = step.cut is None and bool(re.match(r"$|[245]\d\d( |$)", step.reply)) and "\n" not in step.reply
        found = re.search(rb"(?mi)^Message-ID: <(.*?)@", content)
        received = ReceivedContent(
            found[1].decode() if found else "", tuple(self._recipients), accepted, answered, content
        )
        self._server.received.append(received)
        self._sender = None
        if not step.early:
            self._say(step, 250)
        if self._server._behind_content is not None:
            behind = bytes(self._unread).count(b"\r\n")
            self._unread.clear()
            if self._server._behind_content:
                self._client.sendall(f"{self._server._behind_content}\r\n".encode() * behind)

    def _answer(self, yes: int) -> bool:
        """Answer a command as the script says; whether that has the command's effect."""
        step = next(self._server._steps, YES)
        self._say(step, yes)
        return not step.reply or step.reply[0] == str(yes)[0]

    def _say(self, step: Step, yes: int) -> None:
        reply = (step.reply or f"{yes} {self._server._yes}").encode() + b"\r\n"
        self._client.sendall(reply if step.cut is None else reply[: min(step.cut, len(reply) - 1)])
        if step.cut is not None or (reply.startswith(b"421") and not step.stays_open):
            raise ConnectionOver

    def _until(self, end: bytes) -> bytes:
        searched = 0
        while (found := self._unread.find(end, searched)) < 0:
            if self._remaining_bytes == 0:
                raise ConnectionOver
            data = self._client.recv(65536 if self._remaining_bytes is None else min(self._remaining_bytes, 65536))
            if not data:
                raise ConnectionOver
            searched = max(0, len(self._unread) - len(end))
            self._unread += data
            if self._remaining_bytes is not None:
                self._remaining_bytes -= len(data)
        taken = bytes(self._unread[:found])
        del self._unread[: found + len(end)]
        return taken


@contextlib.contextmanager
def serving(steps: Sequence[Step] = (), **options: Any) -> Iterator[ScriptedServer]:
    """A server for as long as the block lasts."""
    server = ScriptedServer(steps, **options)
    try:
        yield server
    finally:
        # The connection that is kept for the next task ends first.
        worker_process_shutdown.send(None)
        server.close()
