"""The servers and processes of the measurements, and what each process is told of the others."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import redis

from congressy_mailer.testing.local_sparkpost.startable import Startable
from testbed.processes import Process
from testbed.redis_server import EmbeddedRedis
from testbed.servers.mariadb import MariaDB
from testbed.servers.postgresql import PostgreSQL

from .agent import Agent
from .api_sink import ApiSink
from .sink import Sink
from .systems import ALL, OURS, system
from .systems.base import System
from .tls_front import TlsFront

_ROOT = Path(__file__).resolve().parent.parent
_WORKER_START_SECONDS = 60.0
#: What a worker prints once it can be given work: our Celery app, and django-mailer.
_READY = ("The worker is ready.", "Starting django-mailer send loop.")
_ENVIRONMENT = (
    "import celery, django, json, platform; from benchmarks.systems import ALL, system; "
    "versions = {'python': platform.python_version(), 'django': django.__version__, 'celery': celery.__version__}; "
    "print(json.dumps([versions, [key for key in ALL if system(key).is_installed()]]))"
)


class MissingServerError(RuntimeError):
    """A server is not installed; the text says what to install."""


@dataclass(frozen=True)
class Python:
    """An environment that the systems are installed in."""

    executable: str
    #: Versions of Python, Django and Celery in it, by name.
    versions: Mapping[str, str]
    #: Keys of the systems that are installed in it.
    systems: Sequence[str]

    @classmethod
    def at(cls, executable: str) -> Python:
        """The one with this interpreter."""
        told = subprocess.run([executable, "-c", _ENVIRONMENT], capture_output=True, text=True, check=True, cwd=_ROOT)
        return cls(executable, *json.loads(told.stdout))

    @property
    def django(self) -> str:
        """Django's version, for people."""
        return "Django " + ".".join(self.versions["django"].split(".")[:2])


@dataclass(frozen=True)
class Place:
    """Where a system runs."""

    python: Python
    database_url: str
    #: Of its first database; each system has one of its own.
    broker_url: str
    #: Where mail goes.
    smtp_port: int
    directory: Path
    #: Where that wants TLS and a login.
    front: TlsFront | None = None
    #: How many connections to the mail server a process may have, where a system has a choice.
    connections: int = 5
    #: Host and port of SparkPost's API, where mail goes over that, and its sink.
    api: tuple[str, ApiSink] | None = None

    @property
    def vendor(self) -> str:
        return self.database_url.partition(":")[0]

    def towards(self, port: int, front: TlsFront | None = None) -> Place:
        """The same with another way to the mail server."""
        return replace(self, smtp_port=port, front=front)

    def over_http(self, port: int, sink: ApiSink) -> Place:
        """The same over SparkPost's HTTP API, which is reached at this port."""
        return replace(self, api=(f"{sink.api.host}:{port}", sink))

    def environment(self, key: str | None) -> dict[str, str]:
        """What a process of a system sees; ``None``: of all of them."""
        environment = {
            "DJANGO_SETTINGS_MODULE": "benchmarks.project.settings",
            "DATABASE_URL": self.database_url,
            "BROKER_URL": self._broker_of(key),
            "BENCH_SMTP_PORT": str(self.smtp_port),
            "BENCH_CONNECTIONS": str(self.connections),
            "PYTHONWARNINGS": "ignore",
            # Where django-post_office has its lock.
            "TMPDIR": str(self.directory),
        }
        if key is not None:
            environment["BENCH_SYSTEM"] = key
        if self.front is not None:
            environment["BENCH_SMTP_PASSWORD"] = self.front.password
            environment["SSL_CERT_FILE"] = str(self.front.certificate.authority)
        if self.api is not None:
            host, sink = self.api
            environment |= {"BENCH_API_HOST": host, "BENCH_API_KEY": sink.account.key, **sink.environment()}
        return environment

    def agent(self, key: str) -> Agent:
        """A process of a system that calls."""
        return Agent(self.python.executable, self.environment(key), self.directory / f"{key}-caller.log")

    def workers(self, key: str, processes: int) -> Workers:
        """The processes of a system that work in the background."""
        return Workers(self, key, processes)

    def drop_queue(self, key: str) -> None:
        """Empty a system's part of the broker."""
        with redis.Redis.from_url(self._broker_of(key)) as client:
            client.flushdb()

    def _broker_of(self, key: str | None) -> str:
        number = ALL.index(key) + 1 if key is not None else 0
        return f"{self.broker_url.rpartition('/')[0]}/{number}"


class Workers(Startable):
    """The processes of a system that work in the background, from entry to exit of the context.

    They are killed at its end: what they have in hand by then is not measured any more.
    """

    def __init__(self, place: Place, key: str, processes: int) -> None:
        """Prepare them.

        Args:
            place: where they run.
            key: of the system.
            processes: how many of them send.
        """
        self._place = place
        self._key = key
        self._processes = processes
        self._started: list[Process] = []

    def start(self) -> None:
        """Start them, without waiting: see :meth:`wait`."""
        place, name = self._place, system(self._key).name
        for number, arguments in enumerate(system(self._key).workers(place.vendor, self._processes)):
            node = ["-n", f"{self._key}-{secrets.token_hex(3)}@%h"] if "celery" in arguments else []
            command = [place.python.executable, "-W", "ignore", "-u", *arguments, *node]
            log = place.directory / f"{self._key}-worker{number}.log"
            environment = place.environment(self._key)
            worker = Process(f"A worker of {name}", command, log, environment=environment, directory=_ROOT)
            self._started.append(worker)

    def wait(self) -> None:
        """Wait until they can be given work.

        Raises:
            testbed.processes.ProcessError: one did not come up.
        """
        for worker in self._started:
            worker.wait_until(
                lambda worker=worker: any(sign in worker.output() for sign in _READY),  # type: ignore[misc]
                _WORKER_START_SECONDS,
            )

    def close(self) -> None:
        """End them."""
        for worker in self._started:
            worker.kill()

    @property
    def pids(self) -> list[int]:
        return [worker.pid for worker in self._started]


class Stage(Startable):
    """The servers: mail, broker and database, each started when it is first asked for."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._sink: Sink | None = None
        self._redis: EmbeddedRedis | None = None
        self._postgresql: PostgreSQL | None = None
        self._mariadb: MariaDB | None = None
        self._places: dict[tuple[str, str], Place] = {}
        #: How many were made.
        self._databases = 0
        self.directory = Path(tempfile.mkdtemp(prefix="congressy-mailer-bench-"))

    def start(self) -> None:
        """Everything else is started when it is needed."""

    def close(self) -> None:
        """End all servers, and remove all files."""
        self._stack.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def sink(self) -> Sink:
        """The mail server.

        Raises:
            MissingServerError: it is not installed.
        """
        if self._sink is None:
            if not Sink.is_installed():
                raise MissingServerError(
                    f"{Sink.name} was not found, which all mail is sent to: apt install {Sink.package}"
                )
            self._sink = self._stack.enter_context(Sink())
        return self._sink

    @property
    def postgresql(self) -> PostgreSQL:
        """The server of all places on PostgreSQL.

        Raises:
            MissingServerError: it is not installed.
        """
        if self._postgresql is None:
            if not PostgreSQL.is_installed():
                raise MissingServerError(f"PostgreSQL was not found: apt install {PostgreSQL.package}")
            # As it comes: what is committed is on the disk.
            self._postgresql = self._stack.enter_context(PostgreSQL(durable=True))
        return self._postgresql

    def discard_places(self) -> None:
        """Have databases made anew for what comes next, and empty the broker: a measurement was broken off."""
        if self._redis is not None:
            with redis.Redis.from_url(self._redis.url) as client:
                client.flushall()
        self._places.clear()

    def place(self, python: Python, vendor: str) -> Place:
        """A database with the tables of all systems, made by this environment's Django, and where the rest is.

        Raises:
            MissingServerError: the database's server is not installed.
        """
        if (python.executable, vendor) not in self._places:
            self._databases += 1
            name = f"bench{self._databases}"
            folder = self.directory / name
            folder.mkdir()
            url = f"sqlite://{folder}/db.sqlite3" if vendor == "sqlite" else self._new_database(vendor, name)
            if self._redis is None:
                self._redis = self._stack.enter_context(EmbeddedRedis())
            # Some measurements send nothing; those that do ask for the server themselves.
            port = self.sink.port if Sink.is_installed() else 0
            place = Place(python, url, self._redis.url, port, folder)
            self._migrate(place)
            self._places[python.executable, vendor] = place
        return self._places[python.executable, vendor]

    def _new_database(self, vendor: str, name: str) -> str:
        if vendor == "mysql":
            return self._new_database_of_mariadb(name)
        with closing(self.postgresql.connect("postgres")) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"{self.postgresql.url.rpartition('/')[0]}/{name}"

    def _new_database_of_mariadb(self, name: str) -> str:
        if self._mariadb is None:
            if not MariaDB.is_installed():
                raise MissingServerError(f"MariaDB was not found: apt install {MariaDB.package}")
            self._mariadb = self._stack.enter_context(MariaDB(durable=True))
        with closing(self._mariadb.connect(None)) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
        return f"{self._mariadb.url.rpartition('/')[0]}/{name}"

    def _migrate(self, place: Place) -> None:
        # On MariaDB none of the others is measured.
        only = OURS if place.vendor == "mysql" else None
        done = subprocess.run(
            [place.python.executable, "-m", "django", "migrate", "--verbosity", "0", "--skip-checks"],
            env={**os.environ, **place.environment(only)}, cwd=_ROOT, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"The tables could not be made: {done.stderr[-1500:]}")
        for key in place.python.systems if only is None else (only,):
            if type(system(key)).prepare is System.prepare:
                continue
            with place.agent(key) as agent:
                agent.order("prepare")


def this_python() -> Python:
    """The environment that this process runs in."""
    return Python.at(sys.executable)
