"""The suppression list in the admin: who may see it, put addresses on it and take them off."""

from __future__ import annotations

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from congressy_mailer import suppressions
from congressy_mailer.models import Suppression, SuppressionRemoval
from congressy_mailer.suppressions import is_suppressed, suppress, unsuppress
from congressy_mailer.suppressions.entries import Entry
from congressy_mailer.suppressions.rules import Scope, Source

pytestmark = pytest.mark.django_db

LIST = "/admin/congressy_mailer/suppression/"
ANA = "ana@example.com"


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
    removal = SuppressionRemoval.objects.get()
    assert (removal.scope, removal.source, removal.synced_at) == ("transactional", "manual", None)
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


def test_a_reason_is_taken_off_alone(support: Client) -> None:
    suppressions.add([Entry(at=timezone.now(), source=Source.BOUNCE, address=ANA, scope=Scope.TRANSACTIONAL)])
    key = suppressions.active().get().pk
    assert support.post(f"{LIST}add/", {"address": ANA, "scope": "transactional"}).status_code == 302
    # One row an address, with both reasons.
    assert len(support.get(LIST).context["cl"].result_list) == 1
    for text in ("devolução", "manual"):
        assert text in support.get(LIST).content.decode()
    support.post(reverse("admin:congressy_mailer_suppression_delete", args=[key]), {"post": "yes"})
    assert suppressions.active().get().source == Source.MANUAL
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


def test_an_address_is_put_there_for_all_mail_and_taken_off_whole(support: Client) -> None:
    assert support.post(f"{LIST}add/", {"address": ANA, "scope": "", "reason": "phone"}).status_code == 302
    assert is_suppressed(ANA)
    assert is_suppressed(ANA, transactional=False)
    rows = support.get(LIST).context["cl"].result_list
    assert len(rows) == 1
    assert "todos os e-mails" in support.get(LIST).content.decode()
    first = rows[0].pk
    shown = support.get(reverse("admin:congressy_mailer_suppression_change", args=[first])).content.decode()
    assert shown.count("phone") == 2
    assert f"?q={ANA.replace('@', '%40')}" in shown
    remove = reverse("admin:congressy_mailer_suppression_remove", args=[first])
    assert support.get(remove).status_code == 403
    assert support.post(remove).status_code == 302
    assert not is_suppressed(ANA)
    assert not is_suppressed(ANA, transactional=False)
    assert LogEntry.objects.filter(object_id=str(first)).count() == 1


def test_what_compliance_put_there_stays_when_the_rest_is_taken_off(support: Client) -> None:
    by_compliance()
    suppress(ANA)
    first = support.get(LIST).context["cl"].result_list[0].pk
    support.post(reverse("admin:congressy_mailer_suppression_remove", args=[first]))
    assert suppressions.active().get().source == Source.COMPLIANCE


def test_filters_look_at_all_reasons_of_an_address(support: Client) -> None:
    suppressions.add([Entry(at=timezone.now(), source=Source.BOUNCE, address=ANA, scope=Scope.TRANSACTIONAL)])
    suppress(ANA)
    suppress("eva@example.com", scope="non_transactional")
    for query, found in (
        ({"source": "manual"}, {ANA, "eva@example.com"}), ({"source": "bounce"}, {ANA}),
        ({"scope": "transactional"}, {ANA}), ({"scope": "non_transactional"}, {ANA, "eva@example.com"}),
    ):  # fmt: skip
        assert sorted(row.address for row in support.get(LIST, query).context["cl"].result_list) == sorted(found)
    # One reason of both kinds.
    both = {"source": "bounce", "scope": "non_transactional"}
    assert not support.get(LIST, both).context["cl"].result_list
    assert len(support.get(LIST, {"source": "manual", "q": "an"}).context["cl"].result_list) == 1


def test_the_list_takes_few_queries(support: Client) -> None:
    for number in range(60):
        suppress(f"ana{number}@example.com")
    with CaptureQueriesContext(connection) as queries:
        assert len(support.get(LIST).context["cl"].result_list) == 50
    assert len(queries) <= 6


def upload(client: Client, text: str, **fields: str) -> str:
    file = SimpleUploadedFile("list.csv", text.encode())
    return client.post(f"{LIST}import/", {"file": file, **fields}, follow=True).content.decode()


def test_addresses_are_imported_and_exported(support: Client) -> None:
    told = upload(support, "email,scope,reason\nana@example.com,transactional,=1+1\nnonsense,,\neva@example.com,,\n",
                  reason="left")  # fmt: skip
    assert "3 linhas lidas" in told
    assert "1 linha ficou de fora" in told
    assert is_suppressed(ANA)
    assert not is_suppressed(ANA, transactional=False)
    assert is_suppressed("eva@example.com", transactional=False)
    exported = support.get(f"{LIST}export/")
    text = b"".join(exported.streaming_content).decode("utf-8-sig")
    assert "attachment" in exported["Content-Disposition"]
    assert text.splitlines()[0] == "email,scope,list_id,reason,source,created_at"
    # No formula.
    assert ",=1+1," not in text
    assert text.count("eva@example.com") == 2
    unsuppress(ANA)
    unsuppress("eva@example.com")
    Suppression.objects.all().delete()
    SuppressionRemoval.objects.all().delete()
    upload(support, text)
    assert suppressions.active().count() == 3
    assert suppressions.active().get(address=ANA).reason == "=1+1"
    assert LogEntry.objects.filter(object_id=None).count() == 3


def test_a_file_that_is_no_table_is_told_in_the_form(support: Client) -> None:
    assert "errorlist" in upload(support, "nothing here\n")
    assert "errorlist" in support.post(f"{LIST}import/", {}).content.decode()
    assert not Suppression.objects.exists()


def test_who_may_import_and_export(client: Client) -> None:
    user = User.objects.create_user("staff", is_staff=True)
    client.force_login(user)
    assert client.get(f"{LIST}export/").status_code == 403
    user.user_permissions.set(Permission.objects.filter(codename="view_suppression"))
    assert client.get(f"{LIST}export/").status_code == 200
    assert client.get(f"{LIST}import/").status_code == 403
    assert "import/" not in client.get(LIST).content.decode()
    user.user_permissions.add(Permission.objects.get(codename="add_suppression"))
    assert client.get(f"{LIST}import/").status_code == 200
