"""The servers that the tests bring with them, and the runner that uses them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from kombu import Connection

from testbed.servers.mariadb import MariaDB
from testbed.servers.postgresql import PostgreSQL
from testbed.servers.rabbitmq import RabbitMQ
from testbed.servers.server import Server
from tests import run

pytestmark = pytest.mark.once

_ROOT = Path(__file__).resolve().parents[2]


def _needed(kind: type[Server]) -> None:
    if not kind.is_installed():
        pytest.skip(f"{kind.name} is not installed: apt install {kind.package}")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("kind", [PostgreSQL, MariaDB])
def test_what_a_durable_database_acknowledged_survives_its_death_on_the_same_port(
    kind: type[PostgreSQL] | type[MariaDB],
) -> None:
    _needed(kind)
    with kind(durable=True) as server:
        url = server.url
        with closing(server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE kept (id integer)")
            cursor.execute("INSERT INTO kept VALUES (1)")
            server.kill()
            assert not server.running
            assert not _listens(server.port)
        server.start()
        assert server.url == url
        with closing(server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO kept VALUES (2)")
        server.restart()
        with closing(server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT id FROM kept ORDER BY id")
            assert list(cursor.fetchall()) == [(1,), (2,)]
    assert not _listens(server.port)
    assert not server.directory.exists()


def test_a_shutdown_of_postgresql_does_not_wait_for_its_clients() -> None:
    _needed(PostgreSQL)
    with PostgreSQL() as server, closing(server.connect()) as connection:
        server.stop()
        assert not server.running
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


def test_rabbitmq_is_private_and_leaves_nothing_behind() -> None:
    _needed(RabbitMQ)
    with RabbitMQ() as server:
        with closing(Connection(server.url)) as connection, closing(connection.SimpleQueue("numbers")) as queue:
            queue.put({"id": 1})
            assert queue.get(timeout=10).payload == {"id": 1}
        epmd_port = server._epmd_port
        assert epmd_port != 4369
        assert _listens(epmd_port)
    assert not _listens(server.port)
    assert not _listens(epmd_port)
    assert not server.directory.exists()


@pytest.mark.parametrize("kind", [PostgreSQL, MariaDB, RabbitMQ])
def test_a_server_that_is_not_installed_is_said(
    kind: type[Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(kind, "programs", ("congressy-mailer-no-such-program",))
    for name in ("CI", "POSTGRESQL_URL", "MYSQL_URL", "AMQP_URL"):
        monkeypatch.delenv(name, raising=False)
    assert run.main(["--on", kind.name.lower()]) == 0
    said = capfd.readouterr().out
    assert f"{kind.name} was not found: apt install {kind.package}" in said
    assert said.endswith("\n0 passed, 0 failed\n")

    monkeypatch.setenv("CI", "true")
    assert run.main(["--on", kind.name.lower()]) == 1
    assert capfd.readouterr().out.endswith("\n0 passed, 1 failed\n")


#: Plugins that the samples need not: to load Django's alone takes as long as the rest of a run.
_WITHOUT = ["-p", "no:cacheprovider", "-p", "no:django", "-p", "no:hypothesispytest"]


def _run_on_sqlite(folder: Path, source: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the runner on a file of tests."""
    return _run(folder, source, "--on", "sqlite", "-n0", *arguments)


def _run(folder: Path, source: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    file = folder / "test_sample.py"
    file.write_text(source)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, "-m", "tests.run", *_WITHOUT, str(file), *arguments],
        cwd=_ROOT,
        env={**inherited, "TMPDIR": str(folder), "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_errors_count_as_failures_and_a_database_given_for_something_else_is_not_used(tmp_path: Path) -> None:
    done = _run_on_sqlite(
        tmp_path,
        "import pytest\n"
        "from django.db import connection\n"
        "@pytest.fixture\n"
        "def broken():\n"
        "    raise ValueError\n"
        "def test_error(broken): pass\n"
        "def test_failure(): assert False\n"
        "def test_success(): assert connection.vendor == 'sqlite'\n",
    )
    assert done.returncode == 1
    assert done.stdout.endswith("\n1 passed, 2 failed\n")


def test_arguments_reach_pytest_and_a_run_that_did_not_take_place_has_failed(tmp_path: Path) -> None:
    done = _run_on_sqlite(tmp_path, "def test_success(): pass\ndef test_other(): assert False\n", "-k", "success")
    assert done.returncode == 0
    assert done.stdout.endswith("\n1 passed, 0 failed\n")

    done = _run_on_sqlite(tmp_path, "def test_success(): pass\n", "--no-such-option")
    assert done.returncode == 1
    assert done.stdout.endswith("\n0 passed, 1 failed\n")


def test_what_ran_on_the_servers_is_shown_and_counted_as_well(tmp_path: Path) -> None:
    done = _run(
        tmp_path,
        "import pytest\n"
        "from django.conf import settings\n"
        "def on_a_server(): return 'sqlite' not in settings.DATABASES['default']['ENGINE']\n"
        "@pytest.mark.database\n"
        "def test_fails_on_servers(): assert not on_a_server()\n"
        "@pytest.mark.database\n"
        "def test_succeeds(): pass\n",
        "-n0",
        POSTGRESQL_URL="postgresql://nobody@127.0.0.1:1/none",
        MYSQL_URL="mysql://nobody@127.0.0.1:1/none",
        AMQP_URL="amqp://127.0.0.1:1",
    )
    assert done.returncode == 1
    assert "── MariaDB of MYSQL_URL ──" in done.stdout
    assert done.stdout.endswith("\n4 passed, 2 failed\n")


def test_a_server_runs_the_files_with_its_marker_but_none_whose_packages_are_installed_elsewhere() -> None:
    files = run.files_with("database", [])
    assert "tests/outbox/test_outbox.py" in files
    assert "mark.database" in (_ROOT / "tests" / "third_parties" / "test_time.py").read_text()
    assert [file for file in files if "third_parties" in file] == []
