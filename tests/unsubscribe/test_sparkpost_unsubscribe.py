"""SparkPost's List-Unsubscribe and ours: whose stands, what a click means, and what a received mail offers."""

from __future__ import annotations

import itertools
from datetime import timedelta
from io import BytesIO, StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from congressy_mailer import suppressions
from congressy_mailer.delivery.composing import Composer
from congressy_mailer.models import Message, SuppressionRemoval
from congressy_mailer.sparkpost.events import parse_events
from congressy_mailer.suppressions import is_suppressed
from congressy_mailer.suppressions.sync import sync
from congressy_mailer.testing import deliver_all
from congressy_mailer.tracking.recording import track
from congressy_mailer.unsubscribe.received import read_offer
from tests.support.mails import composed_as_stored, queue_message
from tests.support.scripted_https import ScriptedHttps
from tests.support.scripted_suppression_list import SparkPostList
from tests.support.sparkpost_events import event

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.usefixtures("published")]

ANA, SITE = "ana@example.com", "https://www.congressy.com"


@pytest.fixture(autouse=True)
def lists(settings: Any) -> None:
    settings.LANGUAGE_CODE = "en"
    settings.CONGRESSY_MAILER = {"SITE_URL": SITE, "LISTS": {"news": "News", "partners": "Partners"}}


@pytest.fixture
def theirs(sparkpost_api: ScriptedHttps, settings: Any, lists: None) -> SparkPostList:
    settings.CONGRESSY_MAILER = {
        **settings.CONGRESSY_MAILER, "SITE_URL": SITE, "LISTS": {"news": "News", "partners": "Partners"},
    }  # fmt: skip
    sparkpost_api.script = listed = SparkPostList()
    return listed


def newsletter(list_id: str = "news", **options: Any) -> Message:
    return queue_message(**{"transactional": False, "list_id": list_id, **options})


def options_for_sparkpost(message: Message) -> dict[str, Any]:
    options: dict[str, Any] = composed_as_stored(message).sparkpost.get("options", {})
    return options


def happened(type: str, message: Message, **fields: Any) -> None:
    now = timezone.now()
    track(parse_events([event(type, message, timestamp=str(now.timestamp()), **fields)], now))


def stopped() -> set[str]:
    """Which mail Ana gets no more."""
    found = {list_id for list_id in ("news", "partners") if is_suppressed(ANA, transactional=False, list_id=list_id)}
    found |= {"marketing"} if is_suppressed(ANA, transactional=False) else set()
    return found | ({"tickets"} if is_suppressed(ANA) else set())


# Whose header stands


@pytest.mark.parametrize(
    ("setting", "options", "called_transactional"),
    [
        ("sparkpost", {}, False),
        ("own", {}, True),
        ("own", {"list_id": ""}, True),
        ("own", {"headers": {"list-unsubscribe": "<mailto:out@congressy.com>"}, "cc": ["bia@example.com"]}, True),
        # Without a header there is nothing to keep.
        ("own", {"cc": ["bia@example.com"]}, False),
        ("sparkpost", {"transactional": True, "list_id": ""}, True),
    ],
)
def test_sparkpost_is_told_what_keeps_the_header_that_is_wanted(
    settings: Any, setting: str, options: dict[str, Any], called_transactional: bool
) -> None:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "SPARKPOST_UNSUBSCRIBE": setting}
    assert options_for_sparkpost(newsletter(**options)).get("transactional", False) == called_transactional


# What a click on SparkPost's header means


@pytest.mark.parametrize("events_first", [True, False])
@pytest.mark.parametrize("type", ["list_unsubscribe", "link_unsubscribe"])
def test_who_leaves_a_list_at_sparkpost_gets_the_others(theirs: SparkPostList, type: str, events_first: bool) -> None:
    message = newsletter()
    steps = [lambda: happened(type, message), sync]
    source = "List Unsubscribe" if type == "list_unsubscribe" else "Unsubscribe Link"
    theirs.add(ANA, source=source, updated=timezone.now() + timedelta(seconds=70))
    for step in steps if events_first else reversed(steps):
        step()
    while not sync().complete:
        pass
    assert stopped() == {"news"}
    assert set(theirs.entries) == {(ANA, "non_transactional", "news")}
    assert sync().deleted == 0


def test_sparkposts_entry_may_come_later_than_its_event(theirs: SparkPostList) -> None:
    happened("list_unsubscribe", newsletter())
    sync()
    theirs.add(ANA, source="List Unsubscribe", updated=timezone.now() + timedelta(minutes=2))
    sync()
    assert stopped() == {"news"}
    assert (ANA, "non_transactional", "") not in theirs.entries


def test_who_leaves_mail_that_is_on_no_list_gets_none_of_it(theirs: SparkPostList) -> None:
    happened("list_unsubscribe", newsletter(""))
    theirs.add(ANA, source="List Unsubscribe")
    sync()
    assert stopped() == {"news", "partners", "marketing"}
    assert set(theirs.entries) == {(ANA, "non_transactional", "")}


def test_who_complains_as_well_gets_nothing_of_the_kind(theirs: SparkPostList) -> None:
    message = newsletter()
    happened("spam_complaint", message)
    happened("list_unsubscribe", message)
    # SparkPost has one entry for each type of mail: the later event is in it.
    theirs.add(ANA, source="List Unsubscribe")
    sync()
    assert stopped() == {"news", "partners", "marketing"}
    assert (ANA, "non_transactional", "") in theirs.entries


def test_what_sparkpost_had_before_the_click_stays(theirs: SparkPostList) -> None:
    theirs.add(ANA, source="List Unsubscribe", updated=timezone.now() - timedelta(days=3))
    sync()
    happened("list_unsubscribe", newsletter())
    theirs.add(ANA, source="List Unsubscribe")
    sync()
    assert stopped() == {"news", "partners", "marketing"}
    assert (ANA, "non_transactional", "") in theirs.entries


def test_who_unsubscribes_by_an_answer_keeps_getting_tickets(theirs: SparkPostList) -> None:
    for type in ("transactional", "non_transactional"):
        theirs.add(ANA, type, source="Bounce Rule", description="unsubscribe")
    sync()
    assert "tickets" in stopped()
    happened("out_of_band", newsletter(), bounce_class="90")
    sync()
    assert stopped() == {"news"}
    assert set(theirs.entries) == {(ANA, "non_transactional", "news")}


def test_a_complaint_about_a_newsletter_that_was_called_transactional_stops_no_ticket(theirs: SparkPostList) -> None:
    theirs.add(ANA, "transactional", source="Spam Complaint")
    happened("spam_complaint", newsletter(), transactional="1")
    sync()
    assert stopped() == {"news", "partners", "marketing"}
    assert set(theirs.entries) == {(ANA, "non_transactional", "")}


def test_a_complaint_about_a_ticket_is_sparkposts_to_judge(theirs: SparkPostList) -> None:
    theirs.add(ANA, "transactional", source="Spam Complaint")
    happened("spam_complaint", newsletter("", transactional=True), transactional="1")
    sync()
    assert "tickets" in stopped()


def test_without_a_key_nothing_is_remembered_for_sparkpost() -> None:
    happened("list_unsubscribe", newsletter())
    assert stopped() == {"news"}
    assert not SuppressionRemoval.objects.exists()


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_who_stays_after_a_click_at_sparkpost_gets_the_list_again(
    theirs: SparkPostList, client: Client, order: tuple[int, ...]
) -> None:
    """In whatever order we hear of it: the click was first."""
    message = newsletter()
    composer = Composer()
    composer.prepare([message])
    link = str(composer.compose(message).extra_headers["List-Unsubscribe"])[1:-1].removeprefix(SITE)
    clicked_at = timezone.now() - timedelta(minutes=2)
    told = event("list_unsubscribe", message, timestamp=str(clicked_at.timestamp()))
    theirs.add(ANA, source="List Unsubscribe", updated=clicked_at + timedelta(seconds=20))
    steps = [
        lambda: track(parse_events([told], timezone.now())),
        lambda: client.post(link, {"choice": "stay"}),
        sync,
    ]
    for step in order:
        steps[step]()
    sync()
    assert stopped() == set()
    assert theirs.entries == {}


# What a received mail offers

OWN = "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
THEIRS = "List-Unsubscribe: <mailto:u@unsub.sparkpost.example?subject=x>,\r\n <https://unsub.sparkpost.example/x>\r\n"


def own_header() -> str:
    composer = Composer()
    message = newsletter()
    composer.prepare([message])
    link = str(composer.compose(message).extra_headers["List-Unsubscribe"])
    # Folded as a server on the way may have done.
    return f"List-Unsubscribe:\r\n {link[:40]}\r\n {link[40:]}\r\n"


def verify(source: str, path: Path, **kept: Any) -> str:
    file = path / "mail.eml"
    file.write_bytes(f"Subject: Oi\r\n{source}\r\nOi\r\n".encode())
    out = StringIO()
    call_command("mailer", "sparkpost", "verify-unsubscribe", "--received", str(file), stdout=out, stderr=out, **kept)
    return out.getvalue()


def test_our_own_header_is_known_again(tmp_path: Path, settings: Any) -> None:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "SPARKPOST_UNSUBSCRIBE": "own"}
    told = verify(own_header() + OWN, tmp_path)
    assert f"for {ANA} and news" in told
    assert "can unsubscribe in one click" in told


@pytest.mark.parametrize(
    ("setting", "source", "problem"),
    [
        ("sparkpost", "", "has no List-Unsubscribe"),
        ("own", THEIRS + OWN, "not ours"),
        ("own", f"List-Unsubscribe: <{SITE}/mailer/unsubscribe/forged/>\r\n{OWN}", "not ours"),
        ("sparkpost", THEIRS, "cannot unsubscribe in one click"),
        ("sparkpost", f"List-Unsubscribe: <mailto:u@x.example>\r\n{OWN}", "cannot unsubscribe in one click"),
        ("sparkpost", f"{THEIRS}{OWN}{OWN}", "cannot unsubscribe in one click"),
    ],
)
def test_what_is_missing_is_an_error(tmp_path: Path, settings: Any, setting: str, source: str, problem: str) -> None:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "SPARKPOST_UNSUBSCRIBE": setting}
    with pytest.raises(CommandError, match=problem):
        verify(source, tmp_path)


def test_sparkposts_header_is_well_where_it_is_expected(tmp_path: Path) -> None:
    told = verify(THEIRS + OWN, tmp_path)
    assert "probably SparkPost's" in told
    assert "webhook" in told
    assert "can unsubscribe in one click" in told


@pytest.mark.parametrize(
    ("signature", "signed"),
    [
        ("", None),
        ("DKIM-Signature: v=1; h=From:List-Unsubscribe:\r\n list-unsubscribe-post; b=x\r\n", True),
        ("DKIM-Signature: v=1; h=From:List-Unsubscribe; b=x\r\n", False),
        ("DKIM-Signature: v=1; bh=List-Unsubscribe:List-Unsubscribe-Post\r\n", False),
    ],
)
def test_whether_a_signature_covers_the_headers(signature: str, signed: bool | None, tmp_path: Path) -> None:
    assert read_offer((signature + THEIRS + OWN + "\r\n").encode()).signed is signed
    assert ("No DKIM signature" in verify(signature + THEIRS + OWN, tmp_path)) == (signed is False)


@pytest.mark.parametrize(
    "source",
    [b"", b"\xff\xfe", b"List-Unsubscribe: <http://[>\r\n\r\n", b"List-Unsubscribe: \xff<\xe9>\r\n\r\n", b"<" * 10**6],
)
def test_whatever_is_given_is_read(source: bytes) -> None:
    assert read_offer(source).own is None


def test_it_sends_one_mail_and_says_what_must_come(settings: Any, published: list[str]) -> None:
    for setting, expected in (("sparkpost", "List-Unsubscribe of SparkPost's"), ("own", f"List-Unsubscribe: <{SITE}/")):
        settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "SPARKPOST_UNSUBSCRIBE": setting}
        out = StringIO()
        call_command("mailer", "sparkpost", "verify-unsubscribe", ANA, "--list", "news", stdout=out)
        assert expected in out.getvalue()
    assert [message.list_id for message in Message.objects.all()] == ["news", "news"]
    assert len(published) == 2
    assert deliver_all() is not None


@pytest.mark.parametrize(
    ("conf", "arguments", "problem"),
    [
        ({"SITE_URL": None}, [ANA], "SITE_URL"),
        ({}, [ANA, "--list", "nwes"], "Did you mean"),
        ({}, ["ana@"], "ana@"),
        ({}, ["--received", "/nowhere/mail.eml"], "cannot be read"),
        ({}, ["left@example.com"], "suppression list"),
    ],
)
def test_what_cannot_be_verified_is_an_error_and_no_mail(
    settings: Any, conf: dict[str, Any], arguments: list[str], problem: str
) -> None:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, **conf}
    suppressions.suppress("left@example.com")
    with pytest.raises(CommandError, match=problem):
        call_command("mailer", "sparkpost", "verify-unsubscribe", *arguments)
    assert not Message.objects.filter(state="queued").exists()


def test_a_mail_is_read_from_the_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=BytesIO(f"{THEIRS}{OWN}\r\n".encode())))
    out = StringIO()
    call_command("mailer", "sparkpost", "verify-unsubscribe", "--received", "-", stdout=out)
    assert "can unsubscribe in one click" in out.getvalue()
