"""What SparkPost's events lead to: the same in whatever order they come, and however often."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import override_settings
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from congressy_mailer import outbox, send_bulk, suppressions
from congressy_mailer.models import Event, Message, RecipientStatus, Suppression, SuppressionRemoval
from congressy_mailer.signals import TrackedEvent, tracked
from congressy_mailer.sparkpost.events import parse_events
from congressy_mailer.suppressions.entries import Entry, add, purge, remove
from congressy_mailer.suppressions.lookup import suppressed_among
from congressy_mailer.suppressions.rules import Scope, Source
from congressy_mailer.tracking.recording import track
from tests.conftest import run_concurrently
from tests.support.fuzzing import examples
from tests.support.mails import queue_message
from tests.support.sparkpost_events import START, end_state, event, forget, history, moment, shuffled

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("published")]

NOW = datetime.fromtimestamp(START, UTC) + timedelta(days=90)
ANA = "ana@example.com"


def tell(*events: dict[str, Any]) -> int:
    return track(parse_events(events, NOW))


def delivery(message: Message) -> str:
    message.refresh_from_db()
    return message.delivery


def status(message: Message, recipient: str = ANA) -> RecipientStatus:
    return message.statuses.get(recipient=recipient)


@pytest.fixture
def heard() -> Iterator[list[TrackedEvent]]:
    events: list[TrackedEvent] = []

    def receive(sender: object, event: TrackedEvent, **kwargs: object) -> None:
        events.append(event)

    tracked.connect(receive)
    yield events
    tracked.disconnect(receive)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (["injection"], ""),
        (["delivery"], "delivered"),
        (["delay"], "delayed"),
        (["delay", "delivery"], "delivered"),
        (["bounce"], "bounced"),
        (["delivery", "out_of_band"], "bounced"),
        (["injection", ("bounce", 25)], "rejected"),
        (["delivery", ("out_of_band", 25)], "bounced"),
        (["delivery", ("out_of_band", 60)], "delivered"),
        (["delivery", ("bounce", "80")], "delivered"),
        (["delivery", ("out_of_band", "90")], "unsubscribed"),
        (["delivery", ("out_of_band", 100)], "delivered"),
        (["delivery", ("out_of_band", 77)], "bounced"),
        (["policy_rejection"], "rejected"),
        (["generation_failure"], "rejected"),
        (["delivery", "open"], "opened"),
        (["delivery", "amp_initial_open", "amp_click"], "clicked"),
        (["delivery", "click", "list_unsubscribe"], "unsubscribed"),
        (["delivery", "link_unsubscribe", "spam_complaint"], "complained"),
        (["delivery", "never_heard_of"], "delivered"),
    ],
)
def test_what_a_mail_comes_to(told: list[str | tuple[str, Any]], expected: str) -> None:
    message = queue_message()
    events = []
    for at, one in enumerate(told):
        fields = {} if isinstance(one, str) else {"bounce_class": one[1]}
        events.append(event(one if isinstance(one, str) else one[0], message, at, **fields))
    assert tell(*events) == len(told)
    assert delivery(message) == expected
    assert message.events.exclude(key=None).count() == len(told)


def test_a_bounce_with_everything_that_is_told_of_it() -> None:
    message = queue_message()
    tell(event("bounce", message, 60, bounce_class="10", raw_reason="550 5.1.1\0 no such\nuser"))
    found = status(message)
    assert (found.arrival, found.arrival_at) == ("bounced", moment(60))
    assert (found.bounce_class, found.bounce_category) == (10, "hard")
    assert found.detail == "550 5.1.1 no such user"
    written = message.events.get(type=Event.Type.BOUNCED)
    assert (written.at, written.recipient, written.detail) == (moment(60), ANA, "550 5.1.1 no such user")
    assert (written.bounce_class, written.bounce_category) == (10, "hard")


def test_each_recipient_has_a_status_of_its_own_and_the_message_what_most_needs_attention() -> None:
    message = queue_message(to=[ANA, "bia@example.com", "Céu <ceu@example.com>"])
    tell(event("delivery", message, 1), event("open", message, 2))
    tell(event("delay", message, 1, "bia@example.com"), event("delivery", message, 1, "ceu@example.com"))
    assert delivery(message) == "delayed"
    tell(event("delivery", message, 3, "bia@example.com"))
    assert delivery(message) == "opened"
    tell(event("out_of_band", message, 9, "CEU@example.com", bounce_class="21"))
    assert delivery(message) == "bounced"
    assert {one.recipient: one.delivery for one in message.statuses.all()} == {
        ANA: "opened", "bia@example.com": "delivered", "ceu@example.com": "bounced",
    }  # fmt: skip


def test_of_the_same_second_the_later_step_counts() -> None:
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        message = queue_message()
        # Keys that would decide otherwise.
        told = [
            event("delay", message, 1, event_id=f"{message.id.hex}-c"),
            event("delivery", message, 1, event_id=f"{message.id.hex}-b"),
            event("out_of_band", message, 1, event_id=f"{message.id.hex}-a", bounce_class="20"),
        ]
        for position in order:
            tell(told[position])
        assert delivery(message) == "bounced"


@pytest.mark.parametrize("bounce_class", [60, 80, 100])
def test_an_answer_to_a_mail_is_no_bounce(bounce_class: int) -> None:
    message = queue_message()
    tell(event("delivery", message, 1), event("out_of_band", message, 2, bounce_class=bounce_class))
    assert delivery(message) == "delivered"
    assert message.events.get(bounce_class=bounce_class).type == Event.Type.OTHER


def test_who_takes_a_mail_out_of_the_spam_folder_does_not_complain() -> None:
    message = queue_message(transactional=False)
    tell(event("spam_complaint", message, 1, fbtype="not-spam"))
    assert delivery(message) == ""
    assert not Suppression.objects.exists()


def test_the_same_event_is_told_once(heard: list[TrackedEvent], django_capture_on_commit_callbacks: Any) -> None:
    message = queue_message(campaign="abertura", tags=["vip"])
    one = event("click", message, 5, target_link_url="https://x.example/", campaign_id="abertura", rcpt_tags=["vip"])
    with django_capture_on_commit_callbacks(execute=True):
        assert tell(one, one) == 1
        assert tell(one) == 0
    assert heard == [
        TrackedEvent(
            type="clicked", sparkpost_type="click", message=message.id, recipient=ANA, at=moment(5),
            url="https://x.example/", campaign="abertura", tags=("vip",), metadata={"order": "17"},
        )
    ]  # fmt: skip


def test_a_receiver_that_fails_hurts_nobody(heard: list[TrackedEvent], django_capture_on_commit_callbacks: Any) -> None:
    def fail(sender: object, **kwargs: object) -> None:
        raise RuntimeError("the host's")

    message = queue_message()
    tracked.connect(fail)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            tell(event("delivery", message, 1), event("open", message, 2))
    finally:
        tracked.disconnect(fail)
    assert len(heard) == 2
    assert delivery(message) == "opened"


def test_an_event_of_a_mail_that_is_none_of_ours_is_kept_without_a_message() -> None:
    tell(event("bounce", recipient="x@example.org", bounce_class=10))
    found = Event.objects.get()
    assert (found.message_id, found.recipient) == (None, "x@example.org")
    # The same account: whoever does not exist for one of its mails does not for the others.
    assert suppressed_among(["x@example.org"], transactional=True)


def test_of_a_sensitive_mail_no_words_are_kept(
    heard: list[TrackedEvent], django_capture_on_commit_callbacks: Any
) -> None:
    message = queue_message(sensitive=True)
    gone = queue_message()
    told = [
        event("bounce", message, 1, bounce_class="10", raw_reason="550 the code XK-4711"),
        event("click", message, 2, target_link_url="https://x.example/XK-4711"),
        # Whether that was sensitive, nobody knows any more.
        event("bounce", gone, 1, "y@example.com", bounce_class="10", raw_reason="550 the code XK-4711"),
    ]
    gone.delete()
    with django_capture_on_commit_callbacks(execute=True):
        tell(*told)
    assert "XK-4711" not in repr([*Event.objects.values(), *RecipientStatus.objects.values()])
    assert "XK-4711" not in repr([*Suppression.objects.values(), heard])
    assert status(message).bounce_class == 10
    assert len(heard) == 3


# Suppressions


@pytest.mark.parametrize(
    ("type", "fields", "transactional", "other", "source"),
    [
        ("bounce", {"bounce_class": "10"}, True, True, "bounce"),
        ("out_of_band", {"bounce_class": 30}, True, True, "bounce"),
        ("out_of_band", {"bounce_class": 25, "raw_reason": "550 refused"}, False, False, ""),
        ("bounce", {"bounce_class": "25", "raw_reason": "550 refused"}, False, False, ""),
        ("bounce", {"bounce_class": "80"}, False, False, ""),
        ("out_of_band", {"bounce_class": "90"}, False, True, "unsubscribe"),
        ("out_of_band", {"bounce_class": "100"}, False, False, ""),
        ("bounce", {"bounce_class": "20"}, False, False, ""),
        ("bounce", {"bounce_class": "51"}, False, False, ""),
        ("bounce", {}, False, False, ""),
        ("policy_rejection", {"bounce_class": "10"}, False, False, ""),
        ("delay", {"bounce_class": "10"}, False, False, ""),
        ("spam_complaint", {}, False, True, "complaint"),
        ("list_unsubscribe", {}, False, True, "unsubscribe"),
        ("link_unsubscribe", {}, False, True, "unsubscribe"),
    ],
)
def test_what_suppresses_an_address(
    type: str, fields: dict[str, str], transactional: bool, other: bool, source: str
) -> None:
    tell(event(type, queue_message(to=["Ana <Ana@example.com>"]), 7, **{"recipient": "ANA@example.com", **fields}))
    assert bool(suppressed_among([ANA], transactional=True)) == transactional
    assert bool(suppressed_among([ANA], transactional=False)) == other
    assert {(one.source, one.created_at) for one in Suppression.objects.all()} == (
        {(source, moment(7))} if source else set()
    )


@override_settings(CONGRESSY_MAILER={"LISTS": {"novidades": "Novidades"}})
def test_who_unsubscribes_from_a_list_gets_the_others() -> None:
    tell(event("list_unsubscribe", queue_message(transactional=False, list_id="novidades")))
    assert suppressed_among([ANA], transactional=False, list_id="novidades")
    assert not suppressed_among([ANA], transactional=False)


@override_settings(CONGRESSY_MAILER={"LISTS": {"novidades": "Novidades"}})
def test_who_unsubscribes_from_a_list_by_a_mail_of_a_batch_does_too() -> None:
    batch = send_bulk([ANA], subject="Oi", message="Oi", transactional=False, list_id="novidades")
    tell(event("link_unsubscribe", batch.messages.get()))
    assert suppressed_among([ANA], transactional=False, list_id="novidades")
    assert not suppressed_among([ANA], transactional=False)


@override_settings(CONGRESSY_MAILER={"LISTS": {"novidades": "Novidades"}})
def test_who_unsubscribes_from_a_list_by_an_answer_gets_the_others() -> None:
    tell(event("out_of_band", queue_message(transactional=False, list_id="novidades"), bounce_class="90"))
    assert suppressed_among([ANA], transactional=False, list_id="novidades")
    assert not suppressed_among([ANA], transactional=False)


SUPPRESSED_THERE = "554 5.7.1 recipient address was suppressed due to {} policy ({})"
CANCELLED = "554 5.7.1 [internal] Campaign cancelled"


@pytest.mark.parametrize("admin", [None, "all"])
@pytest.mark.parametrize(
    "reason",
    [SUPPRESSED_THERE.format("customer", "Unsubscribe Rule"), SUPPRESSED_THERE.format("SYSTEM", "x"), CANCELLED, ""],
)
def test_that_sparkpost_did_not_try_says_nothing_of_the_address(reason: str, admin: str | None) -> None:
    with override_settings(CONGRESSY_MAILER={"SUPPRESSION": {"admin": admin}}):
        tell(event("list_unsubscribe", queue_message(transactional=False), 1))
        message = queue_message(to=["bia@example.com"])
        for at, recipient in enumerate([ANA, "bia@example.com"], start=2):
            tell(event("bounce", message, at, recipient, bounce_class="25", raw_reason=reason))
    assert not suppressed_among([ANA, "bia@example.com"], transactional=True)
    assert not suppressed_among(["bia@example.com"], transactional=False)
    assert delivery(message) == "rejected"
    assert status(message, "bia@example.com").bounce_class == 25


@override_settings(CONGRESSY_MAILER={"SUPPRESSION": {"admin": "transactional"}})
def test_a_host_may_have_other_policies_suppress() -> None:
    tell(event("bounce", queue_message(), bounce_class="25", raw_reason="550 5.7.1 refused by the administrator"))
    assert [one.scope for one in Suppression.objects.all()] == [Scope.TRANSACTIONAL]


@pytest.mark.parametrize(("own", "subaccount", "suppressed"), [
    (False, "146", False), (False, 0, True), (False, "", True), (True, "146", True),
])  # fmt: skip
def test_mail_of_a_subaccount_suppresses_only_where_it_is_ours(own: bool, subaccount: Any, suppressed: bool) -> None:
    tell(event("bounce", queue_message() if own else None, recipient=ANA, bounce_class="10", subaccount_id=subaccount))
    assert bool(suppressed_among([ANA], transactional=True)) == suppressed


@override_settings(CONGRESSY_MAILER={"SUPPRESSION": {"complaint": "all", "unsubscribe": None, "hard": "transactional"}})
def test_the_rules_are_the_hosts() -> None:
    tell(event("link_unsubscribe", queue_message(transactional=False)))
    assert not Suppression.objects.exists()
    tell(event("bounce", queue_message(), bounce_class="30"))
    assert [one.scope for one in Suppression.objects.all()] == [Scope.TRANSACTIONAL]
    tell(event("spam_complaint", queue_message(to=["bia@example.com"])))
    assert suppressed_among(["bia@example.com"], transactional=True)
    assert suppressed_among(["bia@example.com"], transactional=False)


@override_settings(CONGRESSY_MAILER={"SUPPRESSION": {"soft": 3}})
def test_too_many_soft_bounces_within_thirty_days_count_as_a_hard_one_in_any_order() -> None:
    day = 86_400
    bounces = [event("bounce", queue_message(), at * day, bounce_class="22") for at in (0, 20, 31, 45, 48)]
    bounces += [
        event("bounce", queue_message(), 21 * day, bounce_class="60"),
        event("bounce", queue_message(), 22 * day, bounce_class="51"),
    ]
    tell(*bounces[:2], bounces[5], bounces[6])
    assert not Suppression.objects.exists()
    ends = []
    for order in range(6):
        forget()
        random.Random(order).shuffle(bounces)
        for one in bounces:
            tell(one)
        ends.append(end_state()["suppressions"])
    assert ends[0]
    assert {str(end) for end in ends} == {str(ends[0])}
    # On the days 20, 31 and 45.
    assert {one[5] for one in ends[0]} == {moment(45 * day)}


@pytest.mark.parametrize("listed", [True, False])
def test_what_happened_before_somebody_took_an_address_off_the_list_does_not_bring_it_back(listed: bool) -> None:
    if listed:
        add([Entry(at=moment(0), source=Source.MANUAL, address=ANA, scope=Scope.TRANSACTIONAL)])
    assert remove(ANA) == listed
    tell(event("bounce", queue_message(), 5, bounce_class="10"))
    assert not suppressed_among([ANA], transactional=True)
    later = timezone.now() + timedelta(minutes=1)
    track(parse_events([event("bounce", queue_message(), timestamp=later.isoformat(), bounce_class="10")], later))
    assert suppressed_among([ANA], transactional=True)


# Any order, several at once


@pytest.mark.database
@pytest.mark.parametrize("seed", range(3))
def test_any_order_with_repeats_leads_to_the_same_end(seed: int) -> None:
    draw = random.Random(seed)
    messages = [
        queue_message(to=[f"r{number}-{one}@example.com" for one in range(1 + number % 3)]) for number in range(60)
    ]
    told = history(messages, draw)
    tell(*told)
    expected = end_state()
    assert len({delivery for _, delivery, _ in expected["messages"]}) > 5
    forget()
    mixed = shuffled(told, draw)
    while mixed:
        some = draw.randrange(1, 60)
        tell(*mixed[:some])
        del mixed[:some]
    assert end_state() == expected


@pytest.mark.database
@pytest.mark.django_db(transaction=True)
def test_several_workers_at_once_lead_to_the_same_end() -> None:
    draw = random.Random(7)
    messages = [queue_message(to=[f"r{number % 10}@example.com", f"c{number}@example.com"]) for number in range(40)]
    told = history(messages, draw)
    # Of others, with the same addresses: what two workers may be storing at once without a lock between them.
    told += [event("bounce", None, at, f"r{at % 10}@example.com", bounce_class="10") for at in range(40)]
    tell(*told)
    expected = end_state()
    forget()
    # Each has most of the events, and in another order.
    work = [shuffled(told, random.Random(seed)) for seed in range(4)]

    def process(worker: int) -> int:
        return sum(tell(*work[worker][start : start + 50]) for start in range(0, len(work[worker]), 50))

    assert sum(run_concurrently(process)) == len(told)
    assert end_state() == expected


@pytest.mark.database
def test_words_that_a_database_would_not_take_are_kept_as_far_as_it_does() -> None:
    message = queue_message()
    for number, text in enumerate(["\0", "\ud800", "a\udfffb", "😀" * 3000, "x" * 100_000, "á" * 400 + "@é.example"]):
        told = event("bounce", message, 1, text, raw_reason=text, bounce_class=text, target_link_url=text)
        told["msys"]["message_event"] |= {"event_id": f"{text}{number}", "campaign_id": text, "rcpt_tags": [text]}
        assert tell(told) == 1


@pytest.mark.database
def test_ids_and_addresses_that_a_database_takes_for_the_same_are_told_apart() -> None:
    message = queue_message()
    ids = ["abc", "ABC", "äbc", "abc ", "abc\t"]
    assert tell(*(event("open", message, 1, event_id=key, recipient=f"{key.strip()}@example.com") for key in ids)) == 5
    assert tell(*(event("open", message, 1, event_id=key, recipient=f"{key.strip()}@example.com") for key in ids)) == 0
    # The message has none of these addresses.
    assert message.statuses.count() == 0
    assert len(set(message.events.values_list("recipient", flat=True))) == 2


# Events that have lost what they were sent with, and find their message by SparkPost's id


def without_metadata(type: str, message: Message, at: int, **fields: Any) -> dict[str, Any]:
    return event(type, message, at, rcpt_meta=fields.pop("rcpt_meta", {}), **fields)


def orphaned_story(message: Message) -> list[dict[str, Any]]:
    return [
        event("injection", message, 1, event_id="a1"),
        event("delivery", message, 2, event_id="a2"),
        without_metadata("out_of_band", message, 3, bounce_class="10", raw_reason="gone", event_id="a3"),
        without_metadata("never_heard_of", message, 4, raw_reason="of a new kind", event_id="a4"),
    ]


@pytest.mark.database
@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_a_bounce_without_metadata_finds_its_message_in_any_order(order: Sequence[int]) -> None:
    message = queue_message()
    story = orphaned_story(message)
    tell(*story)
    expected = end_state()
    assert delivery(message) == "bounced"
    assert status(message).detail == "gone"
    assert message.events.filter(recipient=ANA).count() == 4
    forget()
    for position in order:
        assert tell(story[position]) == 1
        tell(story[position])
    assert end_state() == expected


@pytest.mark.database
@pytest.mark.django_db(transaction=True)
def test_a_bounce_finds_its_message_when_two_workers_store_them_at_the_same_moment() -> None:
    for number in range(5):
        message = queue_message(to=[f"r{number}@example.com"])
        story = orphaned_story(message)
        for one in story:
            next(iter(one["msys"].values()))["event_id"] += f"-{number}"
        run_concurrently(lambda worker, story=story: tell(story[worker]))  # type: ignore[misc]
        assert delivery(message) == "bounced"
        assert message.events.exclude(key=None).count() == 4


def test_a_bounce_of_a_sensitive_mail_that_finds_it_late_keeps_no_words() -> None:
    message = queue_message(sensitive=True)
    tell(without_metadata("out_of_band", message, 3, bounce_class="10", raw_reason="about her"))
    tell(event("delivery", message, 1))
    assert delivery(message) == "bounced"
    assert not Event.objects.exclude(detail="").exists()
    assert status(message).detail == ""


def test_an_id_of_two_messages_or_of_another_address_decides_nothing() -> None:
    first, second = queue_message(), queue_message()
    tell(*(event("delivery", one, 1, message_id="shared") for one in (first, second)))
    tell(without_metadata("out_of_band", first, 2, message_id="shared", bounce_class="10"))
    assert {delivery(first), delivery(second)} == {"delivered"}
    third = queue_message()
    tell(event("delivery", third, 1, message_id="mine"))
    tell(without_metadata("out_of_band", third, 2, message_id="mine", recipient="bia@example.com", bounce_class="10"))
    assert delivery(third) == "delivered"
    assert Event.objects.filter(type="bounced", message=None).count() == 2


def test_who_leaves_a_list_by_an_event_without_metadata_leaves_that_list(settings: Any) -> None:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "LISTS": {"news": "Novidades"}}
    message = queue_message(list_id="news", transactional=False)
    tell(event("delivery", message, 1))
    tell(without_metadata("list_unsubscribe", message, 2))
    assert delivery(message) == "unsubscribed"
    assert [(one.scope, one.list_id) for one in Suppression.objects.all()] == [("list", "news")]


# Addresses that a message never had


def test_an_event_for_an_address_that_the_message_never_had_changes_no_status() -> None:
    message = queue_message(to=[ANA, "Bia <BIA@example.com>"])
    tell(event("delivery", message, 1), event("bounce", message, 2, "somebody@example.net", bounce_class="10"))
    tell(event("open", message, 3, "bia@EXAMPLE.com"), event("spam_complaint", message, 4, "x@example.net"))
    assert delivery(message) == "opened"
    assert {one.recipient for one in message.statuses.all()} == {ANA, "bia@example.com"}
    assert message.events.filter(recipient="somebody@example.net").count() == 1


def test_copies_that_sparkpost_makes_have_a_status() -> None:
    copies = {"cc": ["Céu <ceu@example.com>"], "archive": [{"email": "ARQUIVO@example.com"}]}
    message = queue_message(sparkpost=copies)
    tell(event("delivery", message, 1, "ceu@example.com"), event("delivery", message, 1, "arquivo@example.com"))
    assert {one.recipient for one in message.statuses.all()} == {"ceu@example.com", "arquivo@example.com"}
    # Once the options are gone with the content, SparkPost's word has to do.
    Message.objects.filter(pk=message.pk).update(sparkpost={}, content_dropped_at=NOW)
    tell(event("open", message, 2, "duda@example.com", rcpt_type="bcc"), event("open", message, 2, "edu@example.com"))
    assert message.statuses.filter(recipient__in=["duda@example.com", "edu@example.com"]).count() == 1


def soft_bounce(message: Message, at: float) -> dict[str, Any]:
    return event("bounce", message, at, bounce_class="22")


DAY = 24 * 60 * 60


@pytest.mark.database
@settings(max_examples=examples(25), deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), limit=st.integers(1, 5))
def test_soft_bounces_are_counted_as_if_all_of_them_were_read(data: st.DataObject, limit: int) -> None:
    forget()
    message = queue_message()
    days = data.draw(st.lists(st.integers(0, 85), max_size=25))
    with override_settings(CONGRESSY_MAILER={"SUPPRESSION": {"soft": limit}}):
        for start in range(0, len(days), 7):
            tell(*(soft_bounce(message, day * DAY) for day in days[start : start + 7]))
    moments = [moment(day * DAY) for day in sorted(days)]
    windows = zip(moments, moments[limit - 1 :], strict=False)
    expected = next((last for first, last in windows if last - first <= timedelta(days=30)), None)
    assert set(Suppression.objects.values_list("created_at", flat=True)) == ({expected} if expected else set())


@override_settings(CONGRESSY_MAILER={"SUPPRESSION": {"soft": 3}})
def test_of_very_many_soft_bounces_of_an_address_few_are_read() -> None:
    message = queue_message()
    Event.objects.bulk_create(
        Event(message=message, type="bounced", at=moment(at), recipient=ANA, key=f"old{at}", bounce_class=22,
              bounce_category="soft")
        for at in range(5000)
    )  # fmt: skip
    read: list[int] = []

    class Counted(list[Any]):
        def __init__(self, rows: Iterable[Any] = ()) -> None:
            super().__init__(rows)
            read.append(len(self))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("congressy_mailer.tracking.bounces.list", Counted, raising=False)
        tell(*(soft_bounce(message, 5000 + at) for at in range(500)))
    assert Suppression.objects.first().created_at == moment(2)  # type: ignore[union-attr]
    assert read
    assert max(read) <= 9


@override_settings(CONGRESSY_MAILER={"SUPPRESSION": {"soft": 3}})
def test_soft_bounces_before_somebody_took_an_address_off_are_not_counted_with_those_after() -> None:
    message = queue_message()
    tell(*(soft_bounce(message, day * DAY) for day in range(3)))
    assert suppressed_among([ANA], transactional=True) == {ANA}
    remove(ANA)
    SuppressionRemoval.objects.update(removed_at=moment(2.5 * DAY))
    tell(soft_bounce(message, 3 * DAY), soft_bounce(message, 4 * DAY))
    assert suppressed_among([ANA], transactional=True) == set()
    tell(soft_bounce(message, 5 * DAY))
    assert suppressed_among([ANA], transactional=True) == {ANA}


@pytest.mark.parametrize(("soft", "days", "forgotten"), [(None, 2, 1), (3, 2, 0), (3, 31, 1)])
def test_that_an_address_was_taken_off_is_known_for_as_long_as_a_soft_bounce_counts(
    soft: int | None, days: int, forgotten: int
) -> None:
    suppressions.suppress(ANA)
    remove(ANA)
    SuppressionRemoval.objects.update(removed_at=timezone.now() - timedelta(days=days))
    with override_settings(CONGRESSY_MAILER={"SUPPRESSION": {"soft": soft}}):
        assert purge() == forgotten


@pytest.mark.django_db(transaction=True)
@pytest.mark.database
@override_settings(CONGRESSY_MAILER={"SUPPRESSION": {"soft": 2}})
def test_two_workers_that_each_store_a_soft_bounce_count_both(monkeypatch: pytest.MonkeyPatch) -> None:
    # SQLite has one writer: the second counts what the first has written.
    both_have_counted = threading.Barrier(1 if connection.vendor == "sqlite" else 2, timeout=30)

    def add_together(entries: Iterable[Entry]) -> list[Suppression]:
        found = list(entries)
        both_have_counted.wait()
        return add(found)

    monkeypatch.setattr(suppressions, "add", add_together)
    messages = [queue_message(), queue_message()]
    run_concurrently(lambda worker: tell(soft_bounce(messages[worker], 0)), workers=2)
    assert suppressed_among([ANA], transactional=True) == {ANA}


@pytest.mark.django_db(transaction=True)
@pytest.mark.database
def test_an_event_that_comes_while_its_message_is_purged_stops_nobody() -> None:
    message = queue_message()
    long_ago = timezone.now() - timedelta(days=400)
    Message.objects.update(state="sent", finished_at=long_ago, content_dropped_at=long_ago)
    failed: list[Exception] = []

    def purge_messages() -> None:
        try:
            outbox.purge()
        except Exception as error:
            failed.append(error)
        finally:
            connection.close()

    purging = threading.Thread(target=purge_messages)
    with transaction.atomic():
        tell(event("delivery", message, 1))
        purging.start()
        if connection.features.has_select_for_update_skip_locked:
            # What somebody holds is passed over, and goes the next time.
            purging.join(30)
            assert not purging.is_alive()
    purging.join(30)
    assert failed == []
    while outbox.purge():
        pass
    assert not Message.objects.exists()
