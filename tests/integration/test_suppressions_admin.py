"""The suppression list in the admin: who may see it, put addresses on it and take them off."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client, override_settings
from django.urls import reverse
from django.utils import timezone

from congressy_mailer import suppressions
from congressy_mailer.models import Suppression
from congressy_mailer.suppressions import is_suppressed, suppress, unsuppress
from congressy_mailer.suppressions.entries import Entry
from congressy_mailer.suppressions.rules import Scope, Source

pytestmark = pytest.mark.django_db

LIST = "/admin/congressy_mailer/suppression/"
ANA = "ana@example.com"


@pytest.fixture
def support(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("support"))
    return client


def page(what: str = "change") -> str:
    return reverse(f"admin:congressy_mailer_suppression_{what}", args=[suppressions.active().get().pk])


def by_compliance() -> None:
    suppressions.add([Entry(at=timezone.now(), source=Source.COMPLIANCE, address=ANA, scope=Scope.TRANSACTIONAL)])


def test_it_is_seen_and_found_however_an_address_is_written(support: Client) -> None:
    suppress("ana@bücher.example", scope="transactional", reason="asked by phone")
    for term in ("", "ANA@Bücher.example", "ana@xn--", "Ana"):
        assert "ana@xn--bcher-kva.example" in support.get(LIST, {"q": term}).content.decode()
    assert "ana@xn--bcher-kva.example" not in support.get(LIST, {"q": "eva@example.com"}).content.decode()
    shown = support.get(page()).content.decode()
    assert "asked by phone" in shown


def test_an_address_is_added_and_taken_off_by_the_rules(support: Client) -> None:
    answer = support.post(f"{LIST}add/", {"address": "ANA@example.com", "scope": "transactional", "reason": "phone"})
    assert answer.status_code == 302, answer.content.decode()
    assert is_suppressed(ANA)
    assert suppressions.active().get().source == Source.MANUAL
    support.post(page("delete"), {"post": "yes"})
    assert not is_suppressed(ANA)
    row = Suppression.objects.get()
    assert (row.removed_at is not None, row.synced_at) == (True, None)
    assert ANA not in support.get(LIST).content.decode()
    # And put there again.
    assert support.post(f"{LIST}add/", {"address": ANA, "scope": "transactional"}).status_code == 302
    assert is_suppressed(ANA)
    assert support.post(f"{LIST}add/", {"address": ANA, "scope": "transactional"}).status_code == 302
    assert Suppression.objects.count() == 1


@override_settings(CONGRESSY_MAILER={"LISTS": {"news": "News"}})
def test_what_makes_no_sense_is_told_in_the_form(support: Client) -> None:
    for wrong in (
        {"address": "ana@", "scope": "transactional"},
        {"address": ANA, "scope": "list"},
        {"address": ANA, "scope": "transactional", "list_id": "news"},
        {"address": ANA, "scope": "list", "list_id": "nwes"},
    ):
        answer = support.post(f"{LIST}add/", wrong)
        assert answer.status_code == 200
        assert "errorlist" in answer.content.decode()
    assert not Suppression.objects.exists()
    assert support.post(f"{LIST}add/", {"address": ANA, "scope": "list", "list_id": "news"}).status_code == 302
    assert is_suppressed(ANA, transactional=False, list_id="news")


def test_what_the_compliance_team_put_there_is_only_looked_at(support: Client) -> None:
    by_compliance()
    assert support.get(page()).status_code == 200
    assert support.post(page("delete"), {"post": "yes"}).status_code == 403
    assert is_suppressed(ANA)


def test_nothing_is_changed_nor_deleted_with_others(support: Client) -> None:
    suppress(ANA, scope="transactional")
    assert support.post(page(), {"address": "eva@example.com", "scope": "transactional"}).status_code == 403
    key = str(suppressions.active().get().pk)
    support.post(LIST, {"action": "delete_selected", "_selected_action": key, "post": "yes"})
    assert is_suppressed(ANA)


@pytest.mark.parametrize(("may", "added", "removed"), [("view", 403, 403), ("add", 302, 403), ("delete", 403, 302)])
def test_who_may_what(client: Client, may: str, added: int, removed: int) -> None:
    user = User.objects.create_user("staff", is_staff=True)
    codenames = ["view_suppression", f"{may}_suppression"]
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client.force_login(user)
    new = {"address": "bia@example.com", "scope": "transactional"}
    assert client.post(f"{LIST}add/", new).status_code == added
    unsuppress("bia@example.com")
    suppress(ANA, scope="transactional")
    assert client.post(page("delete"), {"post": "yes"}).status_code == removed
