"""A database without our tables, or with those of an older version: whoever meets it is told to run ``migrate``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, ProgrammingError, connection

from congressy_mailer import MailerError, send_bulk, send_mail, tasks
from congressy_mailer.exceptions import NotMigrated
from congressy_mailer.health import check_health
from congressy_mailer.models import Message, PeriodicTask, Suppression
from congressy_mailer.models.transactions import explaining_missing_tables

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.usefixtures("published")]

_ADVICE = "python manage.py migrate congressy_mailer"


@pytest.fixture
def without_tables() -> Iterator[None]:
    models: list[Any] = [PeriodicTask, Suppression, Message]
    with connection.schema_editor() as editor:
        for model in models:
            editor.alter_db_table(model, model._meta.db_table, f"{model._meta.db_table}_away")
    yield
    with connection.schema_editor() as editor:
        for model in models:
            editor.alter_db_table(model, f"{model._meta.db_table}_away", model._meta.db_table)


@pytest.fixture
def with_an_older_table() -> Iterator[None]:
    field = Message._meta.get_field("sensitive")
    new: Any = Message._meta.get_field("sensitive").clone()
    new.set_attributes_from_name("sensitive_later")
    with connection.schema_editor() as editor:
        editor.alter_field(Message, field, new)
    yield
    with connection.schema_editor() as editor:
        editor.alter_field(Message, new, field)


def send_one() -> None:
    send_mail("x", "y", to="ana@example.com")


def send_many() -> None:
    send_bulk(["ana@example.com"], subject="x", message="y")


CALLS = [
    send_one,
    send_many,
    lambda: tasks.deliver([str(UUID(int=1))]),
    lambda: tasks.sweep(0),
    tasks.purge,
    check_health,
]


@pytest.mark.parametrize("call", CALLS)
def test_missing_tables_are_explained(without_tables: None, call: Any) -> None:
    with pytest.raises(NotMigrated, match=_ADVICE) as raised:
        call()
    assert isinstance(raised.value, MailerError)
    # What has caught it so far does so still; a task is tried again.
    assert isinstance(raised.value, OperationalError)
    assert raised.value.__cause__ is not None
    assert str(raised.value.__cause__) in str(raised.value)


@pytest.mark.parametrize("call", [send_one, send_many])
def test_missing_columns_are_explained(with_an_older_table: None, call: Any) -> None:
    with pytest.raises(NotMigrated, match=_ADVICE):
        call()


@pytest.mark.parametrize(
    "arguments",
    [["health"], ["health", "--json"], ["purge"], ["suppressions", "list"], ["suppressions", "add", "ana@example.com"]],
)
def test_commands_explain_missing_tables(without_tables: None, arguments: list[str]) -> None:
    with pytest.raises(CommandError, match=_ADVICE):
        call_command("mailer", *arguments)


@pytest.mark.parametrize("statement", ["SELECT * FROM shop_order", "SELECT nothing FROM auth_user"])
def test_tables_of_others_are_theirs_to_explain(statement: str) -> None:
    with (
        pytest.raises((OperationalError, ProgrammingError)) as raised,
        explaining_missing_tables(),
        connection.cursor() as cursor,
    ):
        cursor.execute(statement)
    assert not isinstance(raised.value, NotMigrated)
