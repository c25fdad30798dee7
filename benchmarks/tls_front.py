"""STARTTLS and a login before a server that has neither, as ``smtp-sink``, whose answer to AUTH is not a server's.

After the login everything is passed on as it comes, so that what is measured is the server behind it. One mail costs
this some 0.1 ms, and the way to it never less than 40 ms: it is not the bottleneck.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from contextlib import suppress
from pathlib import Path

from congressy_mailer.testing.local_sparkpost.certificate import Certificate, make_certificate

from .loop import LoopThread

USER = "SMTP_Injection"


class TlsFront(LoopThread):
    """The front, on a free port; a thread of its own runs it from entry to exit of the context."""

    def __init__(self, port: int, directory: Path) -> None:
        """Prepare it.

        Args:
            port: where the server behind it listens.
            directory: for the certificate.
        """
        super().__init__()
        self._server_port = port
        self.password = secrets.token_urlsafe(16)
        self.certificate: Certificate = make_certificate(directory)
        self._tls = self.certificate.server_context()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 front ESMTP\r\n")
        if not await self._log_in(reader, writer):
            return
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        self.keep(server_writer)
        try:
            await server_reader.readuntil(b"\r\n")
            server_writer.write(b"EHLO front\r\n")
            while (await server_reader.readuntil(b"\r\n"))[3:4] == b"-":
                pass
            # The server is ready for mail: now the client may know.
            writer.write(b"235 2.7.0 Authentication succeeded\r\n")
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(reader, server_writer))
                both.create_task(self._carry(server_reader, writer))
        finally:
            server_writer.close()

    async def _log_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Speak until somebody knows the password; ``False`` where the client has left."""
        encrypted = False
        expected = base64.b64encode(f"\0{USER}\0{self.password}".encode()).decode()
        while True:
            command, _, argument = (await reader.readuntil(b"\r\n")).decode().strip().partition(" ")
            match command.upper():
                case "EHLO" | "HELO":
                    offered = "AUTH PLAIN" if encrypted else "STARTTLS"
                    writer.write(f"250-front\r\n250-{offered}\r\n250-8BITMIME\r\n250 PIPELINING\r\n".encode())
                case "STARTTLS":
                    writer.write(b"220 2.0.0 Ready to start TLS\r\n")
                    await writer.start_tls(self._tls)
                    encrypted = True
                case "AUTH" if encrypted and argument == f"PLAIN {expected}":
                    return True
                case "AUTH":
                    writer.write(b"535 5.7.8 Authentication failed\r\n")
                case "QUIT":
                    writer.write(b"221 2.0.0 Bye\r\n")
                    return False
                case _:
                    writer.write(b"530 5.7.0 Authentication required\r\n")

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(self.limit):
                writer.write(data)
                await writer.drain()
        with suppress(OSError):
            writer.close()
