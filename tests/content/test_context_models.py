"""Instances of models in a context: they are fetched again, in one query for each model."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection, models
from django.test.utils import CaptureQueriesContext, override_settings
from django.utils.functional import SimpleLazyObject

from congressy_mailer.content.context import decode_many, encode
from congressy_mailer.exceptions import ContentError, ContentNotReady, ContextNotSerializable
from congressy_mailer.models import Message
from tests.support.contexts import decode, round_trip, store


class _Replicated:
    """A host's router: whatever is read comes from a replica."""

    def db_for_read(self, model: type[models.Model], **hints: Any) -> str:
        return "replica"

    def db_for_write(self, model: type[models.Model], **hints: Any) -> str:
        return "default"


class _Sharded:
    """A host's router: a row is written where it was read."""

    def db_for_write(self, model: type[models.Model], instance: models.Model | None = None, **hints: Any) -> str | None:
        return instance._state.db if instance is not None else None


@pytest.mark.parametrize(("routers", "using"), [([_Replicated], "default"), ([_Sharded], "replica"), ([], "replica")])
def test_an_instance_is_fetched_from_where_it_is_written(routers: list[type], using: str) -> None:
    user = User(pk=5)
    user._state.adding, user._state.db = False, "replica"
    with override_settings(DATABASE_ROUTERS=[router() for router in routers]):
        assert json.loads(json.dumps(encode({"user": user}, language=None)))["user"]["using"] == using


@pytest.mark.django_db
def test_an_instance_is_fetched_again() -> None:
    user = User.objects.create(username="ana")
    stored = store(encode({"user": user, "lazy": SimpleLazyObject(lambda: user), "users": [user]}, language=None))
    assert "ana" not in json.dumps(stored)
    User.objects.update(username="ana maria")
    decoded = decode(stored)
    assert decoded["user"] == user
    assert decoded["user"].username == "ana maria"
    assert decoded["user"] is decoded["lazy"] is decoded["users"][0]


@pytest.mark.django_db
def test_other_kinds_of_primary_keys() -> None:
    message = Message.objects.create(
        created_at=datetime.now(UTC), message_id="<a@b>", from_email="a@b.example", to=["c@d.example"]
    )
    decoded = round_trip(message)
    assert decoded == message
    assert isinstance(decoded.pk, uuid.UUID)


@pytest.mark.django_db
def test_one_query_for_each_model_whatever_the_number_of_contexts() -> None:
    users = [User.objects.create(username=f"u{n}") for n in range(20)]
    group = Group.objects.create(name="g")
    stored = [store(encode({"user": user, "all": users[:3], "group": group}, language=None)) for user in users]
    with CaptureQueriesContext(connection) as queries:
        decoded = decode_many(stored)
    # The test runs in a transaction, where each has a savepoint.
    assert len([query for query in queries if "SAVEPOINT" not in query["sql"]]) == 2
    assert [one["user"] for one in decoded] == users  # type: ignore[index]


@pytest.mark.django_db
def test_contexts_do_not_share_instances() -> None:
    user = User.objects.create(username="ana")
    stored = encode({"user": user}, language=None)
    first, second = decode_many([stored, stored])
    assert first["user"] is not second["user"]  # type: ignore[index]
    first["user"].username = "changed"  # type: ignore[index]
    assert second["user"].username == "ana"  # type: ignore[index]
    assert second["user"]._state is not first["user"]._state  # type: ignore[index]


@pytest.mark.django_db
def test_a_row_that_is_gone_fails_its_own_context_only() -> None:
    gone, stays = User.objects.create(username="gone"), User.objects.create(username="stays")
    contexts = [encode({"user": one}, language=None) for one in (gone, stays)]
    pk = gone.pk
    gone.delete()
    first, second = decode_many(contexts)
    assert isinstance(first, ContentError)
    assert str(first) == f"auth.User pk={pk} no longer exists."
    assert second == {"user": stays}
    with pytest.raises(ContextNotSerializable):
        encode({"user": gone}, language=None)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"model": "nowhere.model"}, ContentNotReady),
        ({"model": "auth.nothing"}, ContentNotReady),
        ({"model": "nonsense"}, ContentNotReady),
        ({"using": "elsewhere"}, ContentNotReady),
        ({"pk": "not a number"}, ContentError),
        ({"pk": None}, ContentError),
        ({"model": None}, ContentNotReady),
    ],
)
def test_a_reference_that_makes_no_sense_here_concerns_its_own_context_only(change: Any, error: type) -> None:
    user = User.objects.create(username="ana")
    fine = encode({"user": user}, language=None)
    wrong = {"user": {**fine["user"], **change}}
    first, second = decode_many([wrong, fine])
    assert type(first) is error
    assert second == {"user": user}


@pytest.mark.django_db
def test_the_base_manager_finds_what_the_default_manager_hides() -> None:
    class HidingManager(models.Manager[Group]):
        def get_queryset(self) -> Any:
            return super().get_queryset().none()

    class HiddenGroup(Group):
        objects = HidingManager()

        class Meta:
            proxy = True
            app_label = "auth"

    try:
        group = HiddenGroup._base_manager.create(name="hidden")
        assert type(round_trip(group)) is HiddenGroup
    finally:
        from django.apps import apps

        del apps.all_models["auth"]["hiddengroup"]
        apps.clear_cache()
