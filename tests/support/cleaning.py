"""What is done after a test that commits: what it has stored is deleted.

Django's own way makes all content types and permissions anew as well, by the signal ``post_migrate``, which takes ten
times as long as the rest of it.
"""

from __future__ import annotations

from django.db import connections, transaction
from django.test import TransactionTestCase

from congressy_mailer import outbox

#: What ``post_migrate`` has stored, and no test changes.
_KEPT = {"auth_permission", "django_content_type"}


def delete_stored(alias: str) -> None:
    """Empty all tables of a database but those of the kept, and leave the one row that the app makes there."""
    connection = connections[alias]
    tables = set(connection.introspection.django_table_names(only_existing=True, include_views=False)) - _KEPT
    statements = [f"DELETE FROM {connection.ops.quote_name(table)}" for table in sorted(tables)]  # noqa: S608
    with transaction.atomic(using=alias), connection.constraint_checks_disabled(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("; ".join(statements))
        else:
            for statement in statements:
                cursor.execute(statement)
    if alias == outbox.database():
        outbox.current_installation()


def _delete_what_was_stored(case: TransactionTestCase) -> None:
    for alias in case._databases_names(include_mirrors=False):
        delete_stored(alias)


def install() -> None:
    """Have Django clean that way."""
    TransactionTestCase._fixture_teardown = _delete_what_was_stored  # type: ignore[method-assign]
