"""Many rows at once, as fast as the database takes them.

PostgreSQL takes a row by ``COPY`` in a small part of the time that an ``INSERT`` costs; elsewhere see
:mod:`.insertion`. Everything that the messages of a batch have in common is written out once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connections
from django.db.models import Field, JSONField, Model

from ..models import Batch, Mail, Message, SearchKey
from ..models.transactions import database
from .insertion import fields_in_use, insert_rows, insert_search_keys, stored_fields
from .search import search_keys

# Of a COPY: some 50 kB.
_LINES_AT_ONCE = 100


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


# The columns that decide how a mail is sent; content and origin stay with the batch.
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
    connection = connections[database()]
    if _can_copy(connection):
        _copy_messages(connection, shared, messages)
        _copy_search_keys(connection, messages)
        return
    common = [field for field in fields_in_use([shared]) if field.attname not in BatchMessage._fields]
    shared_values = [field.get_db_prep_save(getattr(shared, field.attname), connection) for field in common]
    key_of = Message._meta.pk.get_db_prep_save
    rows = [(*_values(message, key_of(message.id, connection)), *shared_values) for message in messages]
    insert_rows(Message, [*BatchMessage._fields, *(field.attname for field in common)], rows)
    insert_search_keys(messages)


def _values(message: BatchMessage, key: Any) -> tuple[Any, ...]:
    """The columns that only this message has, in the order of the fields of :class:`BatchMessage`."""
    return (
        key,
        message.message_id,
        _encode(message.to),
        _encode(message.cc) if message.cc else "[]",
        _encode(message.bcc) if message.bcc else "[]",
        _encode(message.context) if message.context else "{}",
        _encode(message.metadata) if message.metadata else "{}",
        message.language,
        message.timezone,
        message.idempotency_key,
        _encode(message.alternatives) if message.alternatives else "[]",
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


def _copy_messages(connection: Any, shared: Message, messages: Sequence[BatchMessage]) -> None:
    fields = {field.attname: field for field in stored_fields(Message)}
    common = [field for name, field in fields.items() if name not in BatchMessage._fields]
    shared_values = "\t".join(_copy_value(field, getattr(shared, field.attname)) for field in common)
    columns = [*(fields[name] for name in BatchMessage._fields), *common]
    _copy(connection, Message, columns, (f"{_own_columns(message)}\t{shared_values}\n" for message in messages))


def _copy_search_keys(connection: Any, messages: Sequence[BatchMessage]) -> None:
    """What they are found by beside their first recipient's address; most have no such thing."""
    lines = [f"{message.id}\t{_escape(key)}\n" for message in messages for key in search_keys(message)]
    if lines:
        _copy(connection, SearchKey, stored_fields(SearchKey), lines)


def _copy(connection: Any, model: type[Model], columns: Sequence[Field[Any, Any]], lines: Iterable[str]) -> None:
    quoted = connection.ops.quote_name
    names = ", ".join(quoted(str(field.column)) for field in columns)
    statement = f"COPY {quoted(model._meta.db_table)} ({names}) FROM STDIN"
    # Django's cursor hands on psycopg's copy(), and not its errors as Django's.
    with connection.wrap_database_errors, connection.cursor() as cursor, cursor.copy(statement) as copy:
        remaining = iter(lines)
        # In parts, so that the server reads one while the next is written.
        while part := "".join(islice(remaining, _LINES_AT_ONCE)):
            copy.write(part)


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
    # PostgreSQL keeps the characters, however they are written.
    return _escape(_encode_plainly(value))


# Without looking for circles, which nothing that was encoded here has.
_encode = json.JSONEncoder(check_circular=False).encode
_encode_plainly = json.JSONEncoder(check_circular=False, ensure_ascii=False).encode

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
