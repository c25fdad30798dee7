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

from ..models import Batch, Mail, Message, SearchKey
from ..models.transactions import database
from .search import search_keys


class BatchMessage(NamedTuple):
    """The fields in which messages of one batch differ."""

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
    #: In addition to those of the batch.
    alternatives: list[list[str]]
    #: The first recipient, as addresses are compared.
    address: str
    #: The host's object that it is about, beside that of the batch.
    about_model: str | None = None
    about_id: str | None = None
    about_name: str = ""


# Of the mail, what says how it is sent; what it says stays with the batch, and so does where it was stored.
_SHARED = [
    field.attname
    for field in Mail._meta.get_fields()
    if isinstance(field, Field)
    and field.name not in {"template", "subject", "text", "html", "created_at", "traceparent", *BatchMessage._fields}
]


def insert(batch: Batch, messages: Sequence[BatchMessage], **values: Any) -> None:
    """Store messages of a batch in the caller's transaction.

    Args:
        batch: what they have in common.
        messages: the fields in which they differ.
        values: further fields, the same for all.
    """
    shared = Message(batch=batch, **{name: getattr(batch, name) for name in _SHARED}, **values)
    # What the database derives is not written.
    fields = {field.attname: field for field in Message._meta.concrete_fields if not field.generated}
    common = [field for name, field in fields.items() if name not in BatchMessage._fields]
    connection = connections[database()]
    quoted = connection.ops.quote_name
    own = [fields[name] for name in BatchMessage._fields]
    columns = ", ".join(quoted(str(field.column)) for field in (*own, *common))
    table = quoted(Message._meta.db_table)
    if _can_copy(connection):
        _copy(connection, f"COPY {table} ({columns}) FROM STDIN", shared, common, messages)
    else:
        placeholders = ", ".join(["%s"] * len(fields))
        statement = f"INSERT INTO {table} ({columns}) VALUES ({placeholders})"  # noqa: S608
        shared_values = tuple(field.get_db_prep_save(getattr(shared, field.attname), connection) for field in common)
        key = fields["id"]
        with connection.cursor() as cursor:
            cursor.executemany(
                statement,
                [
                    (*_values(message, key.get_db_prep_value(message.id, connection)), *shared_values)
                    for message in messages
                ],
            )
    _insert_search_keys(connection, messages)


def _insert_search_keys(connection: Any, messages: Sequence[BatchMessage]) -> None:
    """What they are found by beside their first recipient's address; most have no such thing."""
    keys = [(message.id, key) for message in messages for key in search_keys(message)]
    if not keys:
        return
    table = connection.ops.quote_name(SearchKey._meta.db_table)
    column = connection.ops.quote_name("key")
    if _can_copy(connection):
        statement = f"COPY {table} (message_id, {column}) FROM STDIN"
        with connection.wrap_database_errors, connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write("".join(f"{message_id}\t{_escape(key)}\n" for message_id, key in keys))
        return
    field = SearchKey._meta.get_field("message")
    rows = [(field.get_db_prep_save(message_id, connection), key) for message_id, key in keys]
    with connection.cursor() as cursor:
        cursor.executemany(f"INSERT INTO {table} (message_id, {column}) VALUES (%s, %s)", rows)  # noqa: S608


def _values(message: BatchMessage, key: Any) -> tuple[Any, ...]:
    """The columns that only this message has, in the order of the fields of :class:`BatchMessage`."""
    lists = (
        _encode(message.to),
        _encode(message.cc),
        _encode(message.bcc),
        _encode(message.context),
        _encode(message.metadata),
    )
    return (
        key,
        message.message_id,
        *lists,
        message.language,
        message.timezone,
        message.idempotency_key,
        _encode(message.alternatives),
        message.address,
        message.about_model,
        message.about_id,
        message.about_name,
    )


def _can_copy(connection: Any) -> bool:
    if connection.vendor != "postgresql":
        return False
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    return bool(is_psycopg3)


def _copy(
    connection: Any,
    statement: str,
    shared: Message,
    common: Sequence[Field[Any, Any]],
    messages: Sequence[BatchMessage],
) -> None:
    shared_values = "\t".join(_copy_value(field, getattr(shared, field.attname)) for field in common)
    # Django's cursor hands on psycopg's copy(), and not its errors as Django's.
    with connection.wrap_database_errors, connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write("".join(f"{_own_columns(message)}\t{shared_values}\n" for message in messages))


def _own_columns(message: BatchMessage) -> str:
    """The same as text for ``COPY``."""
    return "\t".join(
        (
            str(message.id),
            _escape(message.message_id),
            _json(message.to),
            _json(message.cc) if message.cc else "[]",
            _json(message.bcc) if message.bcc else "[]",
            _json(message.context) if message.context else "{}",
            _json(message.metadata) if message.metadata else "{}",
            message.language,
            message.timezone,
            "\\N" if message.idempotency_key is None else message.idempotency_key,
            _json(message.alternatives) if message.alternatives else "[]",
            _escape(message.address),
            "\\N" if message.about_model is None else message.about_model,
            "\\N" if message.about_id is None else _escape(message.about_id),
            _escape(message.about_name),
        )
    )


def _json(value: object) -> str:
    return _escape(_encode(value))


# Without looking for circles, which nothing that was encoded here has.
_encode = json.JSONEncoder(check_circular=False).encode

_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def _escape(text: str) -> str:
    """As PostgreSQL's documentation of ``COPY`` asks in its text format."""
    return text.translate(_ESCAPES) if "\\" in text or not text.isprintable() else text


def _copy_value(field: Field[Any, Any], value: Any) -> str:
    """One value of a column that all messages share."""
    if value is None:
        return "\\N"
    if isinstance(field, JSONField):
        return _json(value)
    return _escape(str(value))
