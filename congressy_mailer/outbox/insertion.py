"""The ``INSERT`` of messages: put together once for each set of columns that have anything to say.

A message has some sixty columns, and a new one says something in twenty of them. Django's ORM puts the statement
together anew for each row and hands all sixty values to the driver, which takes longer than the database does. Here a
column that has its default stands in the statement itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from django.db import connections
from django.db.models import Field, JSONField, Model
from django.db.transaction import mark_for_rollback_on_error

from ..models import Message, SearchKey
from ..models.transactions import database
from .search import Found, search_keys

# A statement of many rows stays far below max_allowed_packet of MariaDB and MySQL.
_MAX_STATEMENT_BYTES = 1_000_000
_MAX_STATEMENT_ROWS = 200


def insert_messages(messages: Sequence[Message]) -> None:
    """Store new messages in the caller's transaction. No signals of Django's models are sent.

    Raises:
        django.db.IntegrityError: one of them, or its ``idempotency_key``, is there already.
    """
    alias = database()
    connection = connections[alias]
    fields = fields_in_use(messages)
    rows = [
        tuple(field.get_db_prep_save(getattr(message, field.attname), connection) for field in fields)
        for message in messages
    ]
    insert_rows(Message, [field.attname for field in fields], rows)
    for message in messages:
        message._state.adding, message._state.db = False, alias


def fields_in_use(messages: Sequence[Message]) -> list[Field[Any, Any]]:
    """Those in which at least one of these new messages has another value than the default."""
    unused = list(_defaults(Message).items())
    for message in messages:
        values = message.__dict__
        unused = [
            (name, default)
            for name, default in unused
            # False is equal to 0, and a member of an enumeration to its text.
            if (value := values[name]) is default or (value == default and type(value) is type(default))
        ]
    names = {name for name, _ in unused}
    return [field for field in stored_fields(Message) if field.attname not in names]


def insert_search_keys(messages: Iterable[Found]) -> None:
    """Store what these new messages are found by, in the caller's transaction; most have no such key."""
    connection = connections[database()]
    key_of = SearchKey._meta.get_field("message").get_db_prep_save
    rows: list[tuple[Any, ...]] = []
    for message in messages:
        if keys := search_keys(message):
            owner = key_of(message.id, connection)
            rows += [(owner, key) for key in keys]
    insert_rows(SearchKey, ["message_id", "key"], rows)


def insert_rows(model: type[Model], names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    """Store rows in the caller's transaction; what they say nothing of has its default.

    Args:
        model: whose rows they are.
        names: columns that they give, as the model's instances have them (``attname``): those without a default too.
        rows: values as ``get_db_prep_save()`` makes them, in the order of ``names``; there may be none.
    """
    if not rows:
        return
    alias = database()
    connection = connections[alias]
    beginning, row = _statement(model, alias, tuple(names))
    with mark_for_rollback_on_error(alias), connection.cursor() as cursor:
        if len(rows) == 1:
            cursor.execute(beginning + row, rows[0])
        elif connection.vendor == "sqlite":
            # Without a network between, one row after another is the fastest.
            cursor.executemany(beginning + row, rows)
        else:
            written = len(row)
            # Django 5.2 works with a mysqlclient before 2.2 as well, which has no such method.
            mogrify = getattr(cursor, "mogrify", None) if connection.vendor == "mysql" else None
            if mogrify is not None:
                row, rows = _without_constants(mogrify, row, rows)
            for part in _parts(rows, len(row) - written):
                cursor.execute(beginning + ", ".join([row] * len(part)), [value for values in part for value in values])


def _without_constants(
    mogrify: Callable[[str, Sequence[object]], str], row: str, rows: Sequence[tuple[Any, ...]]
) -> tuple[str, Sequence[tuple[Any, ...]]]:
    """A row of a statement, in which what all rows share is written out, and what is left of each.

    The drivers of MySQL put each value into the text of the statement, which takes as long as all that is done for a
    recipient before.
    """
    # Most columns that differ do so in the first and the last row. mysqlclient gives what it writes out as text, which
    # bytes need not be.
    may_be_constant = [
        first == last and not isinstance(first, bytes) for first, last in zip(rows[0], rows[-1], strict=True)
    ]
    if not any(may_be_constant):
        return row, rows
    columns = list(zip(*rows, strict=True))
    constant = [
        may_be and column.count(column[0]) == len(column)
        for may_be, column in zip(may_be_constant, columns, strict=True)
    ]
    if all(constant):
        return row, rows
    pieces = row.split("%s")
    written = [pieces[0]]
    for column, is_constant, piece in zip(columns, constant, pieces[1:], strict=True):
        written += [mogrify("%s", [column[0]]).replace("%", "%%") if is_constant else "%s", piece]
    left = [column for column, is_constant in zip(columns, constant, strict=True) if not is_constant]
    return "".join(written), list(zip(*left, strict=True))


def _parts(rows: Sequence[tuple[Any, ...]], written: int) -> Iterator[list[tuple[Any, ...]]]:
    """The rows of each statement.

    Args:
        rows: all of them.
        written: the size of what each one has beside its values.
    """
    part: list[tuple[Any, ...]] = []
    size = 0
    for row in rows:
        part.append(row)
        size += written
        for value in row:
            if isinstance(value, str | bytes):
                size += len(value)
        if size > _MAX_STATEMENT_BYTES or len(part) == _MAX_STATEMENT_ROWS:
            yield part
            part, size = [], 0
    if part:
        yield part


#: Stands for the default of a column whose value is made anew for each row.
_NO_DEFAULT = object()


@lru_cache
def stored_fields(model: type[Model]) -> list[Field[Any, Any]]:
    """Those of the columns that are written: what the database derives is not."""
    return [field for field in model._meta.concrete_fields if not field.generated]


@lru_cache
def _defaults(model: type[Model]) -> dict[str, Any]:
    """What a new row has in each column unless it says otherwise."""
    return {
        field.attname: _NO_DEFAULT if field.has_default() and _is_made_anew(field.default) else field.get_default()
        for field in stored_fields(model)
    }


def _is_made_anew(default: Any) -> bool:
    return callable(default) and default not in (list, dict)


@lru_cache(maxsize=256)
def _statement(model: type[Model], alias: str, names: tuple[str, ...]) -> tuple[str, str]:
    """The statement up to its rows, and one row."""
    connection = connections[alias]
    quoted = connection.ops.quote_name
    fields = {field.attname: field for field in stored_fields(model)}
    given = [fields.pop(name) for name in names]
    columns = ", ".join(quoted(str(field.column)) for field in (*given, *fields.values()))
    values = ["%s"] * len(given) + [_literal(field, connection.vendor) for field in fields.values()]
    beginning = f"INSERT INTO {quoted(model._meta.db_table)} ({columns}) VALUES "  # noqa: S608
    return beginning, f"({', '.join(values)})"


def _literal(field: Field[Any, Any], vendor: str) -> str:
    """A column's default as SQL has it."""
    default = _defaults(field.model)[field.attname]
    if default is _NO_DEFAULT:
        raise TypeError(f"{field.model.__name__}.{field.attname} has no default, and must be given.")
    if default is None:
        return "NULL"
    if isinstance(field, JSONField):
        default = json.dumps(default)
    if isinstance(default, bool):
        return str(default).upper() if vendor == "postgresql" else str(int(default))
    if isinstance(default, str):
        return "'" + str.__str__(default).replace("'", "''").replace("%", "%%") + "'"
    return str(int(default))
