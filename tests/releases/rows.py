"""Rows of a release in a file: how they are kept, and how they come into a database as that release had made it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from django.apps.registry import Apps
from django.core import serializers
from django.db import connection, models, transaction
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

APP = "congressy_mailer"
FOLDER = Path(__file__).with_name("rows")


class Release(NamedTuple):
    """What a release has left behind."""

    #: The last of its migrations.
    migration: str
    #: When the rows were stored; they come into a database as if that were now.
    stored_at: datetime
    #: Whom a worker still has to send a mail.
    waiting: list[str]
    #: As Django's serializer writes them, each behind those that it refers to.
    rows: list[dict[str, Any]]


def own_models(apps: Apps) -> list[type[models.Model]]:
    """The models with a table, each behind those that it refers to."""
    remaining = [model for model in apps.get_app_config(APP).get_models() if not model._meta.proxy]
    ordered: list[type[models.Model]] = []
    while remaining:
        ready = [model for model in remaining if not _references(model) & (set(remaining) - {model})]
        assert ready, "a circle of references"
        ordered += ready
        remaining = [model for model in remaining if model not in ready]
    return ordered


def _references(model: type[models.Model]) -> set[Any]:
    return {field.related_model for field in model._meta.local_fields if field.is_relation}


def write(file: Path, migration: str, waiting: list[str], apps: Apps) -> None:
    """Keep every row of the database."""
    found = [row for model in own_models(apps) for row in model._base_manager.order_by("pk")]
    content = {
        "migration": migration,
        "stored_at": timezone.now().isoformat(),
        "waiting": sorted(waiting),
        "rows": json.loads(serializers.serialize("json", found)),
    }
    file.write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def read(file: Path) -> Release:
    """The content of a file."""
    content = json.loads(file.read_text())
    return Release(**{**content, "stored_at": datetime.fromisoformat(content["stored_at"])})


def apps_at(migration: str) -> Apps:
    """The models as they were with a migration."""
    return MigrationExecutor(connection).loader.project_state((APP, migration)).apps


def store(release: Release) -> None:
    """Put the rows into the tables as the release had them, with all times moved on to now."""
    apps = apps_at(release.migration)
    passed = timezone.now() - release.stored_at
    with transaction.atomic():
        # The installation, which is there from the beginning.
        for model in reversed(own_models(apps)):
            model._base_manager.all().delete()
        for row in release.rows:
            model = apps.get_model(row["model"])
            values = dict(_values(model, {**row["fields"], model._meta.pk.name: row["pk"]}))
            for field in model._meta.local_fields:
                if isinstance(field, models.DateTimeField) and values.get(field.attname):
                    values[field.attname] += passed
            model._base_manager.bulk_create([model(**values)])


def _values(model: type[models.Model], fields: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for field in model._meta.local_fields:
        if field.name in fields:
            target: Any = field.target_field if field.is_relation else field
            yield field.attname, target.to_python(fields[field.name])
