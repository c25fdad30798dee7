"""A slice goes on while nobody waits: for half a minute at the most, and not a moment where somebody does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from django.core.mail.backends.locmem import EmailBackend as MemoryBackend
from django.utils import timezone

from congressy_mailer import outbox, pause, resume
from congressy_mailer.delivery import longer_slices, slice
from congressy_mailer.delivery.deadlines import LONGEST_SLICE, Deadlines
from congressy_mailer.delivery.slice import Delivery
from congressy_mailer.models import Batch, Message, State, WebhookBatch
from tests.support.mails import deliver_slice, queue, queue_batch

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.email_settings]

#: Seconds for a mail.
STEP = 0.3
#: Mails of a slice of one second: the one that is begun last ends later.
OF_A_SLICE = 4


class Slow(MemoryBackend):
    """Takes all mail, each in the same time by the clock of the test."""

    clock = SimpleNamespace(now=0.0)
    before: Callable[[], object] = staticmethod(lambda: None)

    def send_messages(self, messages: Any) -> int:
        type(self).before()
        self.clock.now += STEP
        return super().send_messages(messages)


@pytest.fixture(autouse=True)
def clock(settings: Any, monkeypatch: pytest.MonkeyPatch, published: list[str]) -> Iterator[None]:
    settings.EMAIL_BACKEND = f"{__name__}.Slow"
    settings.CONGRESSY_MAILER = {
        **settings.CONGRESSY_MAILER,
        "TIME_SLICE": timedelta(seconds=1),
        "SLICE_SIZE": 1,
        "TRANSPORTS": {"other": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}},
    }
    Slow.clock.now = time.monotonic()
    monkeypatch.setattr("congressy_mailer.models.clock.elapsed", lambda: Slow.clock.now)
    for module in (longer_slices, slice):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: Slow.clock.now))
    nobody_waits(monkeypatch)
    yield
    Slow.before = staticmethod(lambda: None)


def nobody_waits(monkeypatch: pytest.MonkeyPatch, *, known: bool = True) -> None:
    monkeypatch.setattr(longer_slices, "none_waited_lately", lambda: known)
    monkeypatch.setattr(longer_slices, "some_wait", lambda: False)


def somebody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(longer_slices, "none_waited_lately", lambda: False)
    monkeypatch.setattr(longer_slices, "some_wait", lambda: True)


def sent(batch: Batch) -> int:
    return batch.messages.filter(state=State.SENT).count()


def queue_waiting(count: int, **options: Any) -> list[UUID]:
    keys = queue(count, **options)
    Message.objects.filter(pk__in=keys).update(queued_at=timezone.now() - timedelta(seconds=5))
    return keys


def run_single_mails(keys: list[UUID]) -> int:
    Delivery(outbox.new_claim_token("task")).run(keys[:2], redelivered=False, takes_more=True)
    return Message.objects.filter(pk__in=keys, state=State.SENT).count()


def test_where_it_is_not_known_a_slice_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody_waits(monkeypatch, known=False)
    batch = queue_batch(10)
    assert deliver_slice(batch).continue_at is not None
    assert sent(batch) == OF_A_SLICE
    assert run_single_mails(queue_waiting(10)) == OF_A_SLICE


def test_a_batch_goes_on_while_nobody_waits() -> None:
    batch = queue_batch(20)
    assert deliver_slice(batch).continue_at is None
    assert sent(batch) == 20


def test_single_mails_go_on_while_nobody_waits() -> None:
    assert run_single_mails(queue_waiting(20)) == 20


def test_a_slice_ends_after_half_a_minute_all_the_same() -> None:
    batch = queue_batch(120)
    assert deliver_slice(batch).continue_at is not None
    assert LONGEST_SLICE / STEP - 2 <= sent(batch) <= LONGEST_SLICE / STEP + 2


def after(mails: int, act: Callable[[], object]) -> None:
    """Have something done before the mail after so many."""
    begun = 0

    def count() -> None:
        nonlocal begun
        if begun == mails:
            act()
        begun += 1

    Slow.before = staticmethod(count)


@pytest.mark.parametrize("paused", [{}, {"campaign": "carnaval"}, {"using": "default"}])
def test_a_pause_ends_what_goes_on_of_a_batch(paused: dict[str, Any]) -> None:
    batch = queue_batch(20, campaign="carnaval")
    after(6, lambda: pause(**paused))
    assert deliver_slice(batch).continue_at is None
    assert sent(batch) == 7
    batch.refresh_from_db()
    assert batch.pause_id is not None
    resume(**paused)
    deliver_slice(batch)
    assert sent(batch) == 20


@pytest.mark.parametrize("paused", [{}, {"campaign": "carnaval"}, {"using": "default"}])
def test_a_pause_ends_what_goes_on_of_single_mails(paused: dict[str, Any]) -> None:
    keys = queue_waiting(20, campaign="carnaval")
    after(6, lambda: pause(**paused))
    assert run_single_mails(keys) == 7
    assert not Message.objects.filter(pk__in=keys, state=State.SENDING).exists()
    resume(**paused)
    assert run_single_mails([key for key in keys if Message.objects.get(pk=key).state == State.QUEUED]) == 13


def test_a_slice_is_short_beside_a_short_lease(settings: Any) -> None:
    settings.CONGRESSY_MAILER = {
        **settings.CONGRESSY_MAILER, "LEASE": timedelta(seconds=20), "TIME_LIMIT": timedelta(seconds=15)
    }  # fmt: skip
    began = Slow.clock.now
    deliver_slice(queue_batch(60))
    assert Slow.clock.now - began < 5


def other_batch() -> None:
    queue_batch(1)


def deferred_mail_that_is_due() -> None:
    (key,) = queue_waiting(1)
    Message.objects.filter(pk=key).update(state=State.DEFERRED, due_at=timezone.now() - timedelta(seconds=1))


def mail_of_another_backend() -> None:
    queue_waiting(1, using="other")


def events_of_sparkpost() -> None:
    now = timezone.now()
    WebhookBatch.objects.create(key="k", body=b"", events=1, due_at=now, received_at=now)


@pytest.mark.parametrize("somebody", [other_batch, deferred_mail_that_is_due, events_of_sparkpost])
def test_a_batch_ends_its_slice_where_other_work_waits(somebody: Callable[[], None]) -> None:
    batch = queue_batch(10)
    somebody()
    deliver_slice(batch)
    assert sent(batch) == OF_A_SLICE


@pytest.mark.parametrize(
    "somebody", [other_batch, deferred_mail_that_is_due, events_of_sparkpost, mail_of_another_backend]
)
def test_single_mails_end_their_slice_where_other_work_waits(somebody: Callable[[], None]) -> None:
    keys = queue_waiting(10)
    somebody()
    assert run_single_mails(keys) == OF_A_SLICE


def test_a_task_that_comes_in_the_midst_waits_for_one_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = queue_batch(30)

    def one_comes() -> None:
        if sent_now() == 9:
            nobody_waits(monkeypatch, known=False)

    def sent_now() -> int:
        return Message.objects.exclude(state__in=(State.QUEUED, State.SENDING)).count()

    Slow.before = one_comes
    deliver_slice(batch)
    assert 9 < sent(batch) <= 9 + OF_A_SLICE


@pytest.mark.parametrize(("begun", "last"), [(1, OF_A_SLICE), (9, 11)], ids=["in the first slice", "later"])
def test_a_task_that_is_known_to_wait_waits_for_no_more_than_one_slice_in_all(
    monkeypatch: pytest.MonkeyPatch, begun: int, last: int
) -> None:
    batch = queue_batch(30)
    after(begun, lambda: somebody_waits(monkeypatch))
    assert deliver_slice(batch).continue_at is not None
    # What is composed by then is sent.
    assert sent(batch) == last


def test_urgent_mail_goes_first_in_a_longer_slice_too() -> None:
    batch = queue_batch(20)
    urgent: list[UUID] = []
    order: list[UUID] = []

    def one_comes() -> None:
        order.extend(Message.objects.filter(state=State.SENDING).values_list("pk", flat=True))
        if len(order) == 8:
            urgent.extend(queue_waiting(1))

    Slow.before = one_comes
    deliver_slice(batch)
    assert 8 <= order.index(urgent[0]) <= 10
    assert sent(batch) == 20


def test_a_batch_that_goes_on_says_so_and_ends_when_it_is_overtaken() -> None:
    batch = queue_batch(60)
    Batch.objects.filter(pk=batch.pk).update(due_at=timezone.now())

    def overtake() -> None:
        if Message.objects.exclude(state__in=(State.QUEUED, State.SENDING)).count() == 10:
            assert Batch.objects.get(pk=batch.pk).due_at > timezone.now() + timedelta(seconds=20)
            Batch.objects.filter(pk=batch.pk).update(begun_generation=batch.generation + 5)

    Slow.before = overtake
    deliver_slice(batch)
    assert 10 <= sent(batch) <= 10 + OF_A_SLICE


def test_a_slice_that_was_ended_is_not_prolonged() -> None:
    limits = Deadlines()
    limits.stop()
    limits.prolong_slice()
    assert limits.slice_is_over
    assert not limits.may_be_prolonged
