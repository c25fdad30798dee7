"""Claiming messages and reading them: by one statement where the database returns the rows that it has changed, which
PostgreSQL and SQLite do, else by two. Each is a transaction by itself.

The same statement finds out what would be asked for next, and is almost always answered with no.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import BooleanField, Model, QuerySet
from django.db.models.expressions import RawSQL

from ..mime.addresses import comparable_address
from ..models import Attachment, Message, Pause, Suppression, TransportStatus
from ..models.choices import WAITING
from ..models.erased import hashed_in
from ..models.transactions import database, retry_statement

# Names of what is asked for beside the columns of a message.
HAS_ATTACHMENTS = "has_attachments"
IS_SUPPRESSED = "is_suppressed"
IS_UNAVAILABLE = "is_unavailable"
IS_PAUSED = "is_paused"

# Fields that are only set where they are null.
_SET_ONCE = ("queued_at",)


class Choice(NamedTuple):
    """A ``SELECT`` of the ids of messages that may be claimed, in the order in which they are, with a limit."""

    sql: str
    parameters: Sequence[Any]


def choice(claimable: QuerySet[Message]) -> Choice:
    """The choice of these messages."""
    compiler = claimable.values("id").query.get_compiler(connection=connections[database()])
    return Choice(*compiler.as_sql())


def claim_at_once(chosen: Choice, values: Mapping[str, object], held: Callable[[], QuerySet[Message]]) -> list[Message]:
    """Change the unlocked ones of these messages, and return them with the answers as attributes.

    Args:
        chosen: which may be claimed.
        values: new values, by field.
        held: makes the query of the messages that have them, and no others.

    Returns:
        The messages in any order.
    """
    if _returns_rows(connections[database()]):
        return _claim_and_read(chosen, values)
    if not _claim(chosen, values):
        return []
    questions = _questions(database()).items()
    return list(
        held().annotate(**{name: RawSQL(f"EXISTS ({sql})", (), BooleanField()) for name, sql in questions})  # noqa: S611
    )


def _returns_rows(connection: BaseDatabaseWrapper) -> bool:
    # MariaDB returns new rows alone.
    return connection.vendor in ("postgresql", "sqlite") and connection.features.can_return_columns_from_insert


@retry_statement
def _claim_and_read(chosen: Choice, values: Mapping[str, object]) -> list[Message]:
    update, parameters = _update(connections[database()], chosen, values)
    sql = f"{update} RETURNING {_returned(database())}"
    return list(Message.objects.using(database()).raw(sql, parameters))


@retry_statement
def _claim(chosen: Choice, values: Mapping[str, object]) -> int:
    connection = connections[database()]
    with connection.cursor() as cursor:
        cursor.execute(*_update(connection, chosen, values))
        return int(cursor.rowcount)


def _update(connection: BaseDatabaseWrapper, chosen: Choice, values: Mapping[str, object]) -> tuple[str, list[Any]]:
    """The statement that claims. Locked rows are passed over, as by ``lock_free()``."""
    quoted = connection.ops.quote_name
    table, key = quoted(Message._meta.db_table), quoted("id")
    fields: dict[str, Any] = {name: Message._meta.get_field(name) for name in values}
    new_values = [field.get_db_prep_save(values[name], connection) for name, field in fields.items()]
    changes = ", ".join(
        f"{column} = COALESCE({column}, %s)" if name in _SET_ONCE else f"{column} = %s"
        for name, column in ((name, quoted(field.column)) for name, field in fields.items())
    )
    free = chosen.sql
    features = connection.features
    if features.has_select_for_update_skip_locked:
        lock = connection.ops.for_update_sql(skip_locked=True, no_key=features.has_select_for_no_key_update)
        free = f"{free} {lock}"
    if connection.vendor == "postgresql":
        # An array, so that it is carried out once.
        statement = f"UPDATE {table} SET {changes} WHERE {key} = ANY(ARRAY({free}))"  # noqa: S608
        return statement, [*new_values, *chosen.parameters]
    if connection.vendor != "mysql":
        return f"UPDATE {table} SET {changes} WHERE {key} IN ({free})", [*new_values, *chosen.parameters]  # noqa: S608
    # Row by row by their keys, also where the statistics say that the table is small: reading all of it would wait for
    # rows that somebody holds. The state is looked at again for servers without SKIP LOCKED, which lock nothing before.
    states = ", ".join(["%s"] * len(WAITING))
    statement = (
        f"UPDATE ({free}) AS free STRAIGHT_JOIN {table} FORCE INDEX (PRIMARY) ON {table}.{key} = free.{key} "  # noqa: S608
        f"SET {changes} WHERE {table}.{quoted('state')} IN ({states})"
    )
    return statement, [*chosen.parameters, *new_values, *(state.value for state in WAITING)]


@lru_cache(maxsize=8)
def _returned(alias: str) -> str:
    quoted = connections[alias].ops.quote_name
    table = quoted(Message._meta.db_table)
    columns = [f"{table}.{quoted(str(field.column))}" for field in Message._meta.concrete_fields]
    return ", ".join([*columns, *(f"EXISTS ({sql}) AS {quoted(name)}" for name, sql in _questions(alias).items())])


@lru_cache(maxsize=8)
def _questions(alias: str) -> dict[str, str]:
    connection = connections[alias]
    quoted = connection.ops.quote_name
    message = quoted(Message._meta.db_table)
    suppressed = f"{_rows_of(Suppression, alias)} WHERE {quoted(Suppression._meta.db_table)}.{quoted('address')}"
    forms = [f"{message}.{quoted('address')}", hashed_in(connection, f"{message}.{quoted('address')}")]
    if connection.vendor == "mysql":
        # It looks a list up in an index only if it is of constants, and would read the whole suppression list for each
        # message. SQLite reads the first of two queries so, and looks lists up.
        is_suppressed = " UNION ALL ".join(f"{suppressed} = {form}" for form in forms)
    else:
        is_suppressed = f"{suppressed} IN ({', '.join(forms)})"
    return {
        HAS_ATTACHMENTS: f"{_rows_of(Attachment, alias)} WHERE {quoted('message_id')} = {message}.{quoted('id')}",
        IS_SUPPRESSED: is_suppressed,
        IS_UNAVAILABLE: _rows_of(TransportStatus, alias),
        IS_PAUSED: f"{_rows_of(Pause, alias)} WHERE {quoted('resumed_at')} IS NULL",
    }


def _rows_of(model: type[Model], alias: str) -> str:
    return f"SELECT 1 FROM {connections[alias].ops.quote_name(model._meta.db_table)}"  # noqa: S608


def answer(message: Message, name: str) -> bool:
    """An answer that came with a message; ``True``, which leads to the question itself, where none did."""
    found: Any = getattr(message, name, True)
    return bool(found)


def forget_answer(message: Message, name: str) -> None:
    """Have the question itself asked from now on."""
    message.__dict__.pop(name, None)


def may_be_suppressed(message: Message) -> bool:
    """Whether the suppression list has to be asked for a claimed message."""
    recipients = message.envelope
    # The claim has asked for the one address that stands beside the message.
    asked = len(recipients) == 1 and comparable_address(recipients[0]) == message.address
    return not asked or answer(message, IS_SUPPRESSED)
