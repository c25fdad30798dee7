"""A recipient who has returned is not shown as one who left, however late SparkPost reports that they had."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest
from django.utils import timezone

from congressy_mailer import suppressions
from congressy_mailer.models import Message
from congressy_mailer.sparkpost.events import parse_events
from congressy_mailer.tracking.recording import track
from congressy_mailer.unsubscribe import preferences
from tests.support.mails import queue_message
from tests.support.sparkpost_events import event
from tests.support.tracking import delivery

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("published")]

ANA = "ana@example.com"


@pytest.fixture
def message(settings: Any) -> Message:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "LISTS": {"a": "A", "b": "B"}}
    return queue_message(transactional=False, list_id="a")


def happened(type: str, message: Message, seconds: float) -> dict[str, Any]:
    """An event so many seconds from now."""
    return event(type, message, timestamp=str((timezone.now() + timedelta(seconds=seconds)).timestamp()))


RETURNS: list[Callable[[], Any]] = [
    lambda: preferences.resubscribe(ANA, "a"),
    lambda: suppressions.unsuppress(ANA),
    lambda: suppressions.unsuppress(ANA, list_id="a"),
]


@pytest.mark.database
@pytest.mark.parametrize("come_back", RETURNS)
def test_leaving_before_a_return_that_is_heard_of_late_is_over(message: Message, come_back: Callable[[], Any]) -> None:
    come_back()
    told = [happened("delivery", message, -20), happened("list_unsubscribe", message, -10)]
    track(parse_events(told, timezone.now()))
    assert delivery(message) == "delivered"
    assert message.statuses.get().unsubscribed_at is None
    # That it happened is kept.
    assert message.events.filter(type="unsubscribed").exists()
    assert not suppressions.is_suppressed(ANA, transactional=False, list_id="a")


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_events_before_and_after_a_return_come_in_any_order(message: Message, order: tuple[int, ...]) -> None:
    preferences.resubscribe(ANA, "a")
    after = happened("link_unsubscribe", message, 60)
    told = [happened("delivery", message, -20), happened("list_unsubscribe", message, -10), after]
    for position in order:
        track(parse_events([told[position]], timezone.now() + timedelta(minutes=2)))
    assert delivery(message) == "unsubscribed"
    (at,) = message.events.filter(type="unsubscribed").order_by("-at").values_list("at", flat=True)[:1]
    assert message.statuses.get().unsubscribed_at == at
    assert suppressions.is_suppressed(ANA, transactional=False, list_id="a")


def test_a_return_to_another_list_leaves_this_one(message: Message) -> None:
    preferences.resubscribe(ANA, "b")
    track(parse_events([happened("list_unsubscribe", message, -10)], timezone.now()))
    assert delivery(message) == "unsubscribed"
