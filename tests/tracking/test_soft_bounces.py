"""Soft bounces: how many within which time count as a hard one."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from congressy_mailer import suppressions
from congressy_mailer.models import Event, Message, Suppression, SuppressionRemoval
from congressy_mailer.suppressions.entries import Entry, add, purge, remove
from congressy_mailer.suppressions.lookup import suppressed_among
from tests.conftest import run_concurrently
from tests.support.fuzzing import examples
from tests.support.mails import queue_message
from tests.support.sparkpost_events import end_state, event, forget, moment
from tests.support.tracking import ANA, tell

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("published")]


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
