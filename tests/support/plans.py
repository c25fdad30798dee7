"""How a database means to carry out a statement."""

from __future__ import annotations

from typing import Any

from django.db import connection


def tables(plan: Any) -> list[dict[str, Any]]:
    """How MariaDB reads each stored table, in the order in which it does."""
    if isinstance(plan, list):
        return [table for part in plan for table in tables(part)]
    if not isinstance(plan, dict):
        return []
    found = tables(list(plan.values()))
    return [plan, *found] if "access_type" in plan and "materialized" not in plan else found


def explain(statement: str) -> str:
    """The plan for a statement, as JSON on MariaDB; of a table that is not small."""
    begin = {"mysql": "EXPLAIN FORMAT=JSON", "sqlite": "EXPLAIN QUERY PLAN"}.get(connection.vendor, "EXPLAIN")
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(f"{begin} {statement}")
        return "\n".join(str(row[-1]) for row in cursor.fetchall())
