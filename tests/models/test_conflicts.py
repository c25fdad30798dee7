"""Transactions that a database breaks off in favour of another one are run again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import InternalError, OperationalError, connection, connections, transaction

from congressy_mailer import send_mail
from congressy_mailer.models import Message
from congressy_mailer.models.transactions import is_conflict, retry_on_conflict

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.usefixtures("published")]

#: What each database says of a conflict; where it can be had say it itself, over its own driver.
RAISED = {
    "mysql": [
        f"SIGNAL SQLSTATE '{state}' SET MYSQL_ERRNO = {number}, MESSAGE_TEXT = 'broken off'"
        for number, state in ((1205, "HY000"), (1213, "40001"), (1020, "HY000"))
    ],
    "postgresql": [
        f"DO $$ BEGIN RAISE EXCEPTION 'broken off' USING ERRCODE = '{state}'; END $$"
        for state in ("40P01", "40001", "55P03")
    ],
    "sqlite": [],
}


def test_each_conflict_that_the_database_tells_of_is_tried_again() -> None:
    for statement in RAISED[connection.vendor]:
        tries = []

        @retry_on_conflict
        def change(statement: str = statement, tries: list[int] = tries) -> str:
            tries.append(1)
            if len(tries) < 3:
                with connection.cursor() as cursor:
                    cursor.execute(statement)
            return "done"

        assert change() == "done"
        assert len(tries) == 3, statement


def test_other_errors_are_not_tried_again() -> None:
    tries = []

    @retry_on_conflict
    def change() -> None:
        tries.append(1)
        with connection.cursor() as cursor:
            cursor.execute("SELECT * FROM no_such_table")

    with pytest.raises(Exception, match="no_such_table"):
        change()
    assert len(tries) == 1


@contextmanager
def locked(key: Any) -> Iterator[threading.Event]:
    """Another connection holds the row of a message, until the event is set."""
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with transaction.atomic():
                Message.objects.filter(pk=key).update(reason="held")
                held.set()
                release.wait(60)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as other:
        done = other.submit(hold)
        assert held.wait(30)
        try:
            yield release
        finally:
            release.set()
        done.result()


def test_a_lock_that_took_too_long_is_waited_for_once_more() -> None:
    if connection.vendor == "sqlite":
        # It has one lock for all, and waits where the transaction begins, before the function is called.
        return
    key = send_mail("x", "y", to="ana@example.com").pk
    short = {"mysql": "SET innodb_lock_wait_timeout = 1", "postgresql": "SET lock_timeout = '300ms'"}
    tries = []
    with locked(key) as release, connection.cursor() as cursor:
        cursor.execute(short[connection.vendor])

        @retry_on_conflict
        def change() -> int:
            tries.append(1)
            if len(tries) == 2:
                release.set()
            return Message.objects.filter(pk=key).update(reason="changed")

        assert change() == 1
    connection.close()
    assert len(tries) >= 2
    assert Message.objects.get(pk=key).reason == "changed"


def test_a_row_that_changed_since_it_was_read_is_read_again() -> None:
    if connection.vendor != "mysql":
        # Elsewhere the isolation level of Django's connections lets it through.
        return
    key = send_mail("x", "y", to="ana@example.com").pk
    tries = []

    def change_elsewhere() -> None:
        try:
            Message.objects.filter(pk=key).update(reason="changed elsewhere")
        finally:
            connections.close_all()

    with connection.cursor() as cursor:
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SHOW VARIABLES LIKE 'innodb_snapshot_isolation'")
        if cursor.fetchone() is None:
            # Older servers do not look.
            return
        cursor.execute("SET innodb_snapshot_isolation = ON")

        @retry_on_conflict
        def change() -> int:
            tries.append(Message.objects.get(pk=key).reason)
            if len(tries) == 1:
                with ThreadPoolExecutor(1) as other:
                    other.submit(change_elsewhere).result()
            return Message.objects.filter(pk=key).update(reason="changed")

        assert change() == 1
    connection.close()
    assert tries == ["", "changed elsewhere"]


class Raised(Exception):
    """As a driver raises it."""

    def __init__(self, *args: Any, sqlstate: str | None = None) -> None:
        super().__init__(*args)
        self.sqlstate = sqlstate


@pytest.mark.parametrize("number", [1205, 1213, 1020])
@pytest.mark.parametrize("kind", [OperationalError, InternalError])
@pytest.mark.parametrize("sqlstate", [None, "HY000"])
def test_drivers_of_mysql_with_and_without_a_sqlstate(number: int, kind: type, sqlstate: str | None) -> None:
    error = kind(number, "broken off")
    # mysqlclient and PyMySQL before 1.2 tell the number alone.
    error.__cause__ = Raised(number, "broken off", sqlstate=sqlstate) if sqlstate else Exception(number, "broken off")
    assert is_conflict(error)
    error.__cause__ = Raised(1054, "Unknown column", sqlstate="42S22")
    assert not is_conflict(kind(1054, "Unknown column"))
    assert not is_conflict(kind())
