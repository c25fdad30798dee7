"""Everything that takes part: mail server, workers and feeder, and the database and broker where they are ours."""

from __future__ import annotations

import os
import re
import secrets
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from congressy_mailer.testing.local_sparkpost.certificate import make_certificate
from testbed.processes import Process, child_processes
from testbed.redis_server import EmbeddedRedis
from testbed.servers.rabbitmq import RabbitMQ
from testbed.servers.server import Server
from tests.chaos.clocks import APART, clock_environment, find_faketime
from tests.chaos.journal import JournalReader
from tests.support.forked import ModuleProcess

_NEIGHBOURS_ENVIRONMENT = {"MAILER_CHAOS_NEIGHBOUR": "1", "MAILER_TEST_SECRET_KEY": "of the project beside it"}
#: Seconds to the mail server and back, by turns with each of its starts: next door, where many mails are sent in a
#: moment, and so far away that workers use several connections.
WAYS = (0.0, 0.04)


@dataclass(frozen=True)
class Kill:
    """Something that ended without a chance to finish what it was doing."""

    what: str
    #: Just before and just after, in seconds since the epoch.
    begun: float
    ended: float


@dataclass(frozen=True)
class RunConfig:
    """What the processes of a run stand on."""

    #: For their files.
    directory: Path
    database_url: str
    broker_url: str
    on_crash: str = "resend"
    #: The servers behind the addresses, where they may be broken.
    database: Server | None = None
    broker: EmbeddedRedis | RabbitMQ | None = None
    #: Whether they are of the other project.
    is_neighbour: bool = False

    def environment(self) -> dict[str, str]:
        return {
            "DJANGO_SETTINGS_MODULE": "tests.chaos.settings",
            "MAILER_TEST_DIRECTORY": str(self.directory),
            "MAILER_TEST_WORKER": "1",
            "MAILER_CHAOS_ON_CRASH": self.on_crash,
            "DATABASE_URL": self.database_url,
            "BROKER_URL": self.broker_url,
            **(_NEIGHBOURS_ENVIRONMENT if self.is_neighbour else {"MAILER_CHAOS_STATEMENTS": str(self.statements)}),
        }

    def of_neighbour(self) -> RunConfig:
        """What the processes of the other project stand on: the same broker and storage, and a database of its own."""
        return replace(
            self, database_url=f"sqlite://{self.directory}/neighbour.sqlite3", database=None, is_neighbour=True
        )

    @property
    def statements(self) -> Path:
        """Where workers write down what takes long in the database."""
        return self.directory / "statements.journal"

    def why_no_clocks(self) -> str:
        """Why no worker of this run has a clock of its own; empty where some have."""
        if self.database_url.startswith("sqlite:"):
            return "SQLite has the clock of its host"
        return "" if find_faketime() else "libfaketime was not found: apt install faketime"


class MailServer:
    """The mail server's process, on the same port for life."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.journal = directory / "smtp.journal"
        self.password = secrets.token_hex(16)
        self.port = 0
        self.starts = 0
        self._seed = seed
        self._directory = directory
        self._certificate = make_certificate(directory)
        self._process: Process | None = None

    @property
    def process(self) -> Process:
        assert self._process is not None
        return self._process

    def start(self) -> None:
        self.starts += 1
        arguments = [
            "--port", str(self.port), "--journal", str(self.journal),
            "--certificate", str(self._certificate.chain), "--password", self.password,
            "--seed", f"{self._seed} {self.starts}", "--way", str(WAYS[(self.starts - 1) % len(WAYS)]),
        ]  # fmt: skip
        log = self._directory / "smtp.log"
        self._process = ModuleProcess("Mail server", "tests.chaos.server", arguments, log)
        self.port = self._process.first_line(20)["port"]

    def come_near(self) -> None:
        """Be next door from now on: what is left is to be sent in time."""
        if self.process.running:
            os.kill(self.process.pid, signal.SIGHUP)

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()

    def environment(self) -> dict[str, str]:
        """What a worker needs to send to it."""
        return {
            "MAILER_TEST_SMTP_PORT": str(self.port),
            "MAILER_TEST_SMTP_PASSWORD": self.password,
            "SSL_CERT_FILE": str(self._certificate.authority),
        }


class Worker:
    """A Celery worker with some processes."""

    def __init__(self, name: str, processes: int, config: RunConfig, mail_server: MailServer) -> None:
        self.name = name
        self._log = config.directory / f"{name.replace(' ', '-')}.log"
        self._arguments = [
            "-A", "tests.project", "worker", "-c", str(processes), "-l", "INFO",
            "-n", f"{name.replace(' ', '-')}@%h",
        ]  # fmt: skip
        self._environment = {**config.environment(), **mail_server.environment()}
        self._process: Process | None = None
        #: How far its clock is ahead of the database's, from its next start on.
        self.ahead = timedelta(0)
        #: How often it has been started with which clock.
        self.clocks: Counter[timedelta] = Counter()
        #: When its process was last seen, in seconds since the epoch.
        self.seen_running = 0.0

    @property
    def process(self) -> Process:
        assert self._process is not None
        return self._process

    @property
    def ready(self) -> bool:
        return self.process.running and " ready." in self.process.output()

    def start(self) -> None:
        self.clocks[self.ahead] += 1
        program, environment = "celery", self._environment
        if self.ahead:
            library = find_faketime()
            assert library is not None
            program, environment = "tests.chaos.clocks", environment | clock_environment(library, self.ahead)
        self._process = ModuleProcess("Worker", program, self._arguments, self._log, environment=environment)

    def warnings_of(self, ahead: timedelta) -> int:
        """How often it has told that its clock is wrong in that direction."""
        direction = "ahead of" if ahead > timedelta(0) else "behind"
        pattern = rf"The clock of this host is 3[56]\d\d\.\d s {direction}"
        return len(re.findall(pattern, self._log.read_text(errors="replace")))

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop(30)

    def children(self) -> list[int]:
        """Its own processes; none where the system does not tell."""
        return child_processes(self.process.pid)


@dataclass
class Stage:
    """A run's processes. As a context manager they run from entry to exit."""

    config: RunConfig
    seed: int
    messages: int
    #: How long storing the messages takes if nothing holds it up.
    feeding_seconds: float
    kills: list[Kill] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.mail_server = MailServer(self.config.directory, self.seed)
        self.feeder_journal = self.config.directory / "feeder.journal"
        self.workers: list[Worker] = []
        self.feeder: Process | None = None
        self.neighbour_journal = self.config.directory / "neighbour.journal"
        self.neighbour: Process | None = None
        self.neighbours_worker: Worker | None = None
        self._accepted = JournalReader(self.mail_server.journal)
        self._committed = JournalReader(self.feeder_journal)
        self._counts = {"accepted": 0, "committed": 0}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self.mail_server.stop)
            self.mail_server.start()
            for number in (1, 2):
                worker = Worker(f"worker {number}", 2, self.config, self.mail_server)
                self.workers.append(worker)
                if number == 2 and not self.config.why_no_clocks():
                    worker.ahead = APART if self.seed % 2 else -APART
                stack.callback(worker.stop)
                worker.start()
            neighbour = self.config.of_neighbour()
            arguments = ["--journal", str(self.neighbour_journal)]
            log = self.config.directory / "neighbour.log"
            self.neighbour = ModuleProcess(
                "The other project", "tests.chaos.neighbour", arguments, log, environment=neighbour.environment()
            )
            stack.callback(self.neighbour.kill)
            self.neighbour.first_line(60)
            self.neighbours_worker = Worker("worker of the other project", 1, neighbour, self.mail_server)
            stack.callback(self.neighbours_worker.stop)
            self.neighbours_worker.start()
            for worker in self.all_workers:
                worker.process.wait_until(lambda worker=worker: worker.ready, 60)  # type: ignore[misc]
            stack.callback(self._let_the_broker_go_on)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def all_workers(self) -> list[Worker]:
        """Those of both projects."""
        return self.workers + ([self.neighbours_worker] if self.neighbours_worker else [])

    def end_neighbour(self) -> None:
        """Have the other project store no more; its process ends once everything is sent and purged."""
        if self.neighbour is not None and self.neighbour.running:
            os.kill(self.neighbour.pid, signal.SIGTERM)

    def start_feeder(self) -> None:
        arguments = [
            "--messages", str(self.messages), "--seed", str(self.seed), "--seconds", str(self.feeding_seconds),
            "--journal", str(self.feeder_journal),
        ]  # fmt: skip
        log = self.config.directory / "feeder.log"
        environment = self.config.environment()
        self.feeder = ModuleProcess("Feeder", "tests.chaos.feeder", arguments, log, environment=environment)
        self._stack.callback(self.feeder.stop)

    def kill(self, what: str, do: Callable[[], object]) -> None:
        """Kill something, and remember when."""
        begun = time.time()
        do()
        self.kills.append(Kill(what, begun, time.time()))

    def restart_ended_workers(self, being_broken: set[str]) -> None:
        """What a supervisor does. Celery ends a worker by itself where its broker goes away at a bad moment.

        Args:
            being_broken: names of those that somebody else looks after.
        """
        for worker in self.all_workers:
            now = time.time()
            if worker.name in being_broken or worker.process.running:
                worker.seen_running = now
                continue
            self.kills.append(Kill("worker that Celery has ended", worker.seen_running, now))
            worker.process.kill()
            worker.start()

    def signal_broker(self, number: signal.Signals) -> None:
        """Stop the broker's process, or let it go on."""
        broker = self.config.broker
        if broker is None or not broker.running:
            return
        if isinstance(broker, EmbeddedRedis):
            os.kill(broker.pid, number)
        else:
            assert broker._process is not None
            os.killpg(broker._process.pid, number)

    def counts(self) -> dict[str, int]:
        """How many mails were committed, and how many were accepted, with all their copies."""
        for reader in (self._accepted, self._committed):
            for entry in reader.new_entries():
                if entry.what in self._counts:
                    self._counts[entry.what] += 1
        return self._counts

    def stop_workers(self) -> None:
        """Have them end in order, so that nothing is sent any more."""
        for worker in self.all_workers:
            worker.stop()

    def _let_the_broker_go_on(self) -> None:
        self.signal_broker(signal.SIGCONT)
