"""Two databases on each server, a small one and a large one, and which of them our code works in at the moment."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import django
from celery import Celery
from django.apps import apps
from django.conf import settings
from django.core.management import call_command
from django.db import connections

from testbed.servers.mariadb import MariaDB
from testbed.servers.postgresql import PostgreSQL
from testbed.servers.server import HOST, Server

#: Where the servers leave nothing to chance: nobody analyses or vacuums a table while it is measured.
_POSTGRESQL = {
    "shared_buffers": "512MB", "maintenance_work_mem": "512MB", "max_wal_size": "8GB", "checkpoint_timeout": "1h",
    "autovacuum": "off",
    # The history is written once, and not to the log as well.
    "wal_level": "minimal", "max_wal_senders": "0",
}  # fmt: skip
_MARIADB = {"innodb_buffer_pool_size": 512 << 20, "innodb_stats_auto_recalc": 0}


class Sides(NamedTuple):
    """The two databases of one server, by their aliases."""

    vendor: str
    small: str
    large: str


class Router:
    """Has all of our models in the database that was chosen last."""

    alias = ""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return Router.alias

    db_for_write = db_for_read

    def allow_relation(self, *objects: Any, **hints: Any) -> bool:
        return True


@contextmanager
def using(alias: str) -> Iterator[None]:
    """Have our code work in this database."""
    before, Router.alias = Router.alias, alias
    try:
        yield
    finally:
        Router.alias = before


class Databases(ExitStack):
    """The servers; used as a context manager they are gone, with their files, on exit."""

    def __init__(self, vendors: list[str]) -> None:
        super().__init__()
        #: Of each of these that is installed.
        self.sides: list[Sides] = []
        #: What is not, and what to install.
        self.missing: list[str] = []
        self._vendors = vendors

    def __enter__(self) -> Databases:
        super().__enter__()
        configured: dict[str, Any] = {"default": {}}
        for vendor in self._vendors:
            if vendor == "sqlite":
                found: Any = self._files()
            else:
                found = self._server({"postgresql": PostgreSQL, "mariadb": MariaDB}[vendor])
            if found is not None:
                sides = Sides(vendor, f"{vendor}_small", f"{vendor}_large")
                configured |= zip(sides[1:], found, strict=True)
                self.sides.append(sides)
        _configure(configured)
        for sides in self.sides:
            for alias in sides[1:]:
                call_command("migrate", database=alias, verbosity=0, skip_checks=True)
        return self

    def _files(self) -> list[dict[str, Any]]:
        folder = self.enter_context(tempfile.TemporaryDirectory(prefix="congressy-mailer-scale-"))
        # As the documentation tells whoever runs workers on SQLite.
        options = {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        }
        engine = "django.db.backends.sqlite3"
        return [{"ENGINE": engine, "NAME": str(Path(folder, name)), "OPTIONS": options} for name in ("small", "large")]

    def _server(self, kind: type[Server]) -> list[dict[str, Any]] | None:
        if not kind.is_installed():
            self.missing.append(f"{kind.name} was not found: apt install {kind.package}")
            return None
        # As it comes: what is committed is on the disk.
        server: Any = self.enter_context(kind(durable=True))
        engine, user, options = "django.db.backends.postgresql", "postgres", {}
        if kind is PostgreSQL:
            with server.connect() as connection:
                for name, value in _POSTGRESQL.items():
                    connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
            server.restart()
        else:
            engine, user, options = "django.db.backends.mysql", "root", {"charset": "utf8mb4"}
        with server.connect() as connection, connection.cursor() as cursor:
            for name in ("small", "large"):
                cursor.execute(f"CREATE DATABASE {name}")
            if kind is MariaDB:
                for name, value in _MARIADB.items():
                    cursor.execute(f"SET GLOBAL {name} = {value}")
        return [
            {"ENGINE": engine, "NAME": name, "USER": user, "HOST": HOST, "PORT": server.port, "OPTIONS": options}
            for name in ("small", "large")
        ]


def _configure(databases: dict[str, Any]) -> None:
    import pymysql

    pymysql.version_info = (2, 2, 7, "final", 0)
    pymysql.install_as_MySQLdb()
    settings.configure(
        SECRET_KEY="only for measurements",  # noqa: S106
        USE_TZ=True, DATABASES=databases,
        DATABASE_ROUTERS=["benchmarks.scale.databases.Router"],
        INSTALLED_APPS=[
            *(f"django.contrib.{name}" for name in ("admin", "auth", "contenttypes", "humanize")),
            *(f"django.contrib.{name}" for name in ("messages", "sessions")),
            "congressy_mailer",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        ROOT_URLCONF="benchmarks.scale.urls", STATIC_URL="static/", ALLOWED_HOSTS=["testserver"],
        CELERY_BROKER_URL="memory://", CONGRESSY_EMAIL_SENDER="mail@congressy.net",
        CONGRESSY_MAILER={"METRICS_TOKEN": "only-for-measurements"},
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "DIRS": [Path(__file__).parent.parent / "project" / "templates"],
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    )  # fmt: skip
    django.setup()
    # What is published stays in this process.
    Celery("scale", broker="memory://")


def analyze(alias: str) -> None:
    """Have the planner's statistics made anew."""
    models = apps.get_app_config("congressy_mailer").get_models()
    tables = ", ".join(sorted({model._meta.db_table for model in models}))
    with connections[alias].cursor() as cursor:
        cursor.execute({"mysql": f"ANALYZE TABLE {tables}"}.get(connections[alias].vendor, "ANALYZE"))


def log_position(alias: str) -> int:
    """Bytes that PostgreSQL has written to its log."""
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        return int(cursor.fetchone()[0])
