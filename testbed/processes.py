"""Starting and ending the processes that the demo consists of."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from congressy_mailer.testing.local_sparkpost import lifetime


class ProcessError(RuntimeError):
    """A process ended, or did not become ready; the text says which and shows the end of its log."""


def free_port() -> int:
    """A TCP port of the loopback that nobody uses at the moment.

    None of those that a system gives to connections and to whoever asks for any port (RFC 6335, section 6; Linux from
    32768 on): a server that is started again on its port would sometimes find somebody else there.
    """
    while True:
        port = random.randrange(10_000, 32_000)  # noqa: S311 - so that those who choose at the same time choose apart
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def child_processes(process: int) -> list[int]:
    """The processes that a process has started, as a worker has its pool; none where the system does not tell."""
    try:
        listed = Path(f"/proc/{process}/task/{process}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in listed.split()]


class Process:
    """A process with a log of its own, which ends with this one whatever happens."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        on_parent_death: signal.Signals = signal.SIGTERM,
    ) -> None:
        """Start it.

        Args:
            name: for people.
            command: program with its arguments.
            log: file for all of its output; what is in it from an earlier start stays.
            environment: what it sees beside the environment of this process.
            directory: where it runs.
            on_parent_death: what it is sent when this process is killed.
        """
        self.name = name
        self.log = log
        self._ended = False
        self._log_start = log.stat().st_size if log.exists() else 0
        self._popen = self._start(command, {**os.environ, **(environment or {})}, directory, on_parent_death)

    def _start(
        self, command: Sequence[str], environment: dict[str, str], directory: Path | None, on_parent_death: int
    ) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", lifetime.__file__, str(os.getpid()), str(int(on_parent_death)), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=directory,
                # A group of its own: Ctrl-C at the terminal reaches only this process, which then ends the others
                # in order, and what a process has started can be ended with it.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def output(self) -> str:
        """What it has written since it was started."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Wait for a condition.

        Raises:
            ProcessError: the process ended first, or the time was over.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            if not self.running:
                raise ProcessError(f"{self.name} ended with status {self._popen.returncode}.{self._tail()}")
            if time.monotonic() > deadline:
                raise ProcessError(f"{self.name} was not ready within {seconds:.0f} s.{self._tail()}")
            time.sleep(0.02)

    def first_line(self, seconds: float) -> dict[str, Any]:
        """The JSON object in the first line that it writes, in which our own servers tell their port.

        Raises:
            ProcessError: there was none in time.
        """
        found: dict[str, Any] = {}

        def look() -> bool:
            for line in self.output().splitlines(keepends=True):
                if line.startswith("{") and line.endswith("\n"):
                    found.update(json.loads(line))
                    return True
            return False

        self.wait_until(look, seconds)
        return found

    def stop(self, seconds: float = 10) -> None:
        """End it and what it has started: SIGTERM, then SIGKILL if that takes too long."""
        if self.running:
            self._popen.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._popen.wait(seconds)
        self.kill()

    def kill(self) -> None:
        """End it and what it has started at once, as a power failure would."""
        if self._ended:
            # By now the number of the group may be somebody else's.
            return
        # Nobody of the group may be left; macOS says EPERM where only an unreaped process is.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()
        self._ended = True

    def _tail(self) -> str:
        lines = self.output().strip().splitlines()[-15:]
        return "".join(f"\n    {line}" for line in lines)
