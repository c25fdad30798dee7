"""Processes that run a module, started as copies of one that has loaded Django and Celery: in a third of the time."""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from congressy_mailer.testing.local_sparkpost import lifetime
from testbed.processes import Process
from tests.support.fork_server import Start

_ROOT = Path(__file__).resolve().parents[2]
#: What a process has of its environment before it runs a line of ours.
_READ_AT_START = ("LANG", "LC_", "LD_", "MALLOC_", "PYTHON", "TZ")


class _ForkServer:
    """The process that is copied; it ends with this one."""

    def __init__(self) -> None:
        self.environment = dict(os.environ)
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "tests.support.fork_server", str(theirs.fileno())]
        with theirs:
            self._popen = subprocess.Popen(
                [sys.executable, "-I", "-S", lifetime.__file__, str(os.getpid()), str(int(signal.SIGKILL)), *command],
                stdin=subprocess.DEVNULL,
                cwd=_ROOT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._connection = ours
        self._answers = ours.makefile("r")
        self._lock = threading.Lock()
        atexit.register(self._end)

    def ask(self, order: Mapping[str, Any]) -> Any:
        with self._lock:
            self._connection.sendall(json.dumps(order).encode() + b"\n")
            return json.loads(self._answers.readline())

    def _end(self) -> None:
        self._connection.shutdown(socket.SHUT_RDWR)
        self._answers.close()
        self._connection.close()
        self._popen.wait()


@functools.cache
def _server() -> _ForkServer:
    return _ForkServer()


class _Forked:
    """What :class:`subprocess.Popen` is for other processes, as far as :class:`Process` asks for it."""

    def __init__(self, start: Start) -> None:
        self.returncode: int | None = None
        self.pid: int = _server().ask(start.order())["pid"]
        # Until it is reaped, its number is nobody else's.
        self._handle = os.pidfd_open(self.pid)

    def poll(self) -> int | None:
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        status = self._look(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return status

    def terminate(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            poll = select.poll()
            poll.register(self._handle, select.POLLIN)
            if poll.poll(None if timeout is None else timeout * 1000):
                self.returncode = _server().ask({"do": "reap", "pid": self.pid})["status"]
                os.close(self._handle)
        return self.returncode


class ModuleProcess(Process):
    """``python -m MODULE ARGUMENTS…``, which ends with this process whatever happens."""

    def __init__(
        self,
        name: str,
        module: str,
        arguments: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        directory: Path = _ROOT,
    ) -> None:
        """Start it.

        Args:
            name: for people.
            module: what it runs.
            arguments: for that.
            log: file for all of its output; what is in it from an earlier start stays.
            environment: what it sees beside the environment of this process.
            directory: where it runs; elsewhere than in this project it is no copy.
        """
        self.module, self.arguments = module, list(arguments)
        command = [sys.executable, "-m", module, *arguments]
        super().__init__(name, command, log, environment=environment, directory=directory)

    def _start(
        self, command: Sequence[str], environment: dict[str, str], directory: Path | None, on_parent_death: int
    ) -> Any:
        if directory is None or directory.resolve() != _ROOT or not _may_be_a_copy(environment):
            return super()._start(command, environment, directory, on_parent_death)
        # The copy opens it a moment later.
        self.log.touch()
        log = str(self.log)
        return _Forked(Start(self.module, self.arguments, environment, log, log, int(on_parent_death)))


def run_module(
    module: str, *arguments: str, environment: Mapping[str, str], seconds: float = 60
) -> subprocess.CompletedProcess[str]:
    """``python -m MODULE ARGUMENTS…`` in this project's folder, to its end.

    Args:
        module: what it runs.
        arguments: for that.
        environment: all of it; one of a few variables begins with :func:`least_environment`.
        seconds: how long it may take.

    Raises:
        subprocess.TimeoutExpired: it took longer, and was killed.
    """
    command = [sys.executable, "-m", module, *arguments]
    if not _may_be_a_copy(environment):
        return subprocess.run(
            command, cwd=_ROOT, env=dict(environment), capture_output=True, text=True, timeout=seconds, check=False
        )
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, "output"), Path(folder, "errors")
        for file in files:
            file.touch()
        output, errors = map(str, files)
        process = _Forked(Start(module, list(arguments), dict(environment), output, errors, int(signal.SIGTERM)))
        try:
            status = process.wait(seconds)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        return subprocess.CompletedProcess(command, status, files[0].read_text(), files[1].read_text())


def run_code(code: str, *, environment: Mapping[str, str], seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """The same with what ``python -c`` would be given."""
    return run_module("tests.support.execute", code, environment=environment, seconds=seconds)


def least_environment() -> dict[str, str]:
    """What a process needs to find programs and its home; the rest of what is set here does not reach it."""
    # PYTHONWARNINGS is among what is read at the start, and makes errors of the settings that MAILERS replaces.
    needed = ("PATH", "HOME", "MAILER_TEST_MAILERS")
    return {name: value for name, value in os.environ.items() if name in needed or name.startswith(_READ_AT_START)}


def _may_be_a_copy(environment: Mapping[str, str]) -> bool:
    # Linux alone: on macOS a copy may not use the system's libraries, and there is no pidfd_open(2).
    if sys.platform != "linux":
        return False
    ours = _server().environment
    return all(
        environment.get(name) == ours.get(name) for name in {*environment, *ours} if name.startswith(_READ_AT_START)
    )
