"""The database of the models, and transactions that are repeated after a conflict."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

from django.db import (
    DEFAULT_DB_ALIAS,
    Error,
    InternalError,
    OperationalError,
    ProgrammingError,
    connections,
    router,
    transaction,
)
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model, QuerySet

from ..exceptions import NotMigrated
from .messages import NO_BATCH, Message


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


@contextmanager
def explaining_missing_tables() -> Iterator[None]:
    """Say that ``migrate`` is to be run where a table or column of ours is missing.

    Raises:
        NotMigrated: one is.
    """
    try:
        yield
    except NotMigrated:
        raise
    except (OperationalError, ProgrammingError) as error:
        if not _is_ours_missing(error):
            raise
        alias = database()
        option = "" if alias == DEFAULT_DB_ALIAS else f" --database {alias}"
        raise NotMigrated(
            f"The database {alias!r} lacks a table or column that this version of congressy_mailer needs. "
            f'Run "python manage.py migrate congressy_mailer{option}". The database says: {error}'
        ) from error


# Undefined table and column (PostgreSQL; MariaDB and MySQL), and SQLite's words.
_MISSING = {"42P01", "42703", 1146, 1054}
_MISSING_WORDS = re.compile(r"no such (?:table|column)|has no column named")


def _is_ours_missing(error: Error) -> bool:
    if not (_codes(error) & _MISSING or _MISSING_WORDS.search(str(error))):
        return False
    config = Message._meta.app_config
    names = {f"{config.label}_"} if config is not None else set()
    words = str(error)
    if any(name in words for name in names):
        return True
    # Some name the column alone.
    columns = {field.column for model in config.get_models() for field in model._meta.local_fields} if config else set()
    return bool(columns & set(re.findall(r"\w+", words)) and re.search("column", words, re.IGNORECASE))


# Of PostgreSQL deadlock, serialisation failure and lock timeout; of MariaDB and MySQL deadlock, lock wait timeout, and
# (MariaDB with innodb_snapshot_isolation) a row that another transaction has changed since it was read.
_CONFLICTS = {"40P01", "40001", "55P03", 1213, 1205, 1020}
_CONFLICT_TRIES = 8

_P = ParamSpec("_P")
_R = TypeVar("_R")


def database() -> str:
    """Alias of the database that the messages are written to."""
    return router.db_for_write(Message)


_Row = TypeVar("_Row", bound=Model)


def lock_free(queryset: QuerySet[_Row]) -> QuerySet[_Row]:
    """The unlocked ones of these rows, locked to the end of the transaction, without waiting for other locks.

    A transaction of the host's may hold a row for minutes, after ``cancel()`` for instance.
    """
    connection = connections[database()]
    features = connection.features
    if features.has_select_for_update_skip_locked:
        # FOR UPDATE would also pass over a row that an open transaction has a foreign key to.
        return queryset.select_for_update(skip_locked=True, no_key=features.has_select_for_no_key_update)
    if connection.vendor == "sqlite":
        # A write that changes nothing takes SQLite's only lock, so no other writer can claim what is read after it.
        Message.objects.using(database()).filter(id=NO_BATCH).update(reason="")
    return queryset


def retry_on_conflict(func: Callable[_P, _R]) -> Callable[_P, _R]:
    """Run the function in a transaction of its own, and again when the database broke it off to end a deadlock."""

    @wraps(func)
    def wrapper(*args: _P.args, **options: _P.kwargs) -> _R:
        for attempt in range(_CONFLICT_TRIES):
            try:
                with transaction.atomic(using=database()):
                    return func(*args, **options)
            # Which of the two a conflict is depends on the driver's age.
            except (OperationalError, InternalError) as error:
                # Inside a surrounding transaction all of it would have to be run again, not only our part.
                inside = connections[database()].in_atomic_block
                if inside or attempt == _CONFLICT_TRIES - 1 or not is_conflict(error):
                    raise
                time.sleep(random.uniform(0, 0.02 * 2**attempt))  # noqa: S311
        raise AssertionError("unreachable")

    return wrapper


def retry_statement(func: Callable[_P, _R]) -> Callable[_P, _R]:
    """The same for a function that carries out a single statement, which is a transaction by itself."""
    in_transaction = retry_on_conflict(func)

    @wraps(func)
    def wrapper(*args: _P.args, **options: _P.kwargs) -> _R:
        connection = connections[database()]
        if connection.in_atomic_block or not connection.settings_dict["AUTOCOMMIT"]:
            # An error would break a surrounding transaction, or there is none that would be committed.
            return in_transaction(*args, **options)
        try:
            return func(*args, **options)
        except (OperationalError, InternalError) as error:
            if not is_conflict(error):
                raise
        return in_transaction(*args, **options)

    return wrapper


def is_conflict(error: Error) -> bool:
    """Whether the database broke off a transaction in favour of another one."""
    return bool(_codes(error) & _CONFLICTS) or "is locked" in str(error)


def _codes(error: Error) -> set[object]:
    """The SQLSTATE of PostgreSQL's drivers; the number of MySQL's, which newer ones tell beside a SQLSTATE.

    That is ``HY000``, "general error", for most of them.
    """
    cause = error.__cause__
    return {getattr(cause, "sqlstate", None), *(cause.args[:1] if cause is not None else ())}
