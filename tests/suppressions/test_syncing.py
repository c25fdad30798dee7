"""Our suppression list and SparkPost's: brought together, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress as suppress_error
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from congressy_mailer import periodic, suppressions, tasks
from congressy_mailer.broker import sending
from congressy_mailer.exceptions import SparkPostError
from congressy_mailer.models import PeriodicTask, Suppression, SuppressionRemoval, SyncCursor
from congressy_mailer.suppressions import is_suppressed, suppress, unsuppress
from congressy_mailer.suppressions.entries import Entry
from congressy_mailer.suppressions.rules import Scope, Source
from congressy_mailer.suppressions.sync import SyncResult, sync
from congressy_mailer.unsubscribe import preferences
from tests.conftest import run_concurrently
from tests.support.scripted_https import Answer, ScriptedHttps
from tests.support.scripted_suppression_list import CARRY_ON, SparkPostList

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.usefixtures("published")]

ANA, BIA, CAIO = "ana@example.com", "bia@example.com", "caio@example.com"
LONG_AGO = timedelta(days=2)


@pytest.fixture
def theirs(sparkpost_api: ScriptedHttps, settings: Any) -> Iterator[SparkPostList]:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "LISTS": {"news": "News"}}
    listed = SparkPostList()
    sparkpost_api.script = listed
    yield listed
    assert all(request.headers["Authorization"] for request in sparkpost_api.requests)


def put_back(**times: Any) -> None:
    """As if all that is stored had been so for long."""
    long_ago = timezone.now() - LONG_AGO
    Suppression.objects.exclude(synced_at=None).update(synced_at=long_ago)
    SuppressionRemoval.objects.exclude(synced_at=None).update(synced_at=long_ago)
    PeriodicTask.objects.update(last_run_at=long_ago)


def methods(api: ScriptedHttps) -> list[str]:
    return [request.method for request in api.requests]


def test_each_side_learns_what_the_other_has(theirs: SparkPostList) -> None:
    suppress(ANA, reason="asked by phone")
    suppress(BIA, list_id="news")
    theirs.add(CAIO, "transactional", source="Bounce Rule", description="550 no such user")
    theirs.add("DAVI@Bücher.example", list_id="news")
    assert sync() == SyncResult(fetched=2, imported=2, exported=3, complete=True)
    assert is_suppressed(CAIO)
    assert not is_suppressed(CAIO, transactional=False)
    assert is_suppressed("davi@xn--bcher-kva.example", transactional=False, list_id="news")
    assert {key for key in theirs.entries if key[0] in (ANA, BIA)} == {
        (ANA, "transactional", ""),
        (ANA, "non_transactional", ""),
        (BIA, "non_transactional", "news"),
    }
    assert theirs.entries[ANA, "transactional", ""]["description"] == "manual: asked by phone"
    row = Suppression.objects.get(address=CAIO)
    assert (row.source, row.reason) == (Source.SPARKPOST, "Bounce Rule: 550 no such user")
    assert not Suppression.objects.filter(synced_at=None).exists()
    assert sync() == SyncResult(fetched=5, complete=True)


def test_after_the_first_time_only_changes_are_listed(theirs: SparkPostList, sparkpost_api: ScriptedHttps) -> None:
    theirs.add(ANA, updated=timezone.now() - LONG_AGO)
    sync()
    assert "from" not in sparkpost_api.requests[0].query
    theirs.add(BIA)
    assert sync().fetched == 1
    assert "from" in sparkpost_api.requests[-1].query
    assert sync(full=True).fetched == 2
    PeriodicTask.objects.filter(name=periodic.FETCH_EVERYTHING).update(last_run_at=timezone.now() - LONG_AGO)
    assert sync().fetched == 2


def test_what_is_taken_off_here_is_deleted_there(theirs: SparkPostList) -> None:
    suppress(ANA)
    suppress(ANA, list_id="news")
    sync()
    unsuppress(ANA, list_id="news")
    assert sync().deleted == 1
    assert set(theirs.entries) == {(ANA, "transactional", ""), (ANA, "non_transactional", "")}
    unsuppress(ANA)
    assert sync().deleted == 2
    assert theirs.entries == {}
    assert sync() == SyncResult(complete=True)
    assert not is_suppressed(ANA)


@pytest.mark.parametrize(
    ("taken_off", "left"), [({"list_id": "news"}, ("", "partners.x")), ({"scope": "non_transactional"}, ("news",))]
)
def test_what_else_there_is_of_an_address_stays(
    theirs: SparkPostList, sparkpost_api: ScriptedHttps, taken_off: dict[str, str], left: tuple[str, ...]
) -> None:
    suppress(ANA, list_id="news")
    if "scope" in taken_off:
        suppress(ANA, scope="non_transactional")
    else:
        theirs.add(ANA, source="Spam Complaint", updated=timezone.now() - LONG_AGO)
        theirs.add(ANA, list_id="partners.x", updated=timezone.now() - LONG_AGO)
    sync()
    unsuppress(ANA, **taken_off)
    assert sync().deleted == 1
    assert [request.query for request in sparkpost_api.requests if request.method == "DELETE"] == [
        {"list_id": [taken_off.get("list_id", "")]}
    ]
    assert {key[2] for key in theirs.entries} == set(left)
    assert sync(full=True).removed == 0
    assert is_suppressed(ANA, transactional=False) == ("" in left)
    assert is_suppressed(ANA, transactional=False, list_id="news") == ("" in left or "news" in left)


def test_nothing_is_forgotten_by_a_listing_that_may_be_older_than_our_deletion(theirs: SparkPostList) -> None:
    theirs.add(ANA, source="Spam Complaint", updated=timezone.now() - LONG_AGO)
    theirs.add(BIA, source="Spam Complaint", updated=timezone.now() - LONG_AGO)
    suppress(ANA, list_id="news")
    sync()
    unsuppress(ANA, list_id="news")
    sync()
    Suppression.objects.update(synced_at=timezone.now() - LONG_AGO)
    theirs.entries.clear()
    assert sync(full=True).removed == 1
    assert is_suppressed(ANA, transactional=False)
    put_back()
    assert sync(full=True).removed == 1
    assert not is_suppressed(ANA, transactional=False)


@pytest.mark.parametrize("list_id", ["newsletter-weekly.example1.com", "n" * 255])
def test_a_list_may_be_called_as_sparkpost_allows(theirs: SparkPostList, settings: Any, list_id: str) -> None:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "LISTS": {list_id: "Weekly"}}
    suppress(ANA, list_id=list_id)
    theirs.add(BIA, list_id=list_id)
    sync()
    assert is_suppressed(BIA, transactional=False, list_id=list_id)
    assert (ANA, "non_transactional", list_id) in theirs.entries
    unsuppress(ANA, list_id=list_id)
    unsuppress(BIA, list_id=list_id)
    assert sync().deleted == 2
    assert theirs.entries == {}


def test_what_was_never_there_need_not_be_deleted(theirs: SparkPostList, sparkpost_api: ScriptedHttps) -> None:
    suppress(ANA, scope="transactional")
    unsuppress(ANA)
    assert sync() == SyncResult(complete=True)
    assert "DELETE" not in methods(sparkpost_api)
    assert not Suppression.objects.filter(synced_at=None).exists()


def test_where_both_sides_have_changed_something_the_later_word_counts(theirs: SparkPostList) -> None:
    for address in (ANA, BIA):
        suppress(address, scope="transactional", at=timezone.now() - LONG_AGO)
    sync()
    unsuppress(ANA)
    unsuppress(BIA)
    theirs.add(ANA, "transactional", updated=timezone.now() + timedelta(seconds=5), source="Spam Complaint")
    theirs.add(BIA, "transactional", updated=timezone.now() - timedelta(seconds=5))
    sync()
    assert is_suppressed(ANA)
    assert not is_suppressed(BIA)
    assert set(theirs.entries) == {(ANA, "transactional", "")}


def test_what_was_added_there_while_it_was_to_be_deleted_stays(theirs: SparkPostList) -> None:
    suppress(ANA, scope="transactional")
    sync()
    unsuppress(ANA)
    listing = Answer(200, {"results": [], "links": []})
    theirs.add(ANA, "transactional", updated=timezone.now() + timedelta(seconds=5), source="Spam Complaint")
    # The listing does not know of it yet.
    theirs.interruptions = [listing]
    assert sync().deleted == 0
    assert is_suppressed(ANA)
    assert set(theirs.entries) == {(ANA, "transactional", "")}


def test_a_listing_that_is_late_brings_nothing_back(theirs: SparkPostList) -> None:
    suppress(ANA, scope="transactional")
    sync()
    old = dict(theirs.entries)
    unsuppress(ANA)
    sync()
    theirs.entries = old
    assert sync(full=True).imported == 0
    assert not is_suppressed(ANA)


def test_what_the_compliance_team_says_counts_always_and_is_left_alone(theirs: SparkPostList) -> None:
    suppress(ANA, scope="transactional")
    sync()
    unsuppress(ANA)
    theirs.add(ANA, "transactional", source="Compliance", updated=timezone.now() - LONG_AGO)
    theirs.add(BIA, source="Compliance")
    sync()
    assert {row.source for row in suppressions.active()} == {Source.COMPLIANCE}
    assert unsuppress(ANA) == unsuppress(BIA) == 0
    before = dict(theirs.entries)
    assert sync(full=True) == SyncResult(fetched=2, complete=True)
    assert theirs.entries == before


def test_only_a_listing_of_everything_tells_what_is_gone(theirs: SparkPostList) -> None:
    theirs.add(ANA, updated=timezone.now() - LONG_AGO)
    theirs.add(BIA, updated=timezone.now() - LONG_AGO)
    suppress(CAIO, scope="transactional")
    sync()
    put_back()
    PeriodicTask.objects.update(last_run_at=timezone.now())
    theirs.entries.clear()
    theirs.add(BIA, updated=timezone.now() - LONG_AGO)
    assert sync() == SyncResult(complete=True)
    assert is_suppressed(ANA, transactional=False)
    assert sync(full=True) == SyncResult(fetched=1, removed=1, exported=1, complete=True)
    assert not is_suppressed(ANA, transactional=False)
    assert is_suppressed(BIA, transactional=False)
    # What is ours SparkPost is told again.
    assert is_suppressed(CAIO)
    assert (CAIO, "transactional", "") in theirs.entries


def test_a_listing_that_breaks_off_deletes_nothing(theirs: SparkPostList) -> None:
    people = [f"p{number}@example.com" for number in range(6)]
    for one in people:
        theirs.add(one, updated=timezone.now() - LONG_AGO)
    sync()
    put_back()
    theirs.per_page = 2
    theirs.interruptions = [CARRY_ON, Answer(503)]
    with pytest.raises(SparkPostError):
        sync()
    assert suppressions.active().count() == 6
    theirs.entries.clear()
    theirs.interruptions = []
    theirs.expire_cursors()
    # Two it had listed before.
    assert sync().removed == 4
    put_back()
    assert sync().removed == 2


def test_it_goes_on_where_it_broke_off(theirs: SparkPostList, sparkpost_api: ScriptedHttps) -> None:
    people = [f"p{number}@example.com" for number in range(10)]
    for one in people:
        theirs.add(one)
    theirs.per_page = 2
    for interruption in (Answer(429, {}, {"Retry-After": "3"}), Answer(502, b"<h1>"), None):
        theirs.interruptions = [CARRY_ON, interruption]
        with pytest.raises(SparkPostError) as raised:
            sync()
        assert raised.value.status in (429, 502, None)
    assert suppressions.active().count() == 6
    assert sync() == SyncResult(fetched=4, imported=4, complete=True)
    first = [request for request in sparkpost_api.requests if request.query.get("cursor") == ["initial"]]
    assert len(first) == 1
    assert not SyncCursor.objects.exists()


def test_a_run_takes_no_longer_than_it_may(theirs: SparkPostList) -> None:
    for number in range(4):
        theirs.add(f"p{number}@example.com")
    suppress(ANA)
    theirs.per_page = 2
    assert sync(seconds=0) == SyncResult(fetched=2, imported=2)
    # Whatever the time, a run comes a step further.
    assert sync(seconds=0) == SyncResult(fetched=2, imported=2, exported=2, complete=True)


def test_a_worker_that_dies_in_the_middle_loses_nothing(theirs: SparkPostList, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        theirs.add(f"p{number}@example.com")
    suppress(ANA, scope="transactional")
    theirs.per_page = 2

    def die(*arguments: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as dying:
        # Stored, and not written down how far it came.
        dying.setattr("congressy_mailer.suppressions.sync._mark_fetched", die)
        with pytest.raises(SystemExit):
            sync()
    with monkeypatch.context() as dying:
        # Told, and not written down.
        dying.setattr("congressy_mailer.suppressions.sync._mark", die)
        with pytest.raises(SystemExit):
            sync()
    assert sync().complete
    assert suppressions.active().count() == 7
    assert len(theirs.entries) == 7
    assert not Suppression.objects.filter(synced_at=None).exists()


@pytest.mark.parametrize("full", [False, True])
def test_a_place_that_is_no_longer_known_has_it_begin_again(theirs: SparkPostList, full: bool) -> None:
    for number in range(6):
        theirs.add(f"p{number}@example.com")
    theirs.per_page = 2
    sync(full=full, seconds=0)
    theirs.expire_cursors()
    assert sync().complete
    assert suppressions.active().count() == 6


def test_what_sparkpost_refuses_is_noted_and_not_told_again(
    theirs: SparkPostList, sparkpost_api: ScriptedHttps
) -> None:
    people = [f"p{number}@example.com" for number in range(20)]
    for one in people:
        suppress(one, scope="transactional")
    theirs.malformed = {people[3], people[11]}
    result = sync()
    assert (result.exported, result.refused, result.complete) == (18, 2, True)
    refused = Suppression.objects.exclude(refusal="")
    assert {row.address for row in refused} == theirs.malformed
    assert all("malformed" in row.refusal for row in refused)
    assert {key[0] for key in theirs.entries} == set(people) - theirs.malformed
    sparkpost_api.requests.clear()
    sync()
    assert "PUT" not in methods(sparkpost_api)
    # Until something changes.
    theirs.malformed.clear()
    unsuppress(people[3])
    suppress(people[3], scope="transactional")
    assert sync().exported == 1
    assert is_suppressed(people[11])


def test_where_it_refuses_everything_it_is_not_asked_one_by_one_without_end(
    theirs: SparkPostList, sparkpost_api: ScriptedHttps
) -> None:
    people = [f"p{number}@example.com" for number in range(300)]
    suppressions.add(
        Entry(at=timezone.now(), source=Source.IMPORT, address=one, scope=Scope.TRANSACTIONAL) for one in people
    )
    theirs.malformed = set(people)
    with pytest.raises(SparkPostError, match="refused 100 entries") as raised:
        sync()
    assert "@" not in str(raised.value)
    assert len(sparkpost_api.requests) < 250


@pytest.mark.parametrize("status", [401, 403, 429, 500])
def test_a_key_that_may_not_and_a_server_that_cannot_blame_no_entry(theirs: SparkPostList, status: int) -> None:
    suppress(ANA, scope="transactional")
    theirs.interruptions = [CARRY_ON, Answer(status)]
    with pytest.raises(SparkPostError):
        sync()
    assert Suppression.objects.get().refusal == ""
    assert sync().exported == 1
    unsuppress(ANA)
    theirs.interruptions = [CARRY_ON, CARRY_ON, Answer(status)]
    with pytest.raises(SparkPostError) as raised:
        sync()
    assert ANA not in str(raised.value)
    assert sync().deleted == 1


def test_what_changes_while_sparkpost_is_told_is_told_again(
    theirs: SparkPostList, sparkpost_api: ScriptedHttps
) -> None:
    suppress(ANA, scope="transactional")

    def script(request: Any) -> Answer | None:
        if request.method == "PUT":
            unsuppress(ANA)
            # That of the server's thread.
            connection.close()
        return theirs(request)

    sparkpost_api.script = script
    sync()
    assert not Suppression.objects.exists()
    # By a clock that is ahead of ours it was put there later than it was taken off.
    theirs.entries[ANA, "transactional", ""]["updated"] = (timezone.now() + timedelta(minutes=2)).isoformat()
    sparkpost_api.script = theirs
    assert sync().deleted == 1


def test_an_address_with_a_slash_is_one_address(theirs: SparkPostList) -> None:
    strange = "a/b%c?d#e+f@example.com"
    suppress(strange, scope="transactional")
    sync()
    assert (strange, "transactional", "") in theirs.entries
    unsuppress(strange)
    assert sync().deleted == 1


def test_what_says_nothing_about_our_mail_is_passed_over(theirs: SparkPostList) -> None:
    theirs.add(ANA, subaccount_id="146")
    theirs.add(BIA, "transactional", "news")
    theirs.add(CAIO, "something new")
    theirs.add("no address")
    assert sync() == SyncResult(complete=True)
    assert not Suppression.objects.exists()


@pytest.mark.parametrize("body", [{}, {"results": {}}, [], {"results": [None, 7, {"recipient": 5}]}, b"[1]"])
def test_an_answer_of_another_shape_loses_nothing(theirs: SparkPostList, body: Any) -> None:
    theirs.add(ANA, updated=timezone.now() - LONG_AGO)
    sync()
    theirs.interruptions = [Answer(200, body)]
    with suppress_error(SparkPostError):
        sync(full=True)
    assert is_suppressed(ANA, transactional=False)


def test_several_at_once_come_to_the_same(theirs: SparkPostList) -> None:
    for number in range(30):
        theirs.add(f"p{number}@example.com")
    suppress(ANA)
    theirs.per_page = 5
    run_concurrently(lambda worker: sync(), 3)
    while not sync().complete:
        pass
    assert suppressions.active().count() == 32
    assert len(theirs.entries) == 32
    assert not Suppression.objects.filter(synced_at=None).exists()


def test_the_sweep_asks_for_it_when_it_is_time(theirs: SparkPostList, published: list[str]) -> None:
    for _ in range(3):
        tasks.sweep(timezone.now().timestamp())
    assert published.count("sync_suppressions") == 1
    PeriodicTask.objects.filter(name=periodic.SYNC).update(last_run_at=timezone.now() - timedelta(minutes=61))
    tasks.sweep(timezone.now().timestamp())
    assert published.count("sync_suppressions") == 2


@pytest.mark.parametrize("seconds", [3, 2 * 60 * 60 - 60, 100 * 60 * 60])
def test_sparkposts_retry_after_is_waited_for(theirs: SparkPostList, published: list[str], seconds: int) -> None:
    theirs.interruptions = [Answer(429, {}, {"Retry-After": str(seconds)})]
    tasks.sweep(timezone.now().timestamp())
    tasks.sync_suppressions()
    told_to_wait = PeriodicTask.objects.get(name=periodic.SYNC).last_run_at
    tasks.sweep(timezone.now().timestamp())
    assert published.count("sync_suppressions") == 1
    # As if almost all of that time were over, and then all of it.
    for seconds_left, count in ((1.5, 1), (-1, 2)):
        waited = timedelta(seconds=min(seconds, 2 * 60 * 60) - seconds_left)
        PeriodicTask.objects.filter(name=periodic.SYNC).update(last_run_at=told_to_wait - waited)
        tasks.sweep(timezone.now().timestamp())
        assert published.count("sync_suppressions") == count


def test_without_a_key_or_a_time_nobody_asks_for_it(published: list[str], settings: Any) -> None:
    tasks.sweep(timezone.now().timestamp())
    settings.CONGRESSY_MAILER = {"SPARKPOST_API_KEY": "key", "SUPPRESSION_SYNC": None}
    tasks.sweep(timezone.now().timestamp())
    assert "sync_suppressions" not in published


def test_the_task_asks_for_another_where_something_is_left(
    theirs: SparkPostList, published: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("congressy_mailer.delivery.upkeep.sync", lambda: sync(seconds=0))
    for number in range(3):
        theirs.add(f"p{number}@example.com")
    theirs.per_page = 2
    tasks.sync_suppressions()
    assert published == [sending.SYNC_SUPPRESSIONS.rpartition(".")[2]]
    tasks.sync_suppressions()
    assert len(published) == 1
    theirs.interruptions = [Answer(429, {}, {"Retry-After": "3"})]
    tasks.sync_suppressions()
    assert len(published) == 1
    assert "429" in caplog.text
    assert "an-api-key" not in caplog.text


@pytest.mark.parametrize("left_first", [True, False])
def test_who_left_here_stays_away_when_sparkpost_takes_its_own_reason_back(
    theirs: SparkPostList, left_first: bool
) -> None:
    theirs.add(ANA, source="Bounce Rule", updated=timezone.now() - LONG_AGO)
    if not left_first:
        sync()
    preferences.unsubscribe(ANA, "", "One click in the mail program.")
    sync()
    theirs.entries.clear()
    put_back()
    sync()
    assert is_suppressed(ANA, transactional=False)
    assert set(theirs.entries) == {(ANA, "non_transactional", "")}


@pytest.mark.parametrize("list_id", ["News", "n" * 256, "a list", "0\0", ".news", "news.", "a..b"])
def test_a_list_that_is_not_ours_stops_nothing(theirs: SparkPostList, list_id: str) -> None:
    suppress(ANA, list_id="news")
    theirs.add(ANA, list_id=list_id)
    theirs.add(BIA)
    assert sync().complete
    assert is_suppressed(BIA, transactional=False)
    assert list(suppressions.active().filter(address=ANA).values_list("list_id", flat=True)) == ["news"]
