"""Many rows at once, as fast as the database takes them.

PostgreSQL takes a row by ``COPY`` in a small part of the time that an ``INSERT`` costs; elsewhere Django's ORM would
take longer to put the statement together than the database does to carry it out. Everything that the messages of a
batch have in common is written out once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connections
from django.db.models import Field, JSONField

from ..models import Batch, Mail, Message
from ..models.transactions import database


class Line(NamedTuple):
    """What is a message's own in a batch."""

    id: UUID
    message_id: str
    to: list[str]
    cc: list[str]
    bcc: list[str]
    #: Encoded.
    context: dict[str, Any]
    #: That of the batch, and its own.
    metadata: dict[str, Any]
    language: str
    timezone: str
    idempotency_key: str | None


# Of the mail, what says how it is sent; what it says stays with the batch.
_SHARED = [
    field.attname
    for field in Mail._meta.get_fields()
    if isinstance(field, Field)
    and field.name not in {"template", "subject", "text", "html", "created_at", *Line._fields}
]


def insert(batch: Batch, lines: Sequence[Line], **values: Any) -> None:
    """Store messages of a batch in the caller's transaction.

    Args:
        batch: what they have in common.
        lines: what they have not.
        values: further fields, the same for all.
    """
    alike = Message(batch=batch, **{name: getattr(batch, name) for name in _SHARED}, **values)
    fields = {field.attname: field for field in Message._meta.concrete_fields}
    common = [field for name, field in fields.items() if name not in Line._fields]
    connection = connections[database()]
    quoted = connection.ops.quote_name
    own = [fields[name] for name in Line._fields]
    columns = ", ".join(quoted(str(field.column)) for field in (*own, *common))
    table = quoted(Message._meta.db_table)
    if _can_copy(connection):
        _copy(connection, f"COPY {table} ({columns}) FROM STDIN", alike, common, lines)
    else:
        places = ", ".join(["%s"] * len(fields))
        statement = f"INSERT INTO {table} ({columns}) VALUES ({places})"  # noqa: S608
        end = tuple(field.get_db_prep_save(getattr(alike, field.attname), connection) for field in common)
        key = fields["id"]
        with connection.cursor() as cursor:
            cursor.executemany(
                statement, [(*_values(line, key.get_db_prep_value(line.id, connection)), *end) for line in lines]
            )


def _values(line: Line, key: Any) -> tuple[Any, ...]:
    """The columns of a line's own, in its order."""
    lists = (_encode(line.to), _encode(line.cc), _encode(line.bcc), _encode(line.context), _encode(line.metadata))
    return (key, line.message_id, *lists, line.language, line.timezone, line.idempotency_key)


def _can_copy(connection: Any) -> bool:
    if connection.vendor != "postgresql":
        return False
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    return bool(is_psycopg3)


def _copy(
    connection: Any, statement: str, alike: Message, common: Sequence[Field[Any, Any]], lines: Sequence[Line]
) -> None:
    end = "\t".join(_text(field, getattr(alike, field.attname)) for field in common)
    # Django's cursor hands on psycopg's copy(), and not its errors as Django's.
    with connection.wrap_database_errors, connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write("".join(f"{_start(line)}\t{end}\n" for line in lines))


def _start(line: Line) -> str:
    """The same as text for ``COPY``."""
    return "\t".join(
        (
            str(line.id),
            _escaped(line.message_id),
            _json(line.to),
            _json(line.cc) if line.cc else "[]",
            _json(line.bcc) if line.bcc else "[]",
            _json(line.context) if line.context else "{}",
            _json(line.metadata) if line.metadata else "{}",
            line.language,
            line.timezone,
            "\\N" if line.idempotency_key is None else line.idempotency_key,
        )
    )


def _json(value: object) -> str:
    return _escaped(_encode(value))


# Without looking for circles, which nothing that was encoded here has.
_encode = json.JSONEncoder(check_circular=False).encode

_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def _escaped(text: str) -> str:
    """As PostgreSQL's documentation of ``COPY`` asks in its text format."""
    return text.translate(_ESCAPES) if "\\" in text or not text.isprintable() else text


def _text(field: Field[Any, Any], value: Any) -> str:
    """One value of a column that all lines have in common."""
    if value is None:
        return "\\N"
    if isinstance(field, JSONField):
        return _json(value)
    return _escaped(str(value))
