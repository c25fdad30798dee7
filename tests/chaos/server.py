"""A mail server made to be killed: ``python -m tests.chaos.server --port 0 --journal FILE --certificate PEM …``.

It writes down each mail before it says 250, once more when that reply is on its way, and a third time when it must have
been read: a client sends the next content on a connection when it knows what became of the one before. SIGUSR1 begins a
storm of temporary refusals; SIGHUP brings it next door; SIGUSR2 has it kill itself at one of the :class:`Death` points,
in the midst of its next mail.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import enum
import json
import os
import random
import signal
import ssl
import time
from pathlib import Path

from tests.chaos.journal import JournalWriter

HOST = "127.0.0.1"
USER = "SMTP_Injection"
_STORM_SECONDS = 1.5
#: Share of the contents that are thought over before they are taken.
_SLOW = 0.005
_LARGEST = 16 * 1024 * 1024


class Death(enum.Enum):
    """Where in a mail the server dies: between bytes."""

    RECIPIENT = "in the reply to RCPT"
    CONTENT = "in the midst of the content"
    BEFORE_ACCEPTING = "after the content, before it is written down"
    ACCEPTED = "after it was written down, before the reply"
    HALF_REPLY = "in the midst of the reply"
    REPLIED = "right after the reply"


class Server:
    """What all sessions share."""

    def __init__(self, journal: JournalWriter, tls: ssl.SSLContext, password: str, seed: str, way: float) -> None:
        self.journal = journal
        self.tls = tls
        self.password = password
        #: Seconds that a content and the reply to it take to arrive, together.
        self.way = way
        self.random = random.Random(seed)
        self.death: Death | None = None
        self.mails = 0
        self._open = self._most_open = 0
        self._storm_until = 0.0

    def begin_storm(self) -> None:
        self._storm_until = time.monotonic() + _STORM_SECONDS

    def come_near(self) -> None:
        self.way = 0.0

    def choose_death(self) -> None:
        self.death = self.random.choice(list(Death))

    def refuses(self, share: float) -> bool:
        """Whether this is refused, as that share of everything is in a storm."""
        return time.monotonic() < self._storm_until and self.random.random() < share

    def die(self) -> None:
        assert self.death is not None
        self.journal.write("died", time.time(), self.death.value)
        os.kill(os.getpid(), signal.SIGKILL)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        if self._open > self._most_open:
            self._most_open = self._open
            self.journal.write("open", time.time(), str(self._open))
        try:
            await Session(self, reader, writer).run()
        except (OSError, EOFError, asyncio.LimitOverrunError):
            # The client is gone, or was killed in the midst of something.
            pass
        finally:
            self._open -= 1
            writer.close()


class Session:
    """One connection, with STARTTLS, login and pipelining (RFC 3207, 4954, 2920)."""

    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._encrypted = False
        self._known = False
        self._recipients: list[str] = []
        #: Number of the last mail that was taken on this connection.
        self._taken = ""

    async def run(self) -> None:
        if self._server.refuses(0.05):
            await self._say("421 4.3.2 Too busy")
            return
        await self._say("220 chaos ESMTP ready")
        while True:
            line = await self._line()
            command, _, argument = line.partition(" ")
            command = command.upper()
            if command == "QUIT":
                await self._say("221 2.0.0 closing")
                return
            handler = getattr(self, f"_on_{command.lower()}", None)
            if handler is None:
                await self._say("500 5.5.1 unknown command")
            elif command in ("MAIL", "RCPT", "DATA") and not self._known:
                await self._say("530 5.7.0 Authentication required")
            else:
                await handler(argument)

    async def _on_ehlo(self, argument: str) -> None:
        offered = ["AUTH LOGIN PLAIN"] if self._encrypted else ["STARTTLS"]
        lines = ["chaos", *offered, "8BITMIME", "PIPELINING", "ENHANCEDSTATUSCODES"]
        await self._say("\r\n".join([f"250-{word}" for word in lines[:-1]] + [f"250 {lines[-1]}"]))

    async def _on_starttls(self, argument: str) -> None:
        await self._say("220 2.0.0 Ready to start TLS")
        await self._writer.start_tls(self._server.tls)
        self._encrypted = True

    async def _on_auth(self, argument: str) -> None:
        mechanism, _, initial = argument.partition(" ")
        if mechanism.upper() == "PLAIN":
            _, user, password = (_decoded(initial) if initial else await self._ask("")).split("\0")
        else:
            user = _decoded(initial) if initial else await self._ask("Username:")
            password = await self._ask("Password:")
        self._known = self._encrypted and (user, password) == (USER, self._server.password)
        await self._say("235 2.0.0 Authentication succeeded" if self._known else "535 5.7.8 Sorry")

    async def _ask(self, what: str) -> str:
        await self._say(f"334 {base64.b64encode(what.encode()).decode()}")
        return _decoded(await self._line())

    async def _on_mail(self, argument: str) -> None:
        self._recipients = []
        await self._say("451 4.3.0 A storm" if self._server.refuses(0.5) else "250 2.0.0 MAIL FROM accepted")

    async def _on_rcpt(self, argument: str) -> None:
        if self._server.death is Death.RECIPIENT:
            await self._write(b"250 2.0")
            self._server.die()
        if self._server.refuses(0.5):
            await self._say("450 4.2.1 A storm")
            return
        self._recipients.append(argument[argument.index("<") + 1 : argument.index(">")])
        await self._say("250 2.0.0 RCPT TO accepted")

    async def _on_data(self, argument: str) -> None:
        if not self._recipients:
            await self._say("503 5.5.1 RCPT TO first")
            return
        await self._say("354 3.0.0 continue")
        if self._server.death is Death.CONTENT:
            await self._reader.readexactly(100)
            self._server.die()
        content = await self._reader.readuntil(b"\r\n.\r\n")
        if self._taken:
            self._server.journal.write("read", time.time(), self._taken)
            self._taken = ""
        await asyncio.sleep(self._server.way / 2)
        received_at = time.time()
        if self._server.random.random() < _SLOW:
            # Long enough for a broker to give out again what a worker is in the midst of.
            await asyncio.sleep(self._server.random.uniform(0.3, 1.5))
        if self._server.refuses(0.3):
            await self._say("452 4.3.1 A storm")
            return
        await self._accept(content, received_at)

    async def _accept(self, content: bytes, received_at: float) -> None:
        server = self._server
        if server.death is Death.BEFORE_ACCEPTING:
            server.die()
        server.mails += 1
        number = f"{os.getpid()}-{server.mails}"
        recipients = ",".join(self._recipients)
        server.journal.write("accepted", time.time(), number, _message_id(content), recipients, f"{received_at:.6f}")
        if server.death is Death.ACCEPTED:
            server.die()
        if server.death is Death.HALF_REPLY:
            await self._write(b"250 2.0")
            server.die()
        await asyncio.sleep(server.way / 2)
        self._taken = number
        await self._say(f"250 2.0.0 OK {number}")
        server.journal.write("replied", time.time(), number)
        if server.death is Death.REPLIED:
            server.die()

    async def _on_rset(self, argument: str) -> None:
        self._recipients = []
        await self._say("250 2.0.0 OK")

    async def _on_noop(self, argument: str) -> None:
        await self._say("250 2.0.0 OK")

    async def _line(self) -> str:
        return (await self._reader.readuntil(b"\r\n")).decode().rstrip("\r\n")

    async def _say(self, reply: str) -> None:
        await self._write(f"{reply}\r\n".encode())

    async def _write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()


def _decoded(text: str) -> str:
    return base64.b64decode(text).decode()


def _message_id(content: bytes) -> str:
    for line in content.partition(b"\r\n\r\n")[0].split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"message-id":
            return value.decode().strip()
    return ""


async def _serve(options: argparse.Namespace) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(options.certificate)
    with JournalWriter(options.journal) as journal:
        server = Server(journal, tls, options.password, options.seed, options.way)
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, ended.set)
        loop.add_signal_handler(signal.SIGHUP, server.come_near)
        loop.add_signal_handler(signal.SIGUSR1, server.begin_storm)
        loop.add_signal_handler(signal.SIGUSR2, server.choose_death)
        listening = await asyncio.start_server(server.serve, HOST, options.port, limit=_LARGEST)
        print(json.dumps({"port": listening.sockets[0].getsockname()[1]}), flush=True)
        await ended.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--certificate", type=Path, required=True)
    parser.add_argument("--password", required=True)
    parser.add_argument("--seed", required=True)
    parser.add_argument("--way", type=float, default=0.0)
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
