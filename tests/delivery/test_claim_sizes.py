"""A task holds what it sends within a second, and claims more while it sends: what it cannot send is left to others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.core import mail
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.locmem import EmailBackend as MemoryBackend
from django.test import override_settings
from django.utils import timezone

from congressy_mailer import outbox, tasks
from congressy_mailer.delivery import sending_rate
from congressy_mailer.delivery.slice import Delivery
from congressy_mailer.exceptions import TransportUnavailable
from congressy_mailer.models import Batch, Message, State, TransportStatus
from congressy_mailer.suppressions import suppress
from tests.support.mails import deliver_slice, queue, queue_batch

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.email_settings]

MEMORY = "django.core.mail.backends.locmem.EmailBackend"


class Watching(MemoryBackend):
    """Takes all mail, and calls somebody before each."""

    before: Callable[[], object] = staticmethod(lambda: None)

    def send_messages(self, messages: Any) -> int:
        type(self).before()
        return super().send_messages(messages)


class Refusing(BaseEmailBackend):
    """Is not there."""

    def open(self) -> bool:
        raise ConnectionRefusedError("nobody is there")

    def send_messages(self, messages: Any) -> int:
        self.open()
        return 0


HERE = f"{__name__}.Watching"


@pytest.fixture(autouse=True)
def unlimited_time(published: list[str]) -> Iterator[None]:
    """A busy machine ends no slice."""
    with override_settings(EMAIL_BACKEND=HERE, CONGRESSY_MAILER={"TIME_SLICE": timedelta(minutes=1)}):
        yield
    Watching.before = staticmethod(lambda: None)


@pytest.fixture
def claimed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many messages each claim of a batch has taken."""
    sizes: list[int] = []
    claim = outbox.claim_from_batch

    def counting(batch: Batch, token: str, limit: int) -> list[Message]:
        messages = claim(batch, token, limit)
        sizes.append(len(messages))
        return messages

    monkeypatch.setattr(outbox, "claim_from_batch", counting)
    return sizes


def have_waited(ids: list[UUID], seconds: float = 0.5) -> None:
    Message.objects.filter(pk__in=ids).update(queued_at=timezone.now() - timedelta(seconds=seconds))


def test_a_claim_holds_what_is_sent_in_a_second_and_the_slice_goes_on_with_the_next(claimed: list[int]) -> None:
    sending_rate.observe("", 70, 10.0)
    batch = queue_batch(25)
    held: list[int] = []
    Watching.before = lambda: held.append(Message.objects.filter(state=State.SENDING).count())
    deliver_slice(batch)
    assert claimed == [7, 7, 7, 4, 0, 0]
    assert max(held) <= 7
    assert len(mail.outbox) == batch.messages.filter(state=State.SENT).count() == 25


def test_the_first_claim_of_a_process_is_small_and_no_claim_exceeds_the_setting(claimed: list[int]) -> None:
    deliver_slice(queue_batch(15))
    assert claimed[0] == sending_rate.FIRST_CLAIM
    sending_rate.forget_rates()
    sending_rate.observe("", 10_000, 1.0)
    with override_settings(CONGRESSY_MAILER={"SLICE_SIZE": 4, "TIME_SLICE": timedelta(minutes=1)}):
        claimed.clear()
        deliver_slice(queue_batch(9))
    assert claimed == [4, 4, 1, 0, 0]


def test_the_rate_is_remembered_by_backend_and_follows_what_is_sent() -> None:
    sending_rate.observe("far", 8, 1.0)
    sending_rate.observe("near", 50, 1.0)
    assert (sending_rate.sent_in("far", 60), sending_rate.sent_in("near", 60)) == (8, 50)
    assert sending_rate.sent_in("far", 0.25) == 2
    assert sending_rate.sent_in("far", 0) == 1
    sending_rate.observe("near", 10, 1.0)
    assert 10 < sending_rate.sent_in("near", 60) < 50
    # One mail alone says how long a connection takes.
    sending_rate.observe("far", 1, 0.001)
    assert sending_rate.sent_in("far", 60) == 8


def test_who_is_suppressed_meanwhile_gets_nothing_of_what_is_claimed_later() -> None:
    sending_rate.observe("", 5, 1.0)
    batch = queue_batch(8)
    Watching.before = lambda: suppress("p7@example.com") if len(mail.outbox) == 1 else None
    deliver_slice(batch)
    assert len(mail.outbox) == 7
    assert batch.messages.get(state=State.SUPPRESSED).to == ["p7@example.com"]


def test_a_task_with_more_ids_than_it_can_send_publishes_the_rest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    sending_rate.observe("", 4, 1.0)
    ids = queue(11)
    parts: list[list[str]] = []
    monkeypatch.setattr(
        "congressy_mailer.broker.sending.send", lambda task, part, **options: parts.append(part) or bool(parts)
    )
    sent_before_publishing: list[int] = []
    Watching.before = lambda: sent_before_publishing.append(len(parts))
    tasks.deliver([str(key) for key in ids])
    assert parts == [[str(key) for key in ids[4:8]], [str(key) for key in ids[8:]]]
    assert sent_before_publishing[0] == 2
    assert set(Message.objects.filter(pk__in=ids[:4]).values_list("state", flat=True)) == {State.SENT}


def test_a_task_goes_on_with_what_waits_in_the_queue_over_the_same_backend() -> None:
    backends = {name: {"BACKEND": MEMORY} for name in ("other",)}
    with override_settings(CONGRESSY_MAILER={"TRANSPORTS": backends, "TIME_SLICE": timedelta(minutes=1)}):
        ids = queue(5)
        other = queue(1, using="other")
        have_waited(ids + other)
        result = Delivery(outbox.new_claim_token("task")).run(ids[:1], redelivered=False, takes_more=True)
    assert result.unfinished == []
    assert Message.objects.filter(pk__in=ids, state=State.SENT).count() == 5
    assert Message.objects.get(pk=other[0]).state == State.QUEUED


def test_a_single_mail_asks_for_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "claim_waiting", lambda *arguments, **options: pytest.fail("It asked for more."))
    (key,) = queue(1)
    Delivery(outbox.new_claim_token("task")).run([key], redelivered=False, takes_more=True)
    assert Message.objects.get(pk=key).state == State.SENT


def test_while_a_backend_is_only_tried_nothing_more_is_claimed(claimed: list[int]) -> None:
    batch = queue_batch(12)
    now = timezone.now()
    TransportStatus.objects.create(
        using="", sender_domain="", reason="x", unavailable_since=now, next_try_at=now - timedelta(seconds=1)
    )
    with override_settings(EMAIL_BACKEND=f"{__name__}.Refusing"), pytest.raises(TransportUnavailable):
        deliver_slice(batch)
    assert claimed == [10]
    assert batch.messages.filter(state=State.QUEUED).count() == 12


def test_what_was_claimed_later_goes_over_the_next_backend_when_the_first_fails() -> None:
    sending_rate.observe("", 3, 1.0)
    taken: list[int] = []

    def fail_after_four() -> None:
        taken.append(1)
        if len(taken) > 4:
            raise ConnectionRefusedError("gone")

    Watching.before = fail_after_four
    conf = {"TRANSPORTS": {"second": {"BACKEND": MEMORY}}, "FAILOVER": ["second"], "TIME_SLICE": timedelta(minutes=1)}
    with override_settings(CONGRESSY_MAILER=conf):
        batch = queue_batch(9)
        deliver_slice(batch)
    assert batch.messages.filter(state=State.SENT).count() == 9
    assert batch.messages.filter(route="second").count() == 5


def test_lanes_of_a_batch_share_a_small_part_each() -> None:
    batch = queue_batch(35)
    assert outbox.concurrency(batch.pk, batch.generation, sending_rate.task_share) == 4
