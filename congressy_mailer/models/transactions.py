"""The database of the models, and transactions that are repeated after a conflict."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from django.db import Error, OperationalError, connections, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from .messages import Message


def commits_manually(connection: BaseDatabaseWrapper) -> bool:
    """Whether the host commits by hand: Django runs no hooks then; the next sweep publishes what it stored."""
    return not (connection.in_atomic_block or connection.get_autocommit())


def is_away() -> bool:
    """Whether the outbox's own database cannot be asked now, neither over this connection nor over a new one.

    An error of a query alone does not tell: the query may have been a template's, may have gone to another database,
    or the database may have refused that one query.
    """
    connection = connections[database()]
    for _ in range(2):
        try:
            Message.objects.using(database()).exists()
        except Error:
            if connection.in_atomic_block:
                # A new connection would not be in the transaction.
                return True
            connection.close()
        else:
            return False
    return True


# Deadlock and serialisation failure (PostgreSQL), deadlock and lock wait timeout (MariaDB, MySQL).
_CONFLICTS = {"40P01", "40001", 1213, 1205}
_CONFLICT_TRIES = 8

_P = ParamSpec("_P")
_R = TypeVar("_R")


def database() -> str:
    """Alias of the database that the messages are written to."""
    return router.db_for_write(Message)


def retry_on_conflict(func: Callable[_P, _R]) -> Callable[_P, _R]:
    """Run the function in a transaction of its own, and again when the database broke it off to end a deadlock."""

    @wraps(func)
    def wrapper(*args: _P.args, **options: _P.kwargs) -> _R:
        for attempt in range(_CONFLICT_TRIES):
            try:
                with transaction.atomic(using=database()):
                    return func(*args, **options)
            except OperationalError as error:
                # Inside somebody's transaction it is the whole of it that has to be run again, not our part.
                inside = connections[database()].in_atomic_block
                if inside or attempt == _CONFLICT_TRIES - 1 or not _is_conflict(error):
                    raise
                time.sleep(random.uniform(0, 0.02 * 2**attempt))  # noqa: S311
        raise AssertionError("unreachable")

    return wrapper


def _is_conflict(error: OperationalError) -> bool:
    cause = error.__cause__
    code = getattr(cause, "sqlstate", None) or (cause.args[0] if cause is not None and cause.args else None)
    return code in _CONFLICTS or "database is locked" in str(error)
