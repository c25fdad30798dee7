"""Mail that goes before a batch: told of at once where it is put back, and no burden where it cannot be sent."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.core import mail
from django.core.mail.backends.base import BaseEmailBackend
from django.utils import timezone

from congressy_mailer import outbox, tasks
from congressy_mailer.broker import sending
from congressy_mailer.delivery import slice
from congressy_mailer.exceptions import TransportUnavailable
from congressy_mailer.models import Batch, Message, Priority, State, TransportStatus
from tests.support.mails import deliver, deliver_batch, deliver_slice, queue, queue_batch, state

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.email_settings]


class Down(BaseEmailBackend):
    """A mail server that nobody can reach."""

    def open(self) -> None:
        raise ConnectionRefusedError(111, "nobody there")

    def send_messages(self, email_messages: Sequence[Any]) -> int:
        raise AssertionError("it cannot be opened")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids that workers are told of at once."""
    ids: list[str] = []

    def send(task: str, *arguments: Any, countdown: float | None = None, **options: Any) -> bool:
        if task == sending.DELIVER and countdown is None:
            ids.extend(arguments[0])
        return True

    monkeypatch.setattr("congressy_mailer.broker.sending.send", send)
    return ids


@pytest.fixture(autouse=True)
def backends(settings: Any, told: list[str]) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    settings.CONGRESSY_MAILER = {
        **settings.CONGRESSY_MAILER,
        "TRANSPORTS": {"down": {"BACKEND": f"{__name__}.Down"}},
        "TIME_SLICE": timedelta(milliseconds=1),
    }


def left_waiting(count: int, **options: Any) -> list[str]:
    """Mail that was published a while ago, and that no worker has taken."""
    keys = queue(count, **options)
    Message.objects.filter(pk__in=keys).update(queued_at=timezone.now() - timedelta(seconds=5))
    return [str(key) for key in keys]


def run_task_of(batch: Batch) -> None:
    batch.refresh_from_db()
    tasks.deliver_batch(str(batch.pk), batch.generation, False)


def still_queued(keys: Sequence[str]) -> set[str]:
    return {str(key) for key in Message.objects.filter(pk__in=keys, state=State.QUEUED).values_list("pk", flat=True)}


def test_urgent_mail_that_a_batch_puts_back_is_published_although_its_own_backend_is_down(told: list[str]) -> None:
    batch = queue_batch(1, using="down")
    urgent = left_waiting(10)
    told.clear()
    with pytest.raises(TransportUnavailable):
        run_task_of(batch)
    assert set(told) == still_queued(urgent)
    assert 0 < len(told) < 10


def test_mail_that_waits_beside_a_batch_goes_first() -> None:
    batch = queue_batch(20)
    left_waiting(1, to="bia@example.com")
    deliver_batch(batch)
    assert [one.to[0] for one in mail.outbox][0] == "bia@example.com"
    assert len(mail.outbox) == 21


def test_more_urgent_mail_goes_before_what_has_queued() -> None:
    first = queue(3)
    (urgent,) = queue(to="bia@example.com", priority=Priority.HIGH)
    Message.objects.update(queued_at=timezone.now() - timedelta(seconds=5))
    deliver(first)
    assert [one.to[0] for one in mail.outbox][0] == "bia@example.com"
    assert state(urgent) == State.SENT


@pytest.mark.parametrize("error", [SoftTimeLimitExceeded(), SystemExit(1)], ids=lambda error: type(error).__name__)
def test_urgent_mail_that_a_batch_puts_back_is_published_whatever_ended_its_slice(
    told: list[str], monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    batch = queue_batch(1)
    urgent = left_waiting(10)
    told.clear()

    def broken(*args: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr(outbox, "claim_from_batch", broken)
    with pytest.raises(type(error)):
        run_task_of(batch)
    assert set(told) == still_queued(urgent)
    assert 0 < len(told) < 10


def test_more_urgent_mail_that_a_single_mail_took_along_is_published_too(
    told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (mine,) = left_waiting(1, priority=Priority.LOW)
    urgent = left_waiting(3)
    told.clear()

    def broken(*args: Any, **options: Any) -> Any:
        raise SoftTimeLimitExceeded

    monkeypatch.setattr("congressy_mailer.delivery.admission.suppressed_recipients", broken)
    with pytest.raises(SoftTimeLimitExceeded):
        tasks.deliver([mine])
    # Its own mail comes again with the task itself.
    assert told == urgent
    assert still_queued([mine, *urgent]) == {mine, *urgent}


def claims_that_found_something(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many messages each look for urgent mail has claimed."""
    claimed: list[int] = []
    claim_waiting = outbox.claim_waiting

    def counted(*args: Any, **options: Any) -> list[Message]:
        messages = claim_waiting(*args, **options)
        claimed.extend([len(messages)] if messages else [])
        return messages

    monkeypatch.setattr(outbox, "claim_waiting", counted)
    return claimed


@pytest.mark.parametrize("why", ["backend", "sender"])
def test_mail_that_cannot_be_sent_costs_batches_one_claim_and_then_none(
    settings: Any, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "TIME_SLICE": timedelta(seconds=30), "SLICE_SIZE": 20}
    # A look for urgent mail with each chunk, however fast that is sent.
    monkeypatch.setattr(slice, "_URGENT_CHECK_INTERVAL", 0.0)
    ahead = timezone.now() + timedelta(minutes=5)
    TransportStatus.objects.create(
        using="down" if why == "backend" else "", sender_domain="" if why == "backend" else "congressy.org",
        unavailable_since=timezone.now(), next_try_at=ahead,
    )  # fmt: skip
    backlog = left_waiting(60, **({"using": "down"} if why == "backend" else {"from_email": "eva@congressy.org"}))
    claimed = claims_that_found_something(monkeypatch)
    first = queue_batch(100)
    deliver_slice(first)
    assert first.progress().sent == 100
    assert sum(claimed) == 60
    assert not outbox.has_waiting_messages()
    claimed.clear()
    second = queue_batch(100)
    deliver_slice(second)
    assert second.progress().sent == 100
    assert claimed == []
    # It is in no way forgotten.
    assert still_queued(backlog) == set(backlog)
    assert outbox.waiting_messages().count == 60


def test_mail_that_was_put_back_is_found_when_its_time_has_come(told: list[str]) -> None:
    backlog = left_waiting(3, using="down")
    with pytest.raises(TransportUnavailable):
        tasks.deliver(backlog)
    assert not outbox.has_waiting_messages()
    Message.objects.update(due_at=timezone.now() - timedelta(seconds=1))
    assert {str(key) for key in outbox.sweep()} == set()
    assert {str(key) for key in outbox.sweep(drained_until=timezone.now())} == set(backlog)
    # Published again, it goes before a batch as any other mail does.
    assert outbox.has_waiting_messages()


def test_mail_that_has_expired_makes_no_batch_give_way() -> None:
    left_waiting(3, expires_at=timezone.now() + timedelta(hours=1))
    assert outbox.has_waiting_messages()
    Message.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert not outbox.has_waiting_messages()
    assert outbox.claim_waiting(outbox.new_claim_token("test"), 10) == []


def test_mail_that_was_cancelled_while_it_was_put_back_is_as_new_when_it_is_sent_after_all() -> None:
    (key,) = left_waiting(1, using="down")
    with pytest.raises(TransportUnavailable):
        tasks.deliver([key])
    message = Message.objects.get(pk=key)
    assert message.cancel()
    message.retry()
    Message.objects.update(queued_at=timezone.now() - timedelta(seconds=5))
    assert outbox.has_waiting_messages()
