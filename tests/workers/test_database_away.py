"""The database goes away while mail is delivered: nothing is lost, and what was accepted is not sent again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest

from congressy_mailer.testing.local_sparkpost.replies import Exchange, Stage
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from testbed.processes import Process
from testbed.servers.mariadb import MariaDB
from testbed.servers.postgresql import PostgreSQL
from tests.conftest import wait_for
from tests.support.forked import run_module

pytestmark = pytest.mark.parametrize("kind", [PostgreSQL, MariaDB])

Database = PostgreSQL | MariaDB


@pytest.fixture
def database(kind: type[Database]) -> Any:
    """A database of the test's own, whose power can be cut."""
    if not kind.is_installed():
        pytest.skip(f"{kind.name} is not installed: apt install {kind.package}")
    with kind(durable=True) as server:
        yield server


@pytest.fixture
def in_host(database: Database, broker: str, tmp_path: Path) -> Callable[..., None]:
    """Run something in a process of the host project that uses this database."""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "MAILER_TEST_DIRECTORY": str(tmp_path),
        "MAILER_TEST_WORKER": "1",
        "DATABASE_URL": database.url,
        "BROKER_URL": broker,
    }

    def run(*arguments: str) -> None:
        run_module("django", *arguments, environment=environment).check_returncode()

    # Without the checks: this process does not import the Celery app.
    run("migrate", "--skip-checks", "--verbosity", "0")
    return run


def send(in_host: Callable[..., None], count: int) -> None:
    in_host(
        "shell", "-c",
        "import tests.project\n"
        "from django.db import transaction\n"
        "from congressy_mailer import send_mail\n"
        "with transaction.atomic():\n"
        f"    for number in range({count}):\n"
        "        send_mail(f'mail {number}', 'y', to=f'person{number}@example.com')",
    )  # fmt: skip


def states(database: Database) -> list[str]:
    """The state of each message; nothing while the database is away."""
    try:
        with closing(database.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT state FROM congressy_mailer_message")
            return [state for (state,) in cursor.fetchall()]
    except (psycopg.OperationalError, pymysql.OperationalError):
        return []


def test_what_the_server_took_is_recorded_when_the_database_is_back(
    database: Database,
    in_host: Callable[..., None],
    start_worker: Callable[..., Process],
    smtp_server: LocalSparkPost,
) -> None:
    killed: list[str] = []

    def cut_the_power(exchange: Exchange) -> None:
        if exchange.stage is Stage.CONTENT and not killed and len(smtp_server.mailbox) == 2:
            killed.append(exchange.sender)
            database.kill()

    smtp_server.script = cut_the_power
    worker = start_worker(DATABASE_URL=database.url, MAILER_TEST_SWEEP_INTERVAL_SECONDS="1")
    send(in_host, 6)
    wait_for(lambda: "what was sent is recorded when it is back" in worker.output(), what="the worker's complaint")
    assert len(smtp_server.mailbox) == 3
    database.start()
    wait_for(lambda: states(database) == ["sent"] * 6, 60, "all six mails sent")
    assert list(smtp_server.mailbox.copies().values()) == [1] * 6


def test_a_database_that_is_away_when_the_work_begins_is_waited_for(
    database: Database,
    in_host: Callable[..., None],
    start_worker: Callable[..., Process],
    smtp_server: LocalSparkPost,
) -> None:
    worker = start_worker(DATABASE_URL=database.url)
    # Started first, because Django's own checks ask some databases, and stopped until this one is gone.
    os.killpg(worker.pid, signal.SIGSTOP)
    send(in_host, 3)
    database.kill()
    os.killpg(worker.pid, signal.SIGCONT)
    wait_for(lambda: "Retry in" in worker.output(), what="the task's retry")
    database.start()
    wait_for(lambda: states(database) == ["sent"] * 3, 60, "all three mails sent")
    assert list(smtp_server.mailbox.copies().values()) == [1] * 3
