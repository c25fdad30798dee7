"""A PgBouncer of the tests' own, before a PostgreSQL."""

from __future__ import annotations

import psycopg

from testbed.servers.postgresql import PostgreSQL
from testbed.servers.server import HOST, Server

#: Connections to the database, which all clients share.
POOL_SIZE = 3


class PgBouncer(Server):
    """A PgBouncer that pools by transaction."""

    name = "PgBouncer"
    package = "pgbouncer"
    account = "postgres"
    programs = ("pgbouncer",)
    folders = ("/usr/sbin",)

    def __init__(self, database: PostgreSQL) -> None:
        """Prepare one without starting it.

        Args:
            database: a server that runs.
        """
        super().__init__()
        self._database = database
        self._configuration = self.directory / "pgbouncer.ini"

    @property
    def url(self) -> str:
        return self._database.url.replace(f":{self._database.port}/", f":{self.port}/")

    def _prepare(self) -> None:
        pass

    def _command(self) -> list[str]:
        values = {
            "listen_addr": HOST,
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "admin_users": "postgres",
            "pool_mode": "transaction",
            "default_pool_size": POOL_SIZE,
            "max_client_conn": 200,
        }
        lines = "\n".join(f"{name} = {value}" for name, value in values.items())
        database = f"* = host={HOST} port={self._database.port} user=postgres"
        self._configuration.write_text(f"[databases]\n{database}\n\n[pgbouncer]\n{lines}\n")
        return [self._program("pgbouncer"), str(self._configuration)]

    def _fill(self) -> None:
        pass

    def _answers(self) -> bool:
        try:
            with psycopg.connect(
                host=HOST, port=self.port, user="postgres", dbname="pgbouncer", autocommit=True,
                cursor_factory=psycopg.ClientCursor,
            ) as console:  # fmt: skip
                found = console.execute("SHOW CONFIG").fetchall()
        except psycopg.Error:
            return False
        return ("conffile", str(self._configuration)) in {(row[0], row[1]) for row in found}
