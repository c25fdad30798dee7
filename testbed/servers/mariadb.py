"""A MariaDB of the tests' own."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pymysql

from testbed.servers.server import HOST, Server

_DATABASE = "mailer"


class MariaDB(Server):
    """A MariaDB with an empty database."""

    name = "MariaDB"
    package = "mariadb-server"
    account = "mysql"
    programs = ("mariadb-install-db", "mariadbd")
    folders = ("/usr/sbin", "/usr/libexec")

    @property
    def url(self) -> str:
        return f"mysql://root@{HOST}:{self.port}/{_DATABASE}"

    def connect(self, database: str | None = _DATABASE) -> Any:
        """A connection of PyMySQL, in autocommit mode."""
        return pymysql.connect(
            host=HOST, port=self.port, user="root", database=database, connect_timeout=5, autocommit=True
        )

    def _prepare(self) -> None:
        options = ["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]
        self._run(
            self._program("mariadb-install-db"), "--no-defaults", f"--datadir={self.directory / 'data'}", *options
        )

    def _command(self) -> list[str]:
        values = {
            "datadir": self.directory / "data",
            "tmpdir": self.directory,
            "socket": self.directory / "socket",
            "pid-file": self.directory / "pid",
            "bind-address": HOST,
            "port": self.port,
            "character-set-server": "utf8mb4",
            "innodb-flush-log-at-trx-commit": 1 if self.durable else 0,
        }
        command = [self._program("mariadbd"), "--no-defaults", "--skip-name-resolve"]
        return command + [f"--{name}={value}" for name, value in values.items()]

    def _answers(self) -> bool:
        try:
            with closing(self.connect(None)) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT @@datadir")
                found = cursor.fetchone()
        except pymysql.OperationalError:
            return False
        return Path(found[0]).is_relative_to(self.directory.resolve())

    def _fill(self) -> None:
        with closing(self.connect(None)) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {_DATABASE}")
