"""What SparkPost's events lead to: the same in whatever order they come, and however often."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from congressy_mailer import outbox
from congressy_mailer.models import Event, Message, RecipientStatus, Suppression
from congressy_mailer.signals import TrackedEvent, tracked
from congressy_mailer.suppressions.lookup import suppressed_among
from tests.conftest import run_concurrently
from tests.support.mails import queue_message
from tests.support.sparkpost_events import end_state, event, forget, history, moment, shuffled
from tests.support.tracking import ANA, NOW, delivery, status, tell

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("published")]


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
