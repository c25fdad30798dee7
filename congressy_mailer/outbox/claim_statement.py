"""Claiming messages and reading them with one statement, on databases that have such a one: PostgreSQL and SQLite.

The same statement finds out what would be asked for next, and is almost always answered with no.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import connections
from django.db.models import Model, QuerySet

from ..mime.addresses import comparable_address
from ..models import Attachment, Message, Pause, Suppression, TransportStatus
from ..models.transactions import database, retry_statement

# Names of what is asked for beside the columns of a message.
HAS_ATTACHMENTS = "has_attachments"
IS_SUPPRESSED = "is_suppressed"
IS_UNAVAILABLE = "is_unavailable"
IS_PAUSED = "is_paused"


def can_claim_at_once() -> bool:
    """Whether the database can tell what a statement has changed."""
    connection = connections[database()]
    # MariaDB has that for new rows alone.
    return connection.vendor in ("postgresql", "sqlite") and connection.features.can_return_columns_from_insert


@retry_statement
def claim_at_once(claimable: QuerySet[Message], values: Mapping[str, object]) -> list[Message]:
    """Change those of these messages that nobody holds, and return them with the answers as attributes.

    Args:
        claimable: which may be claimed.
        values: new values, by field.
    """
    connection = connections[database()]
    quoted = connection.ops.quote_name
    table = quoted(Message._meta.db_table)
    fields: dict[str, Any] = {name: Message._meta.get_field(name) for name in values}
    changes = ", ".join(f"{quoted(field.column)} = %s" for field in fields.values())
    new_values = [field.get_db_prep_save(values[name], connection) for name, field in fields.items()]
    compiler = claimable.order_by("id").values("id").query.get_compiler(connection=connection)
    free, parameters = compiler.as_sql()
    if connection.vendor == "postgresql":
        # A row that somebody holds is passed over, as by lock_free(). An array, so that this is carried out once.
        chosen = f"= ANY(ARRAY({free} {connection.ops.for_update_sql(skip_locked=True, no_key=True)}))"
    else:
        chosen = f"IN ({free})"
    columns = ", ".join(f"{table}.{quoted(str(field.column))}" for field in Message._meta.concrete_fields)
    answers = ", ".join(f"EXISTS ({question}) AS {quoted(name)}" for name, question in _questions().items())
    statement = f"UPDATE {table} SET {changes} WHERE {quoted('id')} {chosen} RETURNING {columns}, {answers}"  # noqa: S608
    return list(Message.objects.using(database()).raw(statement, [*new_values, *parameters]))


def _questions() -> dict[str, str]:
    connection = connections[database()]
    quoted = connection.ops.quote_name
    message = quoted(Message._meta.db_table)
    # The two columns are sorted differently there, which says nothing of whether they are equal.
    collation = ' COLLATE "default"' if connection.vendor == "postgresql" else ""
    return {
        HAS_ATTACHMENTS: f"{_rows_of(Attachment)} WHERE {quoted('message_id')} = {message}.{quoted('id')}",
        IS_SUPPRESSED: (
            f"{_rows_of(Suppression)} WHERE {quoted(Suppression._meta.db_table)}.{quoted('address')} = "
            f"{message}.{quoted('address')}{collation}"
        ),
        IS_UNAVAILABLE: _rows_of(TransportStatus),
        IS_PAUSED: f"{_rows_of(Pause)} WHERE {quoted('resumed_at')} IS NULL",
    }


def _rows_of(model: type[Model]) -> str:
    return f"SELECT 1 FROM {connections[database()].ops.quote_name(model._meta.db_table)}"  # noqa: S608


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
