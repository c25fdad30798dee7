"""Rows that a host's open transaction holds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection, connections, transaction


@contextmanager
def held_by_a_host(change: Callable[[], Any]) -> Iterator[None]:
    """A transaction that has changed something and stays open."""
    begun, over = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def hold() -> None:
        try:
            with transaction.atomic():
                change()
                begun.set()
                over.wait(60)
                transaction.set_rollback(True)
        except BaseException as error:
            failures.append(error)
        finally:
            begun.set()
            connections.close_all()

    host = threading.Thread(target=hold)
    host.start()
    try:
        assert begun.wait(30)
        assert not failures
        with waiting_is_an_error():
            yield
    finally:
        over.set()
        host.join()


@contextmanager
def waiting_is_an_error() -> Iterator[None]:
    """A worker's connection that gives up after a second instead of waiting for a lock."""
    statements = {
        "postgresql": ("SET lock_timeout = '1s'", "RESET lock_timeout"),
        "mysql": ("SET innodb_lock_wait_timeout = 1", "SET innodb_lock_wait_timeout = DEFAULT"),
    }
    begin, end = statements[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(begin)
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(end)
