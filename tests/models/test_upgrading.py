"""From each release to this one: its rows, in tables as it had made them, are migrated, read and sent."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core import mail
from django.core.management import call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.utils import timezone

import congressy_mailer
from congressy_mailer import outbox, suppressions, tasks
from congressy_mailer.models import Message, State
from congressy_mailer.testing import deliver_all
from tests.releases import rows

RELEASES = sorted(rows.FOLDER.glob("*.json"))


@pytest.fixture
def at_migration() -> Iterator[Any]:
    """Have the tables as they were with a migration; afterwards they are this version's again."""

    def migrate(name: str) -> None:
        call_command("migrate", rows.APP, name, verbosity=0)

    yield migrate
    call_command("migrate", rows.APP, verbosity=0)


@pytest.mark.once
def test_this_version_has_kept_its_rows() -> None:
    file = rows.FOLDER / f"{congressy_mailer.__version__}.json"
    assert file.exists(), "python -m tests.releases"
    # The name of the last migration is what a later version is migrated from.
    assert (
        rows.read(file).migration
        in dict(MigrationLoader(None).disk_migrations)[rows.APP, rows.read(file).migration].name
    )


@pytest.mark.once
@pytest.mark.django_db
@pytest.mark.parametrize("file", RELEASES, ids=lambda file: file.stem)
def test_rows_of_a_release_are_of_each_model_and_in_each_column_that_it_had(file: Path) -> None:
    release = rows.read(file)
    known = {
        model._meta.label_lower: {field.name for field in model._meta.local_fields}
        for model in rows.own_models(rows.apps_at(release.migration))
    }
    kept = {row["model"]: {*row["fields"], apps.get_model(row["model"])._meta.pk.name} for row in release.rows}
    assert kept == known, "a migration of a release was changed"


@pytest.mark.database
@pytest.mark.email_settings
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("file", RELEASES, ids=lambda file: file.stem)
def test_what_a_release_has_left_is_migrated_read_and_sent(file: Path, at_migration: Any, settings: Any) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    release = rows.read(file)
    at_migration("zero")
    at_migration(release.migration)
    rows.store(release)
    call_command("migrate", rows.APP, verbosity=0)

    kept = Counter(row["model"] for row in release.rows)
    for model in rows.own_models(apps):
        found = list(model._base_manager.all())
        assert len(found) == kept[model._meta.label_lower]
        for row in found:
            json.dumps(str(row))
    assert suppressions.is_suppressed("gone@example.com", transactional=False)
    finished = {State.SENT, State.FAILED, State.HELD, State.SUPPRESSED}
    before = Message.objects.filter(state__in=finished).count()
    for key in outbox.sweep(timezone.now()):
        tasks.deliver.apply(args=[[str(key)]])
    deliver_all()
    assert sorted(one.to[0] for one in mail.outbox) == release.waiting
    assert Message.objects.filter(state__in=finished).count() == before + len(release.waiting)
    assert not connection.needs_rollback
