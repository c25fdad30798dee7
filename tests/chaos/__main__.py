"""``python -m tests.chaos [--seed N] [--database NAME] [--broker NAME] [--on-crash resend|hold] …``.

Without a choice of database, broker or ON_CRASH: a run on each database with Redis, one with RabbitMQ, and one with
``ON_CRASH = "hold"``. Each run is a process of its own.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from congressy_mailer.testing.local_sparkpost import lifetime
from testbed.redis_server import EmbeddedRedis
from testbed.servers.mariadb import MariaDB
from testbed.servers.postgresql import PostgreSQL
from testbed.servers.rabbitmq import RabbitMQ
from testbed.servers.server import Server

_DATABASES: dict[str, type[Server] | None] = {"sqlite": None, "postgresql": PostgreSQL, "mariadb": MariaDB}
_ALL = [
    ("sqlite", "redis", "resend"),
    ("postgresql", "redis", "resend"),
    ("mariadb", "redis", "resend"),
    ("postgresql", "rabbitmq", "resend"),
    ("sqlite", "redis", "hold"),
]
#: Of the time of a run: how long mails are stored, and how long faults go on.
_FEEDING = 0.4
_CHAOS = 0.45


def main() -> int:
    """Run what was asked for, and return the exit status."""
    parser = argparse.ArgumentParser("python -m tests.chaos", description=__doc__, allow_abbrev=False)
    parser.add_argument("--database", choices=_DATABASES)
    parser.add_argument("--broker", choices=["redis", "rabbitmq"])
    parser.add_argument("--on-crash", choices=["resend", "hold"])
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--seed", type=int, help="the same faults in the same order; random unless given")
    parser.add_argument("--seconds", type=float, default=118, help="most that one run may take (default: 118)")
    parser.add_argument("--rest", type=float, help="most seconds for what is left after the faults; part of --seconds")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the logs and journals in this folder")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = random.randrange(1, 1_000_000)
    # So that everything ends in order.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    if not (options.database or options.broker or options.on_crash):
        return _run_all(options)
    options.database = options.database or "sqlite"
    options.broker = options.broker or "redis"
    options.on_crash = options.on_crash or "resend"
    try:
        return _run_one(options)
    except KeyboardInterrupt:
        return 130


def _run_all(options: argparse.Namespace) -> int:
    results = []
    for database, broker, on_crash in _ALL:
        command = [
            sys.executable, lifetime.__file__, str(os.getpid()), str(int(signal.SIGTERM)), sys.executable,
            "-m", "tests.chaos", "--database", database, "--broker", broker, "--on-crash", on_crash,
            "--messages", str(options.messages), "--seed", str(options.seed), "--seconds", str(options.seconds),
        ]  # fmt: skip
        if options.keep:
            command += ["--keep", str(options.keep / f"{database}-{broker}-{on_crash}")]
        run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        last = ""
        try:
            assert run.stdout is not None
            for line in run.stdout:
                print(line, end="", flush=True)
                last = line
            status = run.wait()
        except BaseException:
            # At Ctrl-C it has been told as well.
            run.terminate()
            run.wait(60)
            raise
        results.append((status, last))
    print()
    for _, last in results:
        print(last, end="")
    return max(status for status, _ in results)


def _run_one(options: argparse.Namespace) -> int:
    with ExitStack() as stack:
        directory = Path(options.keep or tempfile.mkdtemp(prefix="chaos-")).absolute()
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            say(f"{directory} is not empty: its files would be counted with those of this run.")
            return 2
        if not options.keep:
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
        return _play(options, directory, stack)


def _play(options: argparse.Namespace, directory: Path, stack: ExitStack) -> int:
    began = time.monotonic()
    say(
        f"\n── chaos on {options.database} and {options.broker}, {options.on_crash}, seed {options.seed} ──\n"
        f"again: python -m tests.chaos --database {options.database} --broker {options.broker} "
        f"--on-crash {options.on_crash} --messages {options.messages} --seed {options.seed}"
    )
    kind = _DATABASES[options.database]
    for server in (kind, RabbitMQ if options.broker == "rabbitmq" else None):
        if server is not None and not server.is_installed():
            say(f"{server.name} was not found: apt install {server.package}")
            return 1 if os.environ.get("CI") else 0
    database = stack.enter_context(kind(durable=True)) if kind else None
    broker = stack.enter_context(RabbitMQ() if options.broker == "rabbitmq" else EmbeddedRedis())

    from tests.chaos.stage import RunConfig, Stage

    url = database.url if database else f"sqlite://{directory}/chaos.sqlite3"
    config = RunConfig(directory, url, broker.url, options.on_crash, database, broker)
    os.environ.update(config.environment())

    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)

    # These import models.
    from tests.chaos.report import conclude
    from tests.chaos.run import Run, StuckError

    stage = stack.enter_context(Stage(config, options.seed, options.messages, options.seconds * _FEEDING))
    chaos_seconds = options.seconds * _CHAOS
    rest = options.rest or options.seconds - (time.monotonic() - began) - chaos_seconds
    run = Run(stage, chaos_seconds, rest, say)
    try:
        tally = run.play()
    except StuckError as error:
        say(str(error))
        stage.stop_workers()
        tally = run.count()
    return conclude(tally, run.faults, options, say)


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
