"""The server that everything is sent to: ``smtp-sink`` of Postfix, which throws mail away and counts it.

Counted here, because an empty queue does not mean that mail was accepted: Celery acknowledges a task before it runs.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import time
from collections.abc import Callable

from testbed.servers.server import HOST, Server

_COUNT = re.compile(rb"mesg=(\d+)[\r\n]")
#: Of the end of its output: more than the longest line.
_TAIL = 200
_POLL_SECONDS = 0.002


class NotAcceptedError(RuntimeError):
    """Mail did not arrive in time."""


class Sink(Server):
    """An ``smtp-sink``. It speaks ESMTP with PIPELINING and 8BITMIME, without TLS or login."""

    name = "smtp-sink"
    package = "postfix"
    account = "nobody"
    programs = ("smtp-sink",)
    folders = ("/usr/sbin", "/usr/local/sbin")

    def __init__(self) -> None:
        super().__init__()
        # By which it is told from somebody else's server on the same port.
        self._host_name = f"sink-{secrets.token_hex(6)}"

    @property
    def url(self) -> str:
        return f"smtp://{HOST}:{self.port}"

    @property
    def accepted(self) -> int:
        """Mails that it has accepted since its start."""
        with open(self._log, "rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, size - _TAIL))
            counts = _COUNT.findall(log.read())
        return int(counts[-1]) if counts else 0

    def wait_for(
        self, count: int, seconds: float, on_count: Callable[[int, float], object] = lambda count, at: None
    ) -> float:
        """Wait until so many mails have been accepted since its start.

        Args:
            count: how many.
            seconds: at the most.
            on_count: told of each change: of the count, and of the time.

        Returns:
            The time of the last one, as ``time.monotonic()`` has it.

        Raises:
            NotAcceptedError: the time was over.
        """
        deadline = time.monotonic() + seconds
        last = -1
        while True:
            accepted, now = self.accepted, time.monotonic()
            if accepted != last:
                last = accepted
                on_count(accepted, now)
            if accepted >= count:
                return now
            if now > deadline:
                raise NotAcceptedError(f"{count - accepted} of the mails were not accepted within {seconds:.0f} s")
            time.sleep(_POLL_SECONDS)

    def settle(self, quiet_seconds: float = 0.3, at_most: float = 20) -> int:
        """Wait until nothing more comes, and return the count."""
        deadline = time.monotonic() + at_most
        count, since = self.accepted, time.monotonic()
        while time.monotonic() - since < quiet_seconds and time.monotonic() < deadline:
            time.sleep(0.02)
            if (now := self.accepted) != count:
                count, since = now, time.monotonic()
        return count

    @property
    def _log(self) -> str:
        return str(self.directory / f"{self.name}.log")

    def _command(self) -> list[str]:
        return [self._program("smtp-sink"), "-c", "-h", self._host_name, f"{HOST}:{self.port}", "1024"]

    def _answers(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), timeout=5) as connection:
                return self._host_name.encode() in connection.recv(1000)
        except OSError:
            return False

    def _prepare(self) -> None:
        """It has no files."""

    def _fill(self) -> None:
        """It begins empty."""
