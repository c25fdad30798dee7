"""Who is on the suppression list gets nothing: at the call, at delivery, and after it was taken off again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest
from django.core import mail
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st

from congressy_mailer import outbox, send_bulk, suppressions
from congressy_mailer.exceptions import InvalidAddress, InvalidOption, InvalidTransition
from congressy_mailer.models import Attachment, Event, Message, State, Suppression, SuppressionRemoval
from congressy_mailer.replies import Outcome, Reply
from congressy_mailer.signals import address_suppressed
from congressy_mailer.suppressions import is_suppressed, suppress, unsuppress
from congressy_mailer.suppressions.entries import Entry
from congressy_mailer.suppressions.lookup import suppressed_recipients
from congressy_mailer.suppressions.rules import Scope, Source
from congressy_mailer.testing import deliver_all
from tests.conftest import run_concurrently
from tests.support.fuzzing import examples
from tests.support.mails import deliver, deliver_batch, queue_message

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.usefixtures("published")]

ANA, BIA, CAIO = "ana@example.com", "bia@example.com", "caio@example.com"
LISTS = override_settings(CONGRESSY_MAILER={"LISTS": {"news": "News", "partners": "Partners"}})


@pytest.fixture(autouse=True)
def lists() -> Any:
    with LISTS:
        yield


def got() -> list[list[str]]:
    return [message.recipients() for message in mail.outbox]


def told(message: Message) -> list[tuple[str, str]]:
    return list(message.events.filter(type=Event.Type.SUPPRESSED).values_list("recipient", "detail"))


def test_whoever_is_on_the_list_is_left_out_at_the_call_and_the_headers_stay() -> None:
    suppress(BIA, reason="asked by phone")
    suppress(CAIO)
    message = queue_message(to=f"Ana <{ANA}>", cc=[BIA], bcc=[CAIO])
    assert message.state == State.QUEUED
    assert message.remaining == [ANA]
    assert sorted(told(message)) == [(BIA, "manual: asked by phone"), (CAIO, "manual")]
    deliver_all()
    assert got() == [[ANA]]
    assert mail.outbox[0].message()["Cc"] == BIA
    message.refresh_from_db()
    assert message.state == State.SENT


def test_a_mail_with_nobody_left_is_suppressed_and_not_published(published: list[str]) -> None:
    suppress(ANA)
    message = queue_message(to=ANA, attachments=[("a.txt", b"a")], idempotency_key="once")
    message.refresh_from_db()
    assert (message.state, message.due_at, message.queued_at) == (State.SUPPRESSED, None, None)
    assert message.finished_at is not None
    assert ANA in message.reason
    assert published == []
    assert outbox.sweep(timezone.now() + timedelta(days=1)) == []
    assert queue_message(to=ANA, idempotency_key="once").pk == message.pk
    assert Attachment.objects.count() == 1
    deliver_all()
    assert got() == []


def test_a_scheduled_mail_with_nobody_left_is_suppressed_too() -> None:
    suppress(ANA)
    assert queue_message(to=ANA, send_at=timezone.now() + timedelta(days=1)).state == State.SUPPRESSED


def test_an_address_that_comes_onto_the_list_after_the_call_gets_nothing() -> None:
    both, alone = queue_message(to=[ANA, BIA]), queue_message(to=BIA)
    suppress(BIA)
    deliver_all()
    assert got() == [[ANA]]
    for message in (both, alone):
        message.refresh_from_db()
        assert told(message) == [(BIA, "manual")]
    assert (both.state, alone.state) == (State.SENT, State.SUPPRESSED)
    assert (alone.token, alone.due_at, alone.attempts) == ("", None, 0)


def test_a_batch_is_looked_at_when_it_is_delivered() -> None:
    suppress(BIA)
    batch = send_bulk([ANA, BIA, CAIO], subject="Oi", message="Olá")
    assert set(batch.progress().states) == {State.QUEUED}
    suppress(CAIO, scope=Scope.TRANSACTIONAL)
    deliver_batch(batch)
    assert sorted(got()) == [[ANA], [CAIO]]
    assert batch.progress().states == {State.SENT: 2, State.SUPPRESSED: 1}
    assert batch.progress().done


def test_a_batch_of_nothing_but_suppressed_ends() -> None:
    people = [f"p{number}@example.com" for number in range(25)]
    for one in people:
        suppress(one)
    with override_settings(CONGRESSY_MAILER={"SLICE_SIZE": 10}):
        batch = send_bulk(people, subject="Oi", message="Olá")
        deliver_batch(batch)
    assert batch.progress().states == {State.SUPPRESSED: 25}


@pytest.mark.parametrize(
    ("scope", "list_id", "stopped"),
    [
        (None, "", {"transactional", "marketing", "news", "partners"}),
        ("transactional", "", {"transactional"}),
        ("non_transactional", "", {"marketing", "news", "partners"}),
        (None, "news", {"news"}),
    ],
)
def test_which_mail_is_stopped(scope: str | None, list_id: str, stopped: set[str]) -> None:
    suppress(ANA, scope=scope, list_id=list_id)
    mails = {
        "transactional": queue_message(to=ANA),
        "marketing": queue_message(to=ANA, transactional=False),
        "news": queue_message(to=ANA, transactional=False, list_id="news"),
        "partners": queue_message(to=ANA, transactional=False, list_id="partners"),
    }
    assert {name for name, message in mails.items() if message.state == State.SUPPRESSED} == stopped
    assert is_suppressed(ANA) == ("transactional" in stopped)
    assert is_suppressed(ANA, transactional=False) == ("marketing" in stopped)
    assert is_suppressed(ANA, transactional=False, list_id="news") == ("news" in stopped)


def test_neither_case_nor_the_way_a_domain_is_written_makes_a_difference() -> None:
    suppress("Ana Maria <ANA@BÜCHER.example>")
    for written in ("ana@xn--bcher-kva.example", "ana@bücher.example", "Ana@XN--BCHER-KVA.EXAMPLE"):
        assert is_suppressed(written)
        assert queue_message(to=written).state == State.SUPPRESSED
    assert not is_suppressed("ana@bucher.example")
    assert unsuppress("ana@Bücher.example") == 2
    assert not is_suppressed("ana@xn--bcher-kva.example")


def test_domains_that_older_rules_mixed_up_are_told_apart() -> None:
    suppress("ana@fass.example")
    assert not is_suppressed("ana@faß.example")
    suppress("Ana <ana@FAß.example>")
    assert is_suppressed("ana@xn--fa-hia.example")
    assert [
        queue_message(to=f"ana@{domain}").state for domain in ("faß.example", "FAß.example", "xn--FA-hia.example")
    ] == [State.SUPPRESSED] * 3
    assert unsuppress("ana@fass.example") == 2
    assert is_suppressed("ana@faß.example")


def test_retry_and_resend_after_the_address_was_taken_off() -> None:
    suppress(ANA)
    first, second = queue_message(to=ANA), queue_message(to=ANA)
    first.retry()
    deliver_all()
    first.refresh_from_db()
    assert first.state == State.SUPPRESSED
    assert got() == []
    unsuppress(ANA)
    first.retry()
    second.resend()
    deliver_all()
    assert got() == [[ANA], [ANA]]
    first.refresh_from_db()
    assert first.state == State.SENT
    with pytest.raises(InvalidTransition):
        first.retry()


def test_resend_is_for_all_but_those_on_the_list_now() -> None:
    suppress(BIA)
    message = queue_message(to=[ANA, BIA, CAIO])
    deliver_all()
    unsuppress(BIA)
    suppress(CAIO)
    message.resend()
    deliver_all()
    assert got() == [[ANA, CAIO], [ANA, BIA]]


def deferred_for(recipient: str, *, accepted: tuple[str, ...] = ()) -> Message:
    message = queue_message(to=[ANA, BIA])
    (claimed,) = outbox.claim([message.pk], "t")
    outbox.record("t", claimed, Outcome(claimed.id, accepted=accepted, deferred={recipient: Reply(451, "later")}))
    Message.objects.update(due_at=timezone.now())
    return message


def test_whoever_has_a_copy_is_not_looked_at_and_keeps_the_mail_sent() -> None:
    message = deferred_for(BIA, accepted=(ANA,))
    suppress(ANA)
    suppress(BIA)
    deliver([message.pk])
    message.refresh_from_db()
    assert message.state == State.SENT
    assert told(message) == [(BIA, "manual")]
    assert message.remaining is None


def test_a_claim_that_is_lost_changes_nothing() -> None:
    message = queue_message(to=ANA)
    (claimed,) = outbox.claim([message.pk], "old")
    Message.objects.update(token="new")
    assert outbox.remove_suppressed("old", [(claimed, {ANA: "manual"})]) == set()
    message.refresh_from_db()
    assert (message.state, message.token) == (State.SENDING, "new")
    assert told(message) == []


def test_it_is_told_once_although_the_worker_dies_after_it() -> None:
    message = queue_message(to=[ANA, BIA])
    (claimed,) = outbox.claim([message.pk], "dead")
    suppress(BIA)
    assert outbox.remove_suppressed("dead", [(claimed, suppressed_recipients([claimed])[claimed.id])]) == {message.pk}
    outbox.release("dead", [claimed])
    deliver_all()
    assert got() == [[ANA]]
    assert told(message) == [(BIA, "manual")]


def test_a_sensitive_mail_that_somebody_has_is_forgotten() -> None:
    message = deferred_for(BIA, accepted=(ANA,))
    Message.objects.update(sensitive=True)
    suppress(BIA)
    deliver([message.pk])
    message.refresh_from_db()
    assert (message.state, message.text) == (State.SENT, "")


def test_a_slice_asks_once_whatever_the_mails() -> None:
    messages = [queue_message(to=f"p{number}@example.com", transactional=number % 2 == 0) for number in range(40)]
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert suppressed_recipients(messages) == {}
    assert len(queries) == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"address": "ana@"}, InvalidAddress),
        ({"address": "ana@example.com, bia@example.com"}, InvalidAddress),
        ({"address": ANA, "scope": "all"}, InvalidOption),
        ({"address": ANA, "scope": "list"}, InvalidOption),
        ({"address": ANA, "scope": "transactional", "list_id": "news"}, InvalidOption),
        ({"address": ANA, "list_id": "nwes"}, InvalidOption),
        ({"address": ANA, "at": datetime(2026, 1, 1)}, InvalidOption),  # noqa: DTZ001
    ],
)
def test_what_makes_no_sense_is_an_error(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        suppress(**options)
    assert not Suppression.objects.exists()


def test_taking_off_takes_off_what_is_meant_and_no_more() -> None:
    suppress(ANA)
    suppress(ANA, list_id="news")
    assert unsuppress(ANA, scope="transactional") == 1
    assert not is_suppressed(ANA)
    assert is_suppressed(ANA, transactional=False)
    assert unsuppress(ANA, list_id="news") == 1
    assert unsuppress(ANA) == 1
    assert unsuppress(ANA) == 0


def test_what_the_compliance_team_put_there_stays() -> None:
    suppressions.add([entry(0, source=Source.COMPLIANCE)])
    assert unsuppress(ANA) == 0
    assert not suppress(ANA, scope="transactional")
    assert unsuppress(ANA) == 1
    assert suppressions.active().get(scope="transactional").source == Source.COMPLIANCE


def test_each_source_keeps_a_reason_of_its_own_and_one_lookup_finds_them() -> None:
    heard: list[str] = []

    def receive(sender: object, source: str, **kwargs: object) -> None:
        heard.append(source)

    address_suppressed.connect(receive)
    try:
        suppressions.add([entry(2), entry(1, source=Source.COMPLAINT), entry(3, source=Source.COMPLAINT)])
        assert not suppress(ANA, scope="transactional", reason="asked by phone")
    finally:
        address_suppressed.disconnect(receive)
    assert heard == [Source.COMPLAINT]
    assert set(suppressions.active().values_list("source", "reason")) == {
        ("bounce", "at 2"), ("complaint", "at 1"), ("manual", "asked by phone"),
    }  # fmt: skip
    assert told(queue_message(to=ANA)) == [(ANA, "complaint: at 1")]
    assert suppressions.remove(ANA, scope=Scope.TRANSACTIONAL, source=Source.COMPLAINT) == 1
    assert is_suppressed(ANA)
    assert unsuppress(ANA) == 2
    assert not is_suppressed(ANA)


def test_taking_off_what_nothing_is_known_of_counts_for_what_is_heard_of_later() -> None:
    assert unsuppress(ANA, list_id="news") == 0
    long_ago = timezone.now() - timedelta(days=1)
    suppressions.add(
        Entry(at=long_ago, source=Source.UNSUBSCRIBE, address=ANA, scope=Scope.LIST, list_id=list_id)
        for list_id in ("news", "partners")
    )
    assert not is_suppressed(ANA, transactional=False, list_id="news")
    assert is_suppressed(ANA, transactional=False, list_id="partners")
    assert unsuppress(ANA) == 1
    suppressions.add([entry(0)])
    assert not is_suppressed(ANA)
    assert suppress(ANA)


def entry(minute: int, *, source: Source = Source.BOUNCE, address: str = ANA) -> Entry:
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)
    return Entry(at=at, source=source, reason=f"at {minute}", address=address, scope=Scope.TRANSACTIONAL)


facts = st.lists(
    st.builds(
        entry,
        st.integers(0, 100),
        source=st.sampled_from([Source.BOUNCE, Source.COMPLAINT, Source.MANUAL]),
        address=st.sampled_from([ANA, BIA]),
    ),
    min_size=1,
    max_size=8,
)


def listed() -> set[tuple[Any, ...]]:
    return set(suppressions.active().values_list("address", "scope", "list_id", "source", "reason", "created_at"))


@settings(max_examples=examples(60), deadline=None)
@given(said=facts, order=st.randoms(use_true_random=False), parts=st.integers(1, 4), removed_at=st.integers(0, 100))
def test_any_order_of_the_same_facts_gives_the_same_list(said: Any, order: Any, parts: int, removed_at: int) -> None:
    """Somebody takes an address off once; only what was reported before that had happened before it."""
    first = entry(0)
    shuffled = [*said, *order.sample(said, len(said) // 2)]
    order.shuffle(shuffled)
    results = []
    for sequence in (sorted(said), shuffled):
        Suppression.objects.all().delete()
        SuppressionRemoval.objects.all().delete()
        suppressions.add([first])
        early = [one for one in sequence if one.at <= entry(removed_at).at]
        # Of what happened before, some is heard of before somebody takes it off and some after.
        heard = early[: len(early) // 2]
        suppressions.add(heard)
        with mock.patch.object(timezone, "now", return_value=entry(removed_at).at):
            suppressions.remove(ANA)
        rest = [one for one in sequence if one not in heard]
        for start in range(parts):
            suppressions.add(rest[start::parts])
        results.append(listed())
    assert results[0] == results[1]
    brought_back: dict[str, datetime] = {}
    for one in sorted(said):
        if one.address == ANA and one.at > entry(removed_at).at:
            brought_back.setdefault(one.source, one.at)
    assert {row[3]: row[5] for row in results[0] if row[0] == ANA} == brought_back


def test_several_at_once_put_the_same_on_the_list_once() -> None:
    people = [f"p{number}@example.com" for number in range(30)]

    def work(worker: int) -> int:
        mine = people[::-1] if worker % 2 else people
        return len(suppressions.add([entry(worker, address=one) for one in mine]))

    assert sum(run_concurrently(work)) == 30
    assert set(suppressions.active().values_list("reason", flat=True)) == {"at 0"}
    assert suppressions.active().count() == 30
