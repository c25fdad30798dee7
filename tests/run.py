"""Everything tested, on every database and broker: ``python -m tests.run [--on NAME] [arguments of pytest]``.

All tests run on SQLite and Redis; those that are marked ``database`` run again on PostgreSQL and MariaDB, and those
marked ``broker`` on RabbitMQ, each on a server of its own or on the one that an environment variable gives. Unless
it is said where, the servers' tests run beside the others, and their output comes at the end. The last line counts the
tests of all these runs.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Self
from xml.etree import ElementTree

from testbed.servers.mariadb import MariaDB
from testbed.servers.postgresql import PostgreSQL
from testbed.servers.rabbitmq import RabbitMQ
from testbed.servers.server import Server

_ROOT = Path(__file__).resolve().parent.parent
#: Four at a time, of any file: most of the slow tests wait for a worker, and two cores would have nothing to do.
_AT_ONCE = ["-n", "4", "--dist", "worksteal"]
#: Each of these has a database of its own on the same server.
_AT_ONCE_ON_A_SERVER = ["-n", "2", "--dist", "worksteal"]
#: The tests would take each other's tasks.
_ONE_AFTER_ANOTHER = ["-n", "1"]
#: What runs at the same time as the tests on SQLite: so all three take about as long.
_BESIDE = (["postgresql", "mariadb"], ["rabbitmq"])

#: The last one would have every process of the tests, each worker among them, compile all of the code anew.
_NOT_INHERITED = ("DATABASE_URL", "BROKER_URL", "PYTHONDONTWRITEBYTECODE")

_LAST_LINE = re.compile(r"(?P<passed>\d+) passed, (?P<failed>\d+) failed(?:, (?P<skipped>\d+) skipped)?")


class Service(NamedTuple):
    """A server that some of the tests run on once more."""

    server: type[Server]
    #: Marker of these tests.
    marker: str
    #: The variable by which they find the server.
    variable: str
    #: The variable that gives another server than one of our own.
    given_in: str


SERVICES = {
    "postgresql": Service(PostgreSQL, "database", "DATABASE_URL", "POSTGRESQL_URL"),
    "mariadb": Service(MariaDB, "database", "DATABASE_URL", "MYSQL_URL"),
    "rabbitmq": Service(RabbitMQ, "broker", "BROKER_URL", "AMQP_URL"),
}


def main(arguments: Sequence[str]) -> int:
    """Run the tests, and return the exit status."""
    names = ["sqlite", *SERVICES]
    parser = argparse.ArgumentParser("python -m tests.run", description=__doc__, allow_abbrev=False)
    parser.add_argument("--on", action="append", choices=names, help="only on this (may be repeated)")
    options, for_pytest = parser.parse_known_args(arguments)
    # So that the servers end in order.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))

    counts = _on_these(options.on, for_pytest) if options.on else _on_all(for_pytest)
    skipped = f", {counts['skipped']} skipped" if counts["skipped"] else ""
    print(f"\n{counts['passed']} passed, {counts['failed']} failed{skipped}", flush=True)
    return 1 if counts["failed"] else 0


def _on_all(for_pytest: Sequence[str]) -> Counter[str]:
    """On SQLite, and on the servers at the same time: most of the slow tests wait."""
    with ExitStack() as stack:
        runs = [stack.enter_context(_RunBeside(names, for_pytest)) for names in _BESIDE]
        counts = _on_these(["sqlite"], for_pytest)
        for run in runs:
            counts.update(run.wait())
    return counts


class _RunBeside:
    """The tests on some of the servers, by a process of its own, which ends with the context."""

    def __init__(self, names: Sequence[str], for_pytest: Sequence[str]) -> None:
        self._command = [sys.executable, "-m", "tests.run", *(f"--on={name}" for name in names), *for_pytest]

    def __enter__(self) -> Self:
        self._output = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(self._command, cwd=_ROOT, stdout=self._output, stderr=subprocess.STDOUT)
        return self

    def __exit__(self, *raised: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()
        self._output.close()

    def wait(self) -> Counter[str]:
        """Wait for the end, say what it has said, and count."""
        self._process.wait()
        self._output.seek(0)
        report, _, last = self._output.read().rstrip("\n").rpartition("\n")
        print(report, flush=True)
        if found := _LAST_LINE.fullmatch(last):
            return Counter({name: int(count or 0) for name, count in found.groupdict().items()})
        print(last, flush=True)
        return Counter(failed=1)


def _on_these(names: Sequence[str], for_pytest: Sequence[str]) -> Counter[str]:
    directory = Path(tempfile.mkdtemp(prefix="congressy-mailer-tests-"))
    # Some servers run as another user.
    directory.chmod(0o711)
    counts: Counter[str] = Counter()
    try:
        for name in names:
            if name == "sqlite":
                _say("SQLite and Redis")
                counts.update(_pytest(directory / name, {}, [*_AT_ONCE, *for_pytest]))
            else:
                counts.update(_on(SERVICES[name], directory / name, for_pytest))
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    if counts["failed"]:
        print(f"\nThe files of these runs: {directory}")
    else:
        shutil.rmtree(directory, ignore_errors=True)
    return counts


def _on(service: Service, directory: Path, for_pytest: Sequence[str]) -> Counter[str]:
    """Run the tests of a service on it."""
    at_once = _ONE_AFTER_ANOTHER if service.marker == "broker" else _AT_ONCE_ON_A_SERVER
    server = service.server
    marked = ["-m", service.marker, *at_once, *for_pytest, *files_with(service.marker, for_pytest)]
    if url := os.environ.get(service.given_in):
        _say(f"{server.name} of {service.given_in}")
        return _pytest(directory, {service.variable: url}, marked)
    if not server.is_installed():
        _say(f"{server.name} was not found: apt install {server.package}, or set {service.given_in}")
        return Counter(failed=1 if os.environ.get("CI") else 0)
    _say(server.name)
    with server() as running:
        return _pytest(directory, {service.variable: running.url}, marked)


def files_with(marker: str, for_pytest: Sequence[str]) -> list[str]:
    """The files that have tests with a marker, where none are asked for: the others need not be read."""
    if any(Path(argument.partition("::")[0]).exists() for argument in for_pytest):
        return []
    configuration = tomllib.loads((_ROOT / "pyproject.toml").read_text())
    # What these need is not installed.
    left_out = set(configuration["tool"]["pytest"]["ini_options"]["norecursedirs"])
    files = [file.relative_to(_ROOT) for file in sorted((_ROOT / "tests").rglob("test_*.py"))]
    return [
        str(file) for file in files if not left_out & set(file.parts) and f"mark.{marker}" in (_ROOT / file).read_text()
    ]


def _pytest(directory: Path, environment: Mapping[str, str], arguments: Sequence[str]) -> Counter[str]:
    """Run pytest with a folder for its files, and count."""
    directory.mkdir(mode=0o711)
    report = directory / "report.xml"
    inherited = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", f"--junit-xml={report}", *arguments],
        cwd=_ROOT,
        env={**inherited, "DJANGO_SETTINGS_MODULE": "tests.settings", "TMPDIR": str(directory), **environment},
    )
    counts: Counter[str] = Counter()
    if report.exists():
        for suite in ElementTree.parse(report).iter("testsuite"):  # noqa: S314
            found = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
            failed = found["failures"] + found["errors"]
            passed = found["tests"] - failed - found["skipped"]
            counts.update(passed=passed, failed=failed, skipped=found["skipped"])
    if done.returncode not in (0, 5) and not counts["failed"]:
        # It did not come to an end: interrupted, killed, or called wrongly. (5: none of the tests were asked for.)
        counts["failed"] = 1
    return counts


def _say(title: str) -> None:
    print(f"\n── {title} ──", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
