"""Indexes that hold only the rows that queries look for, and how rows lie in their table."""

from __future__ import annotations

from typing import Any, TypeVar

from django.db import models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import Q, QuerySet
from django.db.models.sql.datastructures import BaseTable

_Row = TypeVar("_Row", bound=models.Model)


class IndexOfKnown(models.Index):
    """An index of the rows in which one column is not null; of all rows on MariaDB and MySQL, which have no such index.

    ``Index(condition=…)`` does the same there, but has every project on MariaDB warned by ``models.W037``.
    """

    def __init__(self, *, known: str, **options: Any) -> None:
        super().__init__(**options)
        #: The column that is not null. A condition of this form serves every comparison with the column.
        self.known = known

    def deconstruct(self) -> Any:
        path, expressions, options = super().deconstruct()
        return path, expressions, {**options, "known": self.known}

    def create_sql(
        self, model: type[models.Model], schema_editor: BaseDatabaseSchemaEditor, using: str = "", **options: Any
    ) -> Any:
        condition = Q(**{f"{self.known}__isnull": False})
        partial = schema_editor.connection.features.supports_partial_indexes
        index = models.Index(name=self.name, fields=self.fields, condition=condition if partial else None)
        return index.create_sql(model, schema_editor, using, **options)


class UniqueIfKnown(models.UniqueConstraint):
    """A unique column whose index on PostgreSQL leaves out the rows in which it is null: most, and each costs an entry.

    ``UniqueConstraint(condition=…)`` does the same, but has MariaDB and MySQL keep no constraint at all, where nulls
    repeat in a plain one.
    """

    def __init__(self, *, field: str, name: str) -> None:
        super().__init__(fields=[field], name=name)
        self._column = field

    def deconstruct(self) -> Any:
        path, expressions, _ = super().deconstruct()
        return path, expressions, {"field": self._column, "name": self.name}

    def create_sql(self, model: Any, schema_editor: Any) -> Any:
        return self._of(schema_editor).create_sql(model, schema_editor)

    def remove_sql(self, model: Any, schema_editor: Any) -> Any:
        return self._of(schema_editor).remove_sql(model, schema_editor)

    def constraint_sql(self, model: Any, schema_editor: Any) -> Any:
        return self._of(schema_editor).constraint_sql(model, schema_editor)

    def _of(self, schema_editor: BaseDatabaseSchemaEditor) -> models.UniqueConstraint:
        partial = schema_editor.connection.vendor == "postgresql"
        condition = Q(**{f"{self._column}__isnull": False}) if partial else None
        return models.UniqueConstraint(fields=[self._column], name=self.name, condition=condition)


class FillFactor(models.BaseConstraint):
    """How full PostgreSQL fills the pages of a table with new rows; nothing on other databases.

    A constraint by its form alone: it is what Django's migrations know of that belongs to a table and is no index.
    """

    def __init__(self, *, percent: int, name: str) -> None:
        super().__init__(name=name)
        self.percent = percent

    def deconstruct(self) -> Any:
        path, expressions, options = super().deconstruct()
        return path, expressions, {**options, "percent": self.percent}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FillFactor) and (other.name, other.percent) == (self.name, self.percent)

    def __hash__(self) -> int:
        return hash((self.name, self.percent))

    def constraint_sql(self, model: Any, schema_editor: Any) -> Any:
        # After the table is there, and no part of its statement.
        if sql := self.create_sql(model, schema_editor):
            schema_editor.deferred_sql.append(sql)
        return None

    def create_sql(self, model: Any, schema_editor: Any) -> Any:
        return self._alter(model, schema_editor, f"SET (fillfactor = {self.percent})")

    def remove_sql(self, model: Any, schema_editor: Any) -> Any:
        return self._alter(model, schema_editor, "RESET (fillfactor)")

    def _alter(self, model: Any, schema_editor: BaseDatabaseSchemaEditor, change: str) -> Any:
        if schema_editor.connection.vendor != "postgresql":
            return None
        return f"ALTER TABLE {schema_editor.quote_name(model._meta.db_table)} {change}"

    def validate(self, *args: Any, **options: Any) -> None:
        """No row contradicts it."""


def forced(queryset: QuerySet[_Row], index: str) -> QuerySet[_Row]:
    """The same rows, looked up in this index of their table; for MariaDB and MySQL alone."""
    result = queryset.all()
    table = queryset.model._meta.db_table
    result.query.alias_map[table] = _ForcedTable(table, index)
    return result


class _ForcedTable(BaseTable):
    def __init__(self, table: str, index: str) -> None:
        super().__init__(table, table)
        self._index = index

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        sql, parameters = super().as_sql(compiler, connection)
        return f"{sql} FORCE INDEX ({connection.ops.quote_name(self._index)})", parameters
