"""Events that have lost what their mail was sent with, and find their message by the id that SparkPost gave it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import pytest

from congressy_mailer.models import Event, Message, Suppression
from tests.conftest import run_concurrently
from tests.support.mails import queue_message
from tests.support.sparkpost_events import end_state, event, forget
from tests.support.tracking import ANA, delivery, status, tell

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("published")]


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
