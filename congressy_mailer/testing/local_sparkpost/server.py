"""The server: a thread that listens on 127.0.0.1 and holds any number of SMTP sessions."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import shutil
import tempfile
import threading
from pathlib import Path

from .account import Account
from .certificate import Certificate, make_certificate
from .mailbox import Mailbox
from .replies import Script
from .smtp import USER, Rules, SparkPostSession
from .startable import Startable


class LocalSparkPost(Startable):
    """A local SparkPost. As a context manager it runs from entry to exit.

    A Django project sends to it with the settings that it would use for SparkPost; see :meth:`environment` for how
    it trusts the certificate.
    """

    host = "127.0.0.1"
    #: What ``EMAIL_HOST_USER`` must be.
    user = USER

    def __init__(
        self,
        *,
        port: int = 0,
        password: str | None = None,
        directory: Path | None = None,
        certificate: Certificate | None = None,
        script: Script | None = None,
        idle_seconds: float = 60,
        messages_per_connection: int = 100,
        account: Account | None = None,
    ) -> None:
        """Prepare a server without starting it.

        Args:
            port: TCP port; 0 for any that is free.
            password: the only one that is accepted; made up if ``None``.
            directory: where accepted mail is stored, too; see :class:`.mailbox.Mailbox`.
            certificate: made for this server if ``None``.
            script: scripted replies; see :data:`.replies.Script`. May be set and replaced while it runs.
            idle_seconds: a connection is closed after so long without a command (SMTP API reference: 1 minute).
            messages_per_connection: SMTP API reference: up to 100.
            account: the owner of the mail; with one, the ``X-MSYS-API`` header is taken off, and events follow.
        """
        self.password = password or secrets.token_hex(16)
        self.mailbox = Mailbox(directory)
        self.port = port
        self._own_files: Path | None = None
        if certificate is None:
            self._own_files = Path(tempfile.mkdtemp(prefix="local-sparkpost-"))
            certificate = make_certificate(self._own_files)
        self.certificate = certificate
        self._queue_numbers = itertools.count(1)
        self._run_number = secrets.token_hex(4).upper()
        self._rules = Rules(
            mailbox=self.mailbox,
            password=self.password,
            tls=certificate.server_context(),
            script=script,
            idle_seconds=idle_seconds,
            messages_per_connection=messages_per_connection,
            new_queue_id=self.new_queue_id,
            account=account,
        )
        #: Connections since the start.
        self.connections = 0
        self._sessions: list[SparkPostSession] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def script(self) -> Script | None:
        """Scripted replies, or ``None``."""
        return self._rules.script

    @script.setter
    def script(self, script: Script | None) -> None:
        self._rules.script = script

    @property
    def open_connections(self) -> int:
        """Connections that are open now, for all that the server does."""
        # A closed one lingers until its client has said goodbye, too.
        transports = [session.transport for session in self._sessions]
        return sum(transport is not None and not transport.is_closing() for transport in transports)

    def environment(self) -> dict[str, str]:
        """What a client process needs in its environment to accept the certificate with all verification on."""
        return {"SSL_CERT_FILE": str(self.certificate.authority)}

    def start(self) -> None:
        """Listen. After :meth:`stop` it listens on the same port again.

        Raises:
            OSError: the port is taken.
        """
        started = threading.Event()
        failure: list[OSError] = []
        self._thread = threading.Thread(target=self._run, args=(started, failure), name="local-sparkpost", daemon=True)
        self._thread.start()
        started.wait()
        if failure:
            self._thread.join()
            self._thread = None
            raise failure[0]

    def stop(self) -> None:
        """Stop listening and cut all connections."""
        if self._thread is None or self._loop is None:
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._thread = None

    def close(self) -> None:
        """Stop, and remove the certificate if it was made for this server."""
        self.stop()
        if self._own_files is not None:
            shutil.rmtree(self._own_files, ignore_errors=True)

    def _run(self, started: threading.Event, failure: list[OSError]) -> None:
        loop = self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            server = loop.run_until_complete(loop.create_server(self._new_session, self.host, self.port))
            self.port = server.sockets[0].getsockname()[1]
        except OSError as error:
            failure.append(error)
            loop.close()
            return
        finally:
            started.set()
        loop.run_forever()
        server.close()
        loop.run_until_complete(self._cut_connections())
        loop.close()

    async def _cut_connections(self) -> None:
        # A connection that was accepted a moment ago gets its transport in the loop's next round.
        await asyncio.sleep(0)
        for session in self._sessions:
            session.cut()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        # An aborted transport closes its socket in the loop's next round.
        await asyncio.sleep(0)
        self._sessions.clear()

    def _new_session(self) -> SparkPostSession:
        assert self._loop is not None
        self.connections += 1
        self._sessions = [session for session in self._sessions if not session.is_over]
        session = SparkPostSession(self._rules, self.connections, self._loop)
        self._sessions.append(session)
        return session

    def new_queue_id(self) -> str:
        """In the form of SparkPost's own ids, as in ``95/6F-30607-EA5D4555``."""
        number = next(self._queue_numbers)
        return f"{number >> 8 & 255:02X}/{number & 255:02X}-{30000 + (number >> 16):05}-{self._run_number}"
