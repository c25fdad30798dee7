"""``manage.py mailer suppressions``: what it does, what it says, and its exit status."""

from __future__ import annotations

import csv
import stat
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from congressy_mailer import suppressions, tasks
from congressy_mailer.models import Suppression, SuppressionRemoval
from congressy_mailer.suppressions import is_suppressed, suppress, unsuppress
from congressy_mailer.suppressions.entries import Entry
from congressy_mailer.suppressions.rules import Scope, Source
from tests.support.commands import mailer
from tests.support.scripted_https import Answer, ScriptedHttps
from tests.support.scripted_suppression_list import SparkPostList

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("english", "published")]

ANA, BIA = "ana@example.com", "bia@example.com"


@pytest.fixture(autouse=True)
def a_list(settings: Any) -> None:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "LISTS": {"news": "News"}}


def test_an_address_is_added_shown_and_removed() -> None:
    assert (
        "on the suppression list now"
        in mailer("suppressions", "add", "Ana@Example.com", "--reason", "asked by phone").out
    )
    assert "already" in mailer("suppressions", "add", ANA).out
    shown = mailer("suppressions", "list", ANA).out
    assert shown.count(ANA) == 2
    assert "asked by phone" in shown
    assert "2 entries." in shown
    assert "0 entries." in mailer("suppressions", "list", BIA).out
    assert mailer("suppressions", "list", "--limit", "1").out.count(ANA) == 1
    assert "again" in mailer("suppressions", "remove", ANA, "--scope", "transactional").out
    assert not is_suppressed(ANA)
    assert is_suppressed(ANA, transactional=False)
    mailer("suppressions", "remove", ANA)
    gone = mailer("suppressions", "remove", ANA)
    assert "was not on the suppression list" in gone.complaint
    assert gone.status == 1


def test_what_makes_no_sense_is_told() -> None:
    assert "not a mail address" in mailer("suppressions", "add", "ana@").complaint
    assert "LISTS" in mailer("suppressions", "add", ANA, "--list", "nwes").complaint
    assert "not both" in mailer("suppressions", "add", ANA, "--list", "news", "--scope", "transactional").complaint
    suppressions.add([Entry(at=timezone.now(), source=Source.COMPLIANCE, address=ANA, scope=Scope.TRANSACTIONAL)])
    assert "compliance" in mailer("suppressions", "remove", ANA).complaint


def test_a_file_is_imported_and_what_is_wrong_told_row_by_row(tmp_path: Path) -> None:
    path = tmp_path / "gone.csv"
    path.write_text(
        "E-mail;Scope;List_ID;Reason\nANA@example.com;transactional;;telefone\nbia@example.com;;news;\n"
        "davi@;;;\neva@example.com;all;;\nfé@example.com;;;\ngil@example.com;;nwes;\nhugo@example.com;;;\n",
        encoding="cp1252",
    )
    done = mailer("suppressions", "import", str(path), "--scope", "non_transactional", "--reason", "old system")
    assert "7 rows read. 3 entries are new." in done.out
    assert "4 rows are left out." in done.complaint
    for number in (4, 5, 6, 7):
        assert f"row {number}," in done.complaint
    assert set(suppressions.active().values_list("address", "scope", "list_id", "reason", "source")) == {
        (ANA, "transactional", "", "telefone", "import"),
        (BIA, "list", "news", "old system", "import"),
        ("hugo@example.com", "non_transactional", "", "old system", "import"),
    }
    assert "cannot be read" in mailer("suppressions", "import", str(tmp_path / "none.csv")).complaint


def test_what_is_exported_can_be_imported(tmp_path: Path) -> None:
    suppress(ANA, reason="=1+1")
    suppress(BIA, list_id="news", reason='said "no"; twice')
    suppress("+tag@example.com", scope="transactional", reason="＝1")
    # As long as an address may be, and an apostrophe may stand in one.
    suppress(f"={'a' * 63}@example.com", scope="transactional", reason="-")
    suppress("'=cmd@example.com", scope="transactional", reason="'quoted'")
    before = set(suppressions.active().values_list("address", "scope", "list_id", "reason"))
    path = tmp_path / "list.csv"
    assert "6 entries written." in mailer("suppressions", "export", str(path)).out
    cells = [cell for row in csv.reader(StringIO(path.read_text("utf-8-sig"))) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "＝"))]
    assert {"'=1+1", "'＝1", "'-", "'+tag@example.com", "''=cmd@example.com", "'quoted'"} <= set(cells)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert mailer("suppressions", "export", "-").out.count("\n") == 7
    Suppression.objects.all().delete()
    assert mailer("suppressions", "import", str(path)).complaint == ""
    assert set(suppressions.active().values_list("address", "scope", "list_id", "reason")) == before
    assert suppressions.active().get(address=BIA).reason == 'said "no"; twice'
    assert "cannot be written" in mailer("suppressions", "export", str(tmp_path / "no" / "list.csv")).complaint


def test_it_is_brought_together_with_sparkposts(
    sparkpost_api: ScriptedHttps, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = sparkpost_api.script = SparkPostList(per_page=2)
    for number in range(5):
        theirs.add(f"p{number}@example.com")
    suppress(ANA)
    monkeypatch.setattr("congressy_mailer.management.suppression_list._PART_SECONDS", 0.0)
    done = mailer("suppressions", "sync")
    assert "5 read, 5 added here, 0 removed here. To SparkPost: 2 added" in done.out
    assert "are the same now" in done.out
    theirs.interruptions = [Answer(429, {}, {"Retry-After": "3"})]
    assert "429" in mailer("suppressions", "sync", "--full").complaint


def test_without_a_key_it_says_which_setting_is_missing() -> None:
    assert "SPARKPOST_API_KEY" in mailer("suppressions", "sync").complaint


def test_what_was_taken_off_is_forgotten_a_day_later_and_once_sparkpost_knows(settings: Any) -> None:
    for key, left in (("key", {BIA}), (None, set())):
        for address in (ANA, BIA):
            suppress(address, scope="transactional")
            unsuppress(address)
        tasks.purge()
        assert SuppressionRemoval.objects.count() == 2
        settings.CONGRESSY_MAILER = {"SPARKPOST_API_KEY": key}
        long_ago = timezone.now() - timedelta(days=2)
        SuppressionRemoval.objects.update(removed_at=long_ago)
        SuppressionRemoval.objects.filter(address=ANA).update(synced_at=long_ago)
        tasks.purge()
        assert set(SuppressionRemoval.objects.values_list("address", flat=True)) == left


def test_an_export_keeps_what_each_reason_came_from(tmp_path: Path) -> None:
    now = timezone.now()
    suppressions.add(
        Entry(at=now, source=source, reason=f"by {source}", address=ANA, scope=Scope.NON_TRANSACTIONAL)
        for source in Source
    )
    path = tmp_path / "list.csv"
    assert "8 entries written." in mailer("suppressions", "export", str(path)).out
    Suppression.objects.all().delete()
    assert "1 entry is new." in mailer("suppressions", "import", str(path)).out
    # What SparkPost's list had is its own business; who left there has left.
    assert set(suppressions.active().values_list("source", flat=True)) == {
        *{Source.BOUNCE, Source.COMPLAINT, Source.UNSUBSCRIBE, Source.MANUAL, Source.IMPORT}
    }


def test_a_column_of_sources_that_are_not_ours_makes_an_import(tmp_path: Path) -> None:
    path = tmp_path / "gone.csv"
    path.write_text("email,source\nana@example.com,website\nbia@example.com,Unsubscribe\n")
    mailer("suppressions", "import", str(path), "--scope", "non_transactional")
    assert set(suppressions.active().values_list("address", "source")) == {(ANA, "import"), (BIA, "unsubscribe")}
