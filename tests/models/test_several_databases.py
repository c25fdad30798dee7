"""Hosts with several databases: a replica that lags, and an outbox elsewhere than the host's own rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.db import connections, models, transaction
from django.db.backends.base.base import NO_DB_ALIAS

from congressy_mailer import send_bulk, send_mail
from congressy_mailer.models import Batch, Event, Message, State
from congressy_mailer.testing import deliver_all

pytestmark = [pytest.mark.database, pytest.mark.django_db(transaction=True)]

# The one alias that Django lets a test connect to without creating a test database for it.
SECOND = NO_DB_ALIAS


@pytest.fixture
def second_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The alias of another database, with our tables and the host's, and without a row."""
    second = {
        **connections["default"].settings_dict,
        "ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "second.sqlite3"), "OPTIONS": {},
    }  # fmt: skip
    monkeypatch.setitem(connections.settings, SECOND, second)
    # Another test may have connected to it already.
    with suppress(AttributeError):
        del connections[SECOND]
    try:
        call_command("migrate", database=SECOND, verbosity=0)
        yield SECOND
    finally:
        connections[SECOND].close()
        del connections[SECOND]


class _Replica:
    """A host's router: what is read comes from a replica, to which nothing has come yet."""

    def db_for_read(self, model: type[models.Model], **hints: Any) -> str:
        return SECOND

    def db_for_write(self, model: type[models.Model], **hints: Any) -> str:
        return "default"

    def allow_relation(self, *objects: models.Model, **hints: Any) -> bool:
        return True


class _Elsewhere:
    """A host's router: the outbox has a database of its own."""

    def _database(self, model: type[models.Model], **hints: Any) -> str | None:
        return SECOND if model._meta.app_label == "congressy_mailer" else None

    db_for_read = db_for_write = _database


@pytest.fixture
def lagging(second_database: str, settings: Any) -> None:
    settings.DATABASE_ROUTERS = [_Replica()]


@pytest.fixture
def elsewhere(second_database: str, settings: Any) -> None:
    settings.DATABASE_ROUTERS = [_Elsewhere()]


@pytest.mark.usefixtures("published", "lagging")
def test_what_a_message_says_is_not_read_from_a_replica_that_lags() -> None:
    batch = send_bulk(["ana@example.com"], subject="Hello", message="Ana")
    assert not Message.objects.exists()
    message = Message.objects.using("default").get()
    assert message.batch == batch
    assert message.content.subject == "Hello"
    message.refresh_from_db()
    assert message.state == State.QUEUED
    event = Event.objects.create(message=message, type=Event.Type.DEFERRED, at=message.created_at)
    assert Event.objects.using("default").get(pk=event.pk).message == message
    prefetched = Message.objects.using("default").prefetch_related("batch").get()
    assert prefetched.content.subject == "Hello"


@pytest.mark.usefixtures("published", "lagging")
def test_what_the_host_asks_for_itself_goes_where_its_router_says() -> None:
    batch = send_bulk(["ana@example.com"], subject="Hello", message="Ana")
    assert not Message.objects.exists()
    assert not batch.messages.exists()
    with pytest.raises(Batch.DoesNotExist):
        Batch.objects.get(pk=batch.pk)


@pytest.mark.usefixtures("published")
def test_without_a_router_a_relation_is_followed_within_its_database(second_database: str) -> None:
    batch = send_bulk(["ana@example.com"], subject="Hello", message="Ana")
    stored = Message.objects.get()
    for row in (batch, stored):
        row.save(using=second_database, force_insert=True)
    Batch.objects.using(second_database).update(subject="Elsewhere")
    assert Message.objects.using(second_database).get().content.subject == "Elsewhere"
    assert Message.objects.get().content.subject == "Hello"


@pytest.mark.usefixtures("lagging")
def test_a_batch_is_delivered_beside_a_replica_that_lags() -> None:
    batch = send_bulk(["ana@example.com", "bob@example.com"], subject="Hello", message="x")
    single = send_mail("x", "y", to="eva@example.com")
    assert {message.state for message in deliver_all()} == {State.SENT}
    assert batch.progress().sent == 2
    single.refresh_from_db()
    assert single.state == State.SENT


class _OfTheHost(Exception):
    pass


@pytest.mark.usefixtures("elsewhere")
def test_two_databases_roll_back_apart(published: list[str]) -> None:
    with suppress(_OfTheHost), transaction.atomic():
        Group.objects.create(name="rolled back")
        kept = send_mail("x", "y", to="ana@example.com")
        raise _OfTheHost
    # As docs/explanation/guarantees.md says: the mail is in a transaction of its own, and leaves.
    assert not Group.objects.exists()
    assert Message.objects.get() == kept
    assert published == ["deliver"]

    with suppress(_OfTheHost), transaction.atomic():
        Group.objects.create(name="committed")
        with suppress(_OfTheHost), transaction.atomic(using=SECOND):
            send_mail("x", "y", to="bob@example.com")
            send_bulk(["eva@example.com"], subject="x", message="y")
            raise _OfTheHost
    assert Group.objects.get().name == "committed"
    assert Message.objects.get() == kept
    assert not Batch.objects.exists()
    assert published == ["deliver"]


@pytest.mark.usefixtures("elsewhere")
def test_a_mail_that_is_asked_for_after_the_other_databases_commit_goes_with_it(published: list[str]) -> None:
    for fails in (True, False):
        with suppress(_OfTheHost), transaction.atomic():
            Group.objects.create(name=f"fails: {fails}")
            transaction.on_commit(lambda: send_mail("x", "y", to="ana@example.com"))
            if fails:
                raise _OfTheHost
    assert Group.objects.get().name == "fails: False"
    assert Message.objects.count() == 1
    assert published == ["deliver"]
