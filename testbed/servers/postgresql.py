"""A PostgreSQL of the tests' own."""

from __future__ import annotations

import signal
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg

from testbed.servers.server import HOST, Server

_DATABASE = "mailer"


class PostgreSQL(Server):
    """A PostgreSQL with an empty database; in the tests' use of it, the test runner makes another one beside it."""

    name = "PostgreSQL"
    package = "postgresql"
    account = "postgres"
    programs = ("initdb", "postgres")
    folders = ("/usr/lib/postgresql/*/bin",)
    shutdown = signal.SIGINT

    @property
    def url(self) -> str:
        return f"postgresql://postgres@{HOST}:{self.port}/{_DATABASE}"

    def connect(self, database: str = _DATABASE) -> Any:
        """A connection of psycopg, in autocommit mode."""
        return psycopg.connect(
            host=HOST, port=self.port, user="postgres", dbname=database, connect_timeout=5, autocommit=True
        )

    def _prepare(self) -> None:
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]
        self._run(self._program("initdb"), f"--pgdata={self.directory / 'data'}", *options)

    def _command(self) -> list[str]:
        values = {
            "port": str(self.port),
            "listen_addresses": HOST,
            "unix_socket_directories": "",
            # Not in /dev/shm, where a killed server would leave it.
            "dynamic_shared_memory_type": "mmap",
        }
        if not self.durable:
            values |= dict.fromkeys(("fsync", "synchronous_commit", "full_page_writes"), "off")
        command = [self._program("postgres"), "-D", str(self.directory / "data")]
        for name, value in values.items():
            command += ["-c", f"{name}={value}"]
        return command

    def _answers(self) -> bool:
        try:
            with closing(self.connect("postgres")) as connection:
                found = connection.execute("SHOW data_directory").fetchone()
        except psycopg.OperationalError:
            return False
        return Path(found[0]).is_relative_to(self.directory.resolve())

    def _fill(self) -> None:
        with closing(self.connect("postgres")) as connection:
            connection.execute(f"CREATE DATABASE {_DATABASE}")
