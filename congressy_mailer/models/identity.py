"""Keys of rows."""

from __future__ import annotations

import uuid
from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from uuid6 import uuid7

# Of MariaDB and of MySQL: by code point, to the last blank. Their defaults take "José", "JOSE" and "jose " for one key.
_EXACT = {True: "utf8mb4_nopad_bin", False: "utf8mb4_0900_bin"}


def new_id() -> uuid.UUID:
    """A new UUIDv7 (RFC 9562 §5.7): ordered by time, so that the newest rows lie together on disk."""
    return uuid7()


class KeyField(models.CharField):  # type: ignore[type-arg]
    """A text that is equal to no other: not in case, in an accent, or in a blank at its end, on any database."""

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        """The column, with a collation of its own where the database's default one compares otherwise."""
        parameters = super().db_parameters(connection)
        if connection.vendor == "mysql":
            parameters["collation"] = _EXACT[bool(connection.mysql_is_mariadb)]  # type: ignore[attr-defined]
        return parameters


class ByteOrderField(KeyField):
    """A text that is found by its beginning as well: it is ordered byte by byte on every database.

    Other orders pass over ``@`` and ``.`` at first, so that what begins alike does not lie together.
    """

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        """The column; PostgreSQL's default order may be that of any language."""
        parameters = super().db_parameters(connection)
        if connection.vendor == "postgresql":
            parameters["collation"] = "C"
        return parameters
