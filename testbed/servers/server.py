"""A server of the tests' own: on free ports of the loopback, with nothing left of it afterwards."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from abc import abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from congressy_mailer.testing.local_sparkpost.startable import Startable
from testbed.processes import Process, ProcessError, free_port

HOST = "127.0.0.1"
#: A RabbitMQ on two busy cores needs 10 s; this is for much slower machines.
_START_SECONDS = 90.0
_STOP_SECONDS = 20.0


class Server(Startable):
    """A server that can be started, stopped, killed and started again on the same port with the same files.

    Used as a context manager it starts on entry and is gone, with its files, on exit. It ends with the thread that
    started it, even if that is killed. Under root it runs as somebody without rights, since most refuse to run as root.
    """

    #: For people.
    name: ClassVar[str]
    #: The package that brings it on Debian.
    package: ClassVar[str]
    #: The account that this package makes.
    account: ClassVar[str]
    #: The programs that are run, and where they may be beside the ``PATH``.
    programs: ClassVar[tuple[str, ...]]
    folders: ClassVar[tuple[str, ...]] = ()
    #: What shuts it down in order without waiting for its clients.
    shutdown: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, *, durable: bool = False) -> None:
        """Prepare a server without starting it.

        Args:
            durable: what it has acknowledged survives :meth:`kill`; slower.
        """
        self.durable = durable
        self.port = 0
        self.directory = Path(tempfile.mkdtemp(prefix=f"{self.name.lower()}-"))
        self._process: Process | None = None
        if os.geteuid() == 0:
            shutil.chown(self.directory, *_account(self.account))

    @classmethod
    def is_installed(cls) -> bool:
        """Whether its programs are installed."""
        return all(_find(program, cls.folders) for program in cls.programs)

    @property
    @abstractmethod
    def url(self) -> str:
        """Its address, as ``DATABASE_URL`` or ``BROKER_URL`` want it."""

    @property
    def log(self) -> Path:
        """The file that it writes to."""
        return self.directory / f"{self.name.lower()}.log"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    @property
    def pid(self) -> int:
        """Process id of the running server.

        Raises:
            RuntimeError: it is not running.
        """
        if not self.running or self._process is None:
            raise RuntimeError(f"{self.name} is not running.")
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers; does nothing if it is running.

        Raises:
            ProcessError: it did not come up.
        """
        if self.running:
            return
        if self.port:
            self._start()
            return
        self._prepare()
        for attempts_left in (4, 3, 2, 1, 0):
            self.port = free_port()
            try:
                self._start()
            except ProcessError as error:
                # Between the choice of the port and its use somebody else may have taken it.
                if not attempts_left or not re.search("in use|eaddrinuse", str(error)):
                    raise
            else:
                self._fill()
                return

    def stop(self) -> None:
        """Shut it down in order."""
        if self._process is not None:
            if self.running:
                os.kill(self._process.pid, self.shutdown)
            self._process.stop(_STOP_SECONDS)

    def kill(self) -> None:
        """Kill it and all that it has started, as a power failure would."""
        if self._process is not None:
            # The children of PostgreSQL have groups of their own. A stopped parent makes no more of them.
            if self.running:
                os.kill(self._process.pid, signal.SIGSTOP)
                for child in _children(self._process.pid):
                    with suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
            self._process.kill()

    def restart(self) -> None:
        """Stop it if it runs, and start it on the same port with the same files."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End it and remove its files."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    @abstractmethod
    def _prepare(self) -> None:
        """What happens once, before the first start."""

    @abstractmethod
    def _fill(self) -> None:
        """What happens once, after the first start."""

    @abstractmethod
    def _command(self) -> list[str]:
        """The program and its arguments."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it answers, and is not somebody else's server on the same port."""

    def _environment(self) -> dict[str, str]:
        # Whatever this process has as its own may be closed to the account that the server runs as.
        return {"HOME": str(self.directory), "TMPDIR": str(self.directory)}

    def _program(self, name: str) -> str:
        found = _find(name, self.folders)
        if not found:
            raise ProcessError(f"{name} was not found: apt install {self.package}")
        return found

    def _start(self) -> None:
        self._process = self._spawn(self.name, self._command(), self.shutdown)
        try:
            self._process.wait_until(self._answers, _START_SECONDS)
        except BaseException:
            self.kill()
            raise

    def _spawn(self, name: str, command: list[str], on_parent_death: signal.Signals) -> Process:
        return Process(
            name,
            [*self._as_unprivileged_user(on_parent_death), *command],
            self.directory / f"{name.lower()}.log",
            environment=self._environment(),
            directory=self.directory,
            on_parent_death=on_parent_death,
        )

    def _run(self, *command: str) -> None:
        """Run a program to its end."""
        done = subprocess.run(
            [*self._as_unprivileged_user(signal.SIGTERM), *command],
            cwd=self.directory,
            env={**os.environ, **self._environment()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_START_SECONDS,
        )
        if done.returncode:
            raise ProcessError(f"{command[0]} ended with status {done.returncode}: {done.stdout.decode()[-2000:]}")

    def _as_unprivileged_user(self, on_parent_death: signal.Signals) -> list[str]:
        """What comes before a command so that it does not run as root."""
        if os.geteuid():
            return []
        user, group = _account(self.account)
        # The change of user clears the signal that Process has asked for.
        change = [f"--reuid={user}", f"--regid={group}", "--clear-groups", f"--pdeathsig={on_parent_death.name}"]
        return ["setpriv", *change, "--"]


def _find(program: str, folders: tuple[str, ...]) -> str | None:
    """Path of a program: in the folders, which may hold a pattern and of which the newest version counts, or not."""
    places = [str(place) for folder in folders for place in Path("/").glob(folder.lstrip("/"))]
    places.sort(key=lambda place: [int(number) for number in re.findall(r"\d+", place)], reverse=True)
    return shutil.which(program, path=os.pathsep.join([*places, os.environ.get("PATH", os.defpath)]))


def _account(name: str) -> tuple[int, int]:
    """User and group to run as: the account of the package, else nobody's."""
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        found = pwd.getpwnam("nobody")
    return found.pw_uid, found.pw_gid


def _children(process: int) -> list[int]:
    """The processes that a process has started; where the system does not tell, none."""
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []
