"""Many mails at once: stored in constant memory, continued where they were interrupted, given out some at a time."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from asgiref.sync import async_to_sync
from django.core import mail
from django.db import connection, transaction
from django.test import RequestFactory, override_settings
from django.utils import timezone
from django.views.debug import ExceptionReporter

from congressy_mailer import Attachment, Priority, Recipient, asend_bulk, outbox, send_bulk, send_mail, tasks
from congressy_mailer.broker import sending
from congressy_mailer.delivery import upkeep
from congressy_mailer.delivery.slice import Delivery
from congressy_mailer.exceptions import (
    IdempotencyConflict,
    InvalidAddress,
    InvalidOption,
    MailerError,
    TemplateNotFound,
    TransportUnavailable,
)
from congressy_mailer.models import Attachment as StoredAttachment
from congressy_mailer.models import Batch, Message, State
from congressy_mailer.models.progress import Progress
from congressy_mailer.outbox import batch_ending
from congressy_mailer.replies import Outcome, Reply
from congressy_mailer.submission import batch_writer
from congressy_mailer.submission.recipients import RecipientParser
from tests.conftest import run_concurrently

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database]


@pytest.fixture
def tasks_of_batches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Generation and starts_others of the tasks that are published for batches."""
    sent: list[tuple[int, bool]] = []

    def send(task: str, *arguments: Any, **options: Any) -> bool:
        if task == sending.DELIVER_BATCH:
            sent.append(arguments[1:])
        return True

    monkeypatch.setattr("congressy_mailer.broker.sending.send", send)
    return sent


LOCMEM = override_settings(EMAIL_BACKEND="django.core.mail.backends.locmem.EmailBackend")


@pytest.fixture(autouse=True)
def nothing_is_published(published: list[str]) -> None:
    """These tests do what a task does themselves."""


def people(count: int, first: int = 0) -> Iterator[tuple[str, dict[str, Any]]]:
    return (
        (f"ana{number}@example.com", {"user": {"username": f"Ana {number}"}}) for number in range(first, first + count)
    )


def addresses(batch: Batch) -> list[str]:
    return sorted(to[0] for to in batch.messages.values_list("to", flat=True))


def work(batch: Batch, slices: int = 1000) -> int:
    """Deliver as the tasks do; how many slices there were."""
    batch.refresh_from_db()
    for done in range(1, slices + 1):
        result = Delivery(outbox.new_claim_token("test")).run_batch(batch.pk, batch.generation)
        if result.continue_at is None:
            return done
    return slices


@pytest.mark.email_settings
@LOCMEM
def test_each_recipient_gets_a_mail_of_its_own() -> None:
    batch = send_bulk(
        people(250),
        template="mail/hello",
        context={"user": {"username": "nobody"}, "event": "Semana"},
        subject="Olá",
        language="pt-br",
    )
    assert batch.progress() == Progress({State.QUEUED: 250}, 0, True)
    work(batch)
    progress = batch.progress()
    assert (progress.total, progress.sent, progress.finished, progress.done) == (250, 250, 250, True)
    assert sorted(one.to[0] for one in mail.outbox) == addresses(batch)
    bodies = {one.to[0]: one.body for one in mail.outbox}
    assert "Ana 7" in bodies["ana7@example.com"]
    assert "Ana 70" in bodies["ana70@example.com"]
    assert len({one.extra_headers["Message-ID"] for one in mail.outbox}) == 250


def test_what_is_stored_is_what_send_mail_would_have_stored() -> None:
    options: dict[str, Any] = {
        "headers": {"X-Event": 'Semana\t"da"\\Computação'.replace("\t", " ")}, "reply_to": ["Zé <ze@example.com>"],
        "expires_at": timezone.now() + timedelta(days=3), "priority": Priority.LOW, "language": "pt-br",
        "timezone": "America/Manaus", "transactional": True,
    }  # fmt: skip
    context = {"text": 'a\tb\\n "ç" \u2028 \\', "none": None, "list": [1, {"x": 2.5}], "when": timezone.now()}
    single = send_mail(template="mail/hello", subject="Olá", to="Ana <ana@example.com>", context=context, **options)
    batch = send_bulk(
        [Recipient(to="Ana <ana@example.com>", context=context, cc="bia@example.com", bcc=["c@example.com"])],
        template="mail/hello", subject="Olá", **options,
    )  # fmt: skip
    stored = batch.messages.get()
    same = (
        "to", "from_email", "reply_to", "headers", "language", "timezone", "transactional", "sensitive", "priority",
        "expires_at", "send_at", "using", "context", "state", "attempts", "crashes", "token", "mime", "remaining",
        "idempotency_key", "reply", "reason", "content_dropped_at", "handover_started_at", "sent_at", "finished_at",
    )  # fmt: skip
    assert {name: getattr(stored, name) for name in same} == {
        name: getattr(Message.objects.get(pk=single.pk), name) for name in same
    }
    assert (stored.cc, stored.bcc) == (["bia@example.com"], ["c@example.com"])
    assert stored.message_id == f"<{stored.pk.hex}@congressy.net>"
    assert (stored.template, stored.subject) == ("", "")
    assert (stored.content.template, stored.content.subject) == ("mail/hello", "Olá")


def test_where_one_recipient_is_wrong_nothing_is_stored() -> None:
    with pytest.raises(InvalidAddress, match=r"^recipients\[1001\]: to is not "):
        send_bulk([*(address for address, _ in people(1001)), "ana@", "bia@example.com"], subject="x", message="y")
    with pytest.raises(InvalidOption, match=r"^recipients\[0\]: It is a int"):
        send_bulk([7], subject="x", message="y")
    with pytest.raises(InvalidOption, match=r"^recipients\[0\]: It has a context, and the batch has no template"):
        send_bulk([("ana@example.com", {"a": 1})], subject="x", message="y")
    with pytest.raises(TemplateNotFound):
        send_bulk([], template="there/is/none")
    with pytest.raises(InvalidOption, match="recipients must be a list"):
        send_bulk("ana@example.com", subject="x", message="y")
    assert not Message.objects.exists()
    assert not Batch.objects.exists()


def test_recipients_that_are_wrong_are_left_out_and_reported() -> None:
    wrong = [object(), "ana@", ("bia@example.com", {"x": object()}), Recipient(to=[]), None]
    batch = send_bulk([*people(3), *wrong, *people(2, first=3)], template="mail/hello", subject="x", on_invalid="skip")
    batch.refresh_from_db()
    assert addresses(batch) == [f"ana{number}@example.com" for number in range(5)]
    assert batch.skipped == len(wrong)
    assert [problem["position"] for problem in batch.problems] == [3, 4, 5, 6, 7]
    assert 'context["x"]' in batch.problems[2]["reason"]
    assert batch.problems[1]["recipient"] == "ana@"


def test_no_more_problems_are_kept_than_people_read() -> None:
    batch = send_bulk(["x"] * 300, subject="x", message="y", on_invalid="skip")
    assert (batch.skipped, len(batch.problems)) == (300, batch_writer.MAX_PROBLEMS)


class Broken(Exception):
    """What ends a caller."""


def interrupted(count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from people(count)
    raise Broken


def test_the_same_key_goes_on_where_the_caller_was_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_writer, "_CHUNK", 10)
    options: dict[str, Any] = {"template": "mail/hello", "subject": "x", "key": "newsletter 7", "on_invalid": "skip"}
    with pytest.raises(Broken):
        send_bulk(interrupted(25), **options)
    begun = Batch.objects.get()
    assert (begun.stored_at, begun.messages.count()) == (None, 20)
    # In another order, and with somebody who was not there before.
    batch = send_bulk(list(people(31))[::-1], **options)
    assert batch.pk == begun.pk
    assert addresses(batch) == sorted(address for address, _ in people(31))
    assert batch.skipped == 0
    again = send_bulk(people(500), **options)
    assert (again.pk, again.messages.count()) == (batch.pk, 31)


def test_an_interrupted_caller_has_sent_nothing_where_all_or_nothing_is_asked_for() -> None:
    with pytest.raises(Broken):
        send_bulk(interrupted(1500), template="mail/hello", subject="x")
    assert not Message.objects.exists()


def test_nobody_gets_two_mails_of_a_batch_with_a_key_unless_they_are_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch_writer, "_CHUNK", 2)
    recipients = ["ana@example.com", "bia@example.com", "ANA@example.com", "bia@example.com"]
    batch = send_bulk(recipients, subject="x", message="y", key="k")
    assert addresses(batch) == ["ana@example.com", "bia@example.com"]
    assert batch.skipped == 2
    assert [problem["recipient"] for problem in batch.problems] == ["ANA@example.com", "bia@example.com"]
    tickets = [Recipient(to="ana@example.com", key=f"ticket {number}") for number in range(3)]
    assert send_bulk(tickets, subject="x", message="y", key="tickets").messages.count() == 3
    # Without a key it is the caller's list, as it is.
    assert send_bulk(recipients, subject="x", message="y").messages.count() == 4


def test_callers_with_the_same_key_at_the_same_moment_store_each_recipient_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch_writer, "_CHUNK", 7)

    def send(_: int) -> UUID | None:
        try:
            return send_bulk(people(60), template="mail/hello", subject="x", key="k", on_invalid="skip").pk
        except MailerError:
            return None

    keys = set(run_concurrently(send, 3)) - {None}
    assert keys == {Batch.objects.get().pk}
    assert Counter(to[0] for to in Message.objects.values_list("to", flat=True)) == Counter(
        address for address, _ in people(60)
    )


def test_one_caller_at_a_time_stores_the_recipients_of_a_batch() -> None:
    errors: list[str] = []

    def some() -> Iterator[Any]:
        yield from people(3)
        with pytest.raises(IdempotencyConflict) as raised:
            send_bulk(people(3), template="mail/hello", subject="x", key="k", on_invalid="skip")
        errors.append(str(raised.value))
        yield from people(3, first=3)

    batch = send_bulk(some(), template="mail/hello", subject="x", key="k", on_invalid="skip")
    assert "Another caller is storing the recipients of the batch with key='k'" in errors[0]
    assert (batch.messages.count(), batch.skipped, batch.problems) == (6, 0, [])
    # The end of the recipients ends the lease, and so does an error.
    assert send_bulk(people(6), template="mail/hello", subject="x", key="k").pk == batch.pk
    batch.refresh_from_db()
    assert (batch.storing_until, batch.storing_token) == (None, "")


def test_another_caller_goes_on_once_the_first_has_stored_nothing_for_the_time_of_its_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch_writer, "_CHUNK", 2)

    def slow() -> Iterator[Any]:
        yield from people(4)
        Batch.objects.update(storing_until=timezone.now() - timedelta(seconds=1))
        send_bulk(people(6), template="mail/hello", subject="x", key="k", on_invalid="skip")
        yield from people(2, first=4)

    with pytest.raises(IdempotencyConflict, match="has gone on with the batch"):
        send_bulk(slow(), template="mail/hello", subject="x", key="k", on_invalid="skip")
    batch = Batch.objects.get()
    assert (batch.messages.count(), batch.skipped) == (6, 0)
    assert batch.progress().stored


def test_a_batch_whose_content_was_dropped_is_not_continued_with_empty_mails() -> None:
    def some() -> Iterator[Any]:
        yield from people(1500)
        raise Broken

    for content in ({"template": "mail/hello", "subject": "x"}, {"subject": "x", "message": "y"}):
        with pytest.raises(Broken):
            send_bulk(some(), key="k", on_invalid="skip", **content)  # type: ignore[arg-type]
        Batch.objects.update(content_dropped_at=timezone.now(), template="", subject="", text="")
        with pytest.raises(IdempotencyConflict, match="cannot be continued: its content was dropped"):
            send_bulk(people(2000), key="k", on_invalid="skip", **content)  # type: ignore[arg-type]
        Message.objects.all().delete()
        Batch.objects.all().delete()


def test_a_rollback_takes_all_of_it_back() -> None:
    with pytest.raises(Broken), transaction.atomic():
        send_bulk(people(10), template="mail/hello", subject="x", on_invalid="skip")
        raise Broken
    assert not Batch.objects.exists()


def test_cancelling_takes_back_what_has_not_been_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_ending, "_CHUNK", 10)
    batch = send_bulk(people(50), template="mail/hello", subject="x")
    held = outbox.claim_from_batch(batch, "task:1", 5)
    assert batch.cancel() == 45
    assert batch.progress().states == {State.SENDING: 5, State.CANCELLED: 45}
    # What a worker has in hand goes on; what it puts back is taken back, too.
    outbox.record_accepted("task:1", [(held[0], Reply(250, "OK"))])
    outbox.release("task:1", held[1:])
    assert batch.progress().states == {State.SENT: 1, State.CANCELLED: 49}
    assert batch.progress().done
    assert not outbox.heartbeat(batch.pk, batch.generation)


def test_a_batch_that_is_cancelled_while_it_is_stored_ends_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_writer, "_CHUNK", 10)

    def some() -> Iterator[Any]:
        yield from people(15)
        Batch.objects.get().cancel()
        yield from people(15, first=15)

    batch = send_bulk(some(), template="mail/hello", subject="x", on_invalid="skip")
    assert batch.cancelled_at is not None
    assert batch.progress().states == {State.CANCELLED: 10}


def test_claims_of_a_batch_share_it_and_never_hold_the_same_message() -> None:
    batch = send_bulk(people(200), template="mail/hello", subject="x")

    def claim(worker: int) -> list[UUID]:
        mine: list[UUID] = []
        while taken := outbox.claim_from_batch(batch, f"task:{worker}:{len(mine)}", 9):
            mine += [message.pk for message in taken]
        return mine

    taken = [key for keys in run_concurrently(claim, 4) for key in keys]
    assert len(taken) == len(set(taken)) == 200


def test_what_is_more_urgent_leaves_first() -> None:
    batch = send_bulk(people(3), template="mail/hello", subject="x")
    keys = list(batch.messages.order_by("id").values_list("pk", flat=True))
    Message.objects.filter(pk=keys[2]).update(priority=Priority.HIGH)
    assert [message.pk for message in outbox.claim_from_batch(batch, "t", 2)] == [keys[2], keys[0]]


def test_a_batch_waits_for_its_time() -> None:
    batch = send_bulk(people(3), template="mail/hello", subject="x", send_at=timezone.now() + timedelta(hours=1))
    assert batch.progress().states == {State.SCHEDULED: 3}
    assert not outbox.claim_from_batch(batch, "t", 10)
    assert outbox.claim_due_batches() == []
    past = timezone.now() - timedelta(seconds=1)
    Batch.objects.update(send_at=past, due_at=past)
    Message.objects.update(send_at=past)
    assert outbox.claim_due_batches() == [(batch.pk, batch.generation + 1)]
    assert len(outbox.claim_from_batch(batch, "t", 10)) == 3
    assert not Message.objects.filter(queued_at=None).exists()


@pytest.mark.email_settings
@LOCMEM
def test_a_batch_that_comes_too_late_expires() -> None:
    batch = send_bulk(people(3), template="mail/hello", subject="x", expires_at=timezone.now() + timedelta(hours=1))
    past = timezone.now() - timedelta(seconds=1)
    Batch.objects.update(expires_at=past)
    Message.objects.update(expires_at=past)
    assert not outbox.heartbeat(batch.pk, batch.generation)
    assert batch.progress().states == {State.EXPIRED: 3}


def test_a_task_that_waits_long_in_the_queue_works_unless_a_later_one_has_begun() -> None:
    batch = send_bulk(people(3), template="mail/hello", subject="x")
    assert outbox.concurrency(batch.pk, batch.generation, lambda using: 10) == 1
    Batch.objects.update(due_at=timezone.now() - timedelta(seconds=1))
    assert outbox.claim_due_batches() == [(batch.pk, batch.generation + 1)]
    # Whoever sweeps at the same time finds nothing.
    assert outbox.claim_due_batches() == []
    assert outbox.heartbeat(batch.pk, batch.generation)
    assert outbox.concurrency(batch.pk, batch.generation, lambda using: 10) == 1
    assert outbox.heartbeat(batch.pk, batch.generation + 1)
    assert outbox.concurrency(batch.pk, batch.generation, lambda using: 10) == 0
    assert not outbox.heartbeat(batch.pk, batch.generation)


def test_the_more_tasks_of_a_batch_wait_in_the_queue_the_rarer_are_further_ones() -> None:
    batch = send_bulk(people(3), template="mail/hello", subject="x")
    pauses = []
    for _ in range(9):
        Batch.objects.update(due_at=timezone.now() - timedelta(seconds=1))
        assert len(outbox.claim_due_batches()) == 1
        due_at = Batch.objects.get().due_at
        assert due_at is not None
        pauses.append(round((due_at - timezone.now()).total_seconds() / 60))
    assert pauses == [2, 4, 8, 16, 32, 32, 32, 32, 32]
    assert outbox.heartbeat(batch.pk, Batch.objects.get().generation)
    Batch.objects.update(due_at=timezone.now() - timedelta(seconds=1))
    outbox.claim_due_batches()
    due_at = Batch.objects.get().due_at
    assert due_at is not None
    assert due_at - timezone.now() < timedelta(minutes=1)


def test_as_many_tasks_work_at_a_batch_as_it_needs() -> None:
    batch = send_bulk(people(250), template="mail/hello", subject="x")
    assert outbox.concurrency(batch.pk, batch.generation, lambda using: 100) == 3
    assert outbox.concurrency(batch.pk, batch.generation, lambda using: 10) == outbox.MAX_CONCURRENCY


def test_a_batch_is_looked_at_again_when_what_was_refused_is_due() -> None:
    batch = send_bulk(people(2), template="mail/hello", subject="x")
    first, second = outbox.claim_from_batch(batch, "t", 10)
    refused = Outcome(first.pk, deferred={first.to[0]: Reply(451, "greylisted")}, reply=Reply(451, "greylisted"))
    assert outbox.record("t", first, refused) is None
    outbox.record_accepted("t", [(second, Reply(250, "OK"))])
    assert not outbox.reschedule_batch(batch.pk, batch.generation)
    batch.refresh_from_db()
    first.refresh_from_db()
    assert batch.due_at == first.due_at is not None
    # The batch's tasks see to it, and no task of its own.
    past = timezone.now() - timedelta(seconds=1)
    Message.objects.filter(pk=first.pk).update(due_at=past)
    assert outbox.sweep(timezone.now()) == []
    assert [message.pk for message in outbox.claim_from_batch(batch, "t2", 10)] == [first.pk]
    outbox.record_accepted("t2", [(first, Reply(250, "OK"))])
    assert not outbox.reschedule_batch(batch.pk, batch.generation)
    batch.refresh_from_db()
    assert batch.due_at is None


def test_what_is_put_back_is_looked_at_again_also_where_nobody_watches() -> None:
    batch = send_bulk(people(2), template="mail/hello", subject="x")
    held = outbox.claim_from_batch(batch, "t", 10)
    assert not outbox.reschedule_batch(batch.pk, batch.generation)
    # As long as something of it is open: were a caller to hold its row, nobody could make it due then.
    assert Batch.objects.get().due_at is not None
    outbox.release("t", held)
    assert Batch.objects.get().due_at is not None
    assert outbox.reschedule_batch(batch.pk, batch.generation)


def test_what_its_worker_died_of_is_left_to_a_task_of_its_own() -> None:
    batch = send_bulk(people(2), template="mail/hello", subject="x")
    first, _ = outbox.claim_from_batch(batch, "t", 10)
    Message.objects.update(due_at=timezone.now() - timedelta(seconds=1))
    assert set(outbox.sweep(timezone.now())) == set(batch.messages.values_list("pk", flat=True))
    assert not outbox.claim_from_batch(batch, "t", 10)
    assert [message.pk for message in outbox.claim([first.pk], "t")] == [first.pk]


@pytest.mark.email_settings
@LOCMEM
def test_alternatives_of_all_and_of_one_arrive_and_are_dropped_with_the_content() -> None:
    invitation, own = ("BEGIN:VCALENDAR\nall", "text/calendar; method=REQUEST"), ('{"a": "\\t"}\tá', "text/x-data")
    people = [Recipient(to="ana@example.com", alternatives=[own]), "bia@example.com"]
    batch = send_bulk(people, subject="x", message="y", alternatives=[invitation])
    work(batch)
    got = {one.to[0]: [tuple(alternative) for alternative in one.alternatives] for one in mail.outbox}
    assert got == {"ana@example.com": [invitation, own], "bia@example.com": [invitation]}
    long_ago = timezone.now() - timedelta(days=31)
    Message.objects.update(finished_at=long_ago)
    Batch.objects.update(created_at=long_ago)
    while outbox.purge():
        pass
    assert not any(Message.objects.values_list("alternatives", flat=True))
    assert Batch.objects.get().alternatives == []
    wrong = Recipient(to="ana@example.com", alternatives=[("x", "image/png")])
    with pytest.raises(InvalidOption, match=r"recipients\[0\]: alternatives\[0\]: 'image/png' is no type of text"):
        send_bulk([wrong], subject="x", message="y")


def test_attachments_of_all_are_stored_once_and_those_of_one_by_what_they_are() -> None:
    voucher, terms = b"%PDF voucher", b"%PDF terms"
    recipients = [
        Recipient(to=f"ana{number}@example.com", attachments=[Attachment(f"{number}.pdf", content)])
        for number, content in enumerate([voucher, voucher, b"%PDF other"])
    ]
    batch = send_bulk(recipients, subject="x", message="y", attachments=[Attachment("terms.pdf", terms)])
    stored = StoredAttachment.objects.all()
    assert len(stored) == 4
    assert len({one.file.name for one in stored}) == 3
    work(batch)
    parts = {one.to[0]: [(name, content) for name, content, _ in map(_part, one.attachments)] for one in mail.outbox}
    assert parts["ana1@example.com"] == [("terms.pdf", terms), ("1.pdf", voucher)]
    assert parts["ana2@example.com"] == [("terms.pdf", terms), ("2.pdf", b"%PDF other")]
    # A file that two share goes with the second of them.
    shared = next(one.file for one in stored if one.filename == "0.pdf")
    long_ago = timezone.now() - timedelta(days=31)
    Message.objects.filter(to=["ana0@example.com"]).update(finished_at=long_ago)
    outbox.purge()
    outbox.delete_files()
    assert shared.storage.exists(shared.name)
    Message.objects.update(finished_at=long_ago)
    Batch.objects.update(created_at=long_ago)
    while upkeep.purge_some():
        pass
    upkeep.purge_some()
    assert not StoredAttachment.objects.exists()
    assert not any(one.file.storage.exists(one.file.name) for one in stored)
    batch.refresh_from_db()
    assert batch.content_dropped_at is not None


def _part(attachment: Any) -> tuple[str, bytes, str]:
    return attachment.get_filename(), attachment.get_payload(decode=True), attachment.get_content_type()


@pytest.mark.email_settings
@LOCMEM
def test_a_recipient_has_a_language_and_a_zone_of_its_own() -> None:
    recipients = [Recipient(to="ana@example.com"), Recipient(to="ann@example.com", language="en", timezone="UTC")]
    batch = send_bulk(recipients, template="mail/hello", subject="x", language="pt-br")
    assert list(batch.messages.order_by("id").values_list("language", "timezone")) == [
        ("pt-br", "America/Sao_Paulo"), ("en", "UTC"),
    ]  # fmt: skip
    with pytest.raises(InvalidOption, match=r"^recipients\[0\]: .*language"):
        send_bulk([Recipient(to="ana@example.com", language="xx-yy-zz")], subject="x", message="y")


@pytest.mark.email_settings
@LOCMEM
def test_mail_that_waits_beside_a_batch_goes_first() -> None:
    batch = send_bulk(people(20), template="mail/hello", subject="x")
    reset = send_mail("reset", "code", to="bia@example.com")
    Message.objects.filter(pk=reset.pk).update(queued_at=timezone.now() - timedelta(seconds=1))
    work(batch)
    assert [one.to[0] for one in mail.outbox][0] == "bia@example.com"
    assert len(mail.outbox) == 21


@pytest.mark.email_settings
@LOCMEM
def test_more_urgent_mail_goes_before_what_has_queued() -> None:
    first = [send_mail("x", "y", to=f"ana{number}@example.com") for number in range(3)]
    urgent = send_mail("x", "y", to="bia@example.com", priority=Priority.HIGH)
    Message.objects.update(queued_at=timezone.now() - timedelta(seconds=5))
    Delivery(outbox.new_claim_token("test")).run([message.pk for message in first], redelivered=False)
    assert [one.to[0] for one in mail.outbox][0] == "bia@example.com"
    assert Message.objects.get(pk=urgent.pk).state == State.SENT


def test_from_an_asynchronous_view() -> None:
    batch = async_to_sync(asend_bulk)(["ana@example.com"], subject="x", message="y")
    assert addresses(batch) == ["ana@example.com"]


@pytest.mark.parametrize("way", ["raise", "skip"])
def test_where_the_host_commits_by_hand_a_sweep_finds_the_batch(way: Any) -> None:
    transaction.set_autocommit(False)
    try:
        batch = send_bulk(people(3), template="mail/hello", subject="x", on_invalid=way)
        transaction.commit()
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)
    assert batch.progress().total == 3
    assert Batch.objects.get().due_at is not None


def test_the_storer_does_not_publish_a_generation_that_is_over(
    tasks_of_batches: list[tuple[int, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_writer, "_CHUNK", 10)
    monkeypatch.setattr(batch_writer, "_PUBLISH_INTERVAL", 0.0)

    def some() -> Iterator[Any]:
        yield from people(11)
        # The first ten are stored; the broker has lost their task, and a sweep begins another generation.
        Batch.objects.update(due_at=timezone.now() - timedelta(seconds=1))
        outbox.claim_due_batches()
        tasks_of_batches.clear()
        yield from people(39, first=11)

    batch = send_bulk(some(), template="mail/hello", subject="x", on_invalid="skip")
    for generation, _ in tasks_of_batches:
        outbox.heartbeat(batch.pk, generation)
    current = [generation for generation, _ in tasks_of_batches if outbox.heartbeat(batch.pk, generation)]
    assert current == [batch.generation]


def test_no_more_tasks_work_at_a_batch_than_there_may_be(
    tasks_of_batches: list[tuple[int, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_writer, "_PUBLISH_INTERVAL", 0.0)
    batch = send_bulk(people(5000), template="mail/hello", subject="x", on_invalid="skip")
    # Each begins when its turn comes, and ends those before it.
    for generation, _ in tasks_of_batches:
        assert outbox.heartbeat(batch.pk, generation)
    at_work = [
        starts_others for generation, starts_others in tasks_of_batches if outbox.heartbeat(batch.pk, generation)
    ]
    # One, which sees to the others.
    assert at_work == [True]
    tasks_of_batches.clear()

    def unavailable(*arguments: Any) -> None:
        raise TransportUnavailable("away")

    monkeypatch.setattr(Delivery, "run_batch", unavailable)
    tasks.deliver_batch.push_request(retries=1, called_directly=True)
    with pytest.raises(TransportUnavailable):
        tasks.deliver_batch.run(str(batch.pk), batch.generation, True)
    tasks.deliver_batch.pop_request()
    assert tasks_of_batches == []


def test_the_same_addresses_are_the_same_recipient_whatever_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_writer, "_CHUNK", 1)

    def first() -> Iterator[Recipient]:
        yield Recipient(to="Ana <ana@example.com>")
        yield Recipient(to="Bia <bia@example.com>")
        raise Broken

    with pytest.raises(Broken):
        send_bulk(first(), subject="x", message="y", key="k", on_invalid="skip")
    again = ["Ana Souza <ana@example.com>", "bia@example.com"]
    assert send_bulk(again, subject="x", message="y", key="k", on_invalid="skip").messages.count() == 2
    named = [Recipient(to="a@example.com", key="b@example.com"), "b@example.com"]
    assert send_bulk(named, subject="x", message="y", key="names").messages.count() == 2


def refuse_for_now(key: UUID) -> None:
    (message,) = outbox.claim([key], "t")
    said = Reply(451, "greylisted")
    outbox.record("t", message, Outcome(key, deferred={message.to[0]: said}, reply=said))


@pytest.mark.parametrize("end", ["cancelled", "expired"])
def test_what_a_person_queues_again_has_left_its_batch(end: str) -> None:
    batch = send_bulk(people(3), template="mail/hello", subject="x", expires_at=timezone.now() + timedelta(hours=1))
    if end == "cancelled":
        batch.cancel()
    else:
        past = timezone.now() - timedelta(seconds=1)
        Batch.objects.update(expires_at=past, due_at=past)
        Message.objects.update(expires_at=past)
        ((_, generation),) = outbox.claim_due_batches()
        assert not outbox.heartbeat(batch.pk, generation)
        assert Batch.objects.get().due_at is None
    for message in batch.messages.all():
        message.retry()
    first, second, _ = batch.messages.order_by("id")
    refuse_for_now(first.pk)
    outbox.release("t2", outbox.claim([second.pk], "t2"), timezone.now())
    assert outbox.claim_due_batches() == []
    assert batch.progress().states == {State.DEFERRED: 1, State.QUEUED: 2}
    assert not outbox.claim_from_batch(batch, "t3", 10)
    Message.objects.update(due_at=timezone.now() - timedelta(seconds=1))
    assert len(outbox.sweep(timezone.now())) == 3


def test_a_sensitive_batch_that_was_cancelled_while_it_was_stored_says_nothing_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch_writer, "_CHUNK", 10)

    def some() -> Iterator[Any]:
        yield from people(15)
        Batch.objects.get().cancel()
        yield from people(15, first=15)

    send_bulk(some(), template="mail/hello", context={"x": 1}, subject="x", on_invalid="skip", sensitive=True)
    for _ in range(2):
        outbox.purge()
    assert Batch.objects.get().context is None


def test_reports_of_errors_do_not_show_what_is_sensitive() -> None:
    try:
        send_bulk([("ana@", {"link": "geheim"})], template="mail/hello", subject="x", sensitive=True)
    except InvalidAddress:
        report = ExceptionReporter(RequestFactory().get("/"), *sys.exc_info()).get_traceback_html()
    shown = re.findall(r'<td class="code"><pre>(.*?)</pre>', report, re.DOTALL)
    assert shown
    assert not [value for value in shown if "geheim" in value]


@pytest.mark.parametrize("meanwhile", ["claimed", "stored"])
def test_cancelling_sees_what_others_have_done_since_the_transaction_began(
    meanwhile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = send_bulk(people(10), template="mail/hello", subject="x")

    def elsewhere(_: int) -> None:
        if meanwhile == "claimed":
            outbox.claim_from_batch(batch, "t", 5)
        else:
            outbox.add_to_batch(batch, [RecipientParser(batch).parse("eva@example.com")[0]])

    if connection.vendor == "mysql":
        # Otherwise Django asks for READ COMMITTED, and each query sees what there is.
        connection.close()
        monkeypatch.setattr(connection, "isolation_level", "repeatable read")
    if connection.vendor == "sqlite":
        # Which has one writer: whatever others do, they have done before.
        run_concurrently(elsewhere, 1)
    try:
        with transaction.atomic():
            assert Message.objects.count() >= 10
            if connection.vendor != "sqlite":
                run_concurrently(elsewhere, 1)
            assert batch.cancel() == (5 if meanwhile == "claimed" else 11)
            assert not batch.messages.select_for_update().filter(state=State.QUEUED).exists()
    finally:
        connection.close()


@pytest.mark.parametrize("token", ["t", "of another claim"])
def test_acceptances_are_written_down_together_also_where_the_claim_is_gone(token: str) -> None:
    batch = send_bulk(people(3), template="mail/hello", subject="x")
    held = outbox.claim_from_batch(batch, "t", 3)
    outbox.release("t", held[2:])
    replies = [(message, Reply(250, f"2.0.0 queued as {number}")) for number, message in enumerate(held)]
    outbox.record_accepted(token, replies)
    found = list(batch.messages.order_by("id").values_list("state", "reply", "attempts"))
    # Nobody who has the mail gets it once more.
    assert found == [(State.SENT, f"250 2.0.0 queued as {number}", 1) for number in range(3)]


def test_a_cancelled_batch_sends_nothing_that_a_dead_worker_held_or_that_was_in_doubt() -> None:
    batch = send_bulk(people(3), template="mail/hello", subject="x")
    first, second, third = outbox.claim_from_batch(batch, "t", 10)
    # The first had a crash before, and waits for a task of its own.
    Message.objects.filter(pk=first.pk).update(state=State.QUEUED, token="", crashes=1)
    assert batch.cancel() == 1
    doubtful = Outcome(
        second.pk, deferred={second.to[0]: Reply(0, "silence")}, reply=Reply(0, "silence"), in_doubt=True
    )
    assert outbox.record("t", second, doubtful) is None
    Message.objects.filter(pk=third.pk).update(due_at=timezone.now() - timedelta(seconds=1))
    assert outbox.sweep(timezone.now()) == []
    assert batch.progress().states == {State.CANCELLED: 3}
    # Where the worker did not see the cancellation, its batch is looked at once more.
    Message.objects.filter(pk=third.pk).update(state=State.QUEUED, due_at=None, crashes=0)
    Batch.objects.update(due_at=timezone.now() - timedelta(seconds=1))
    ((_, generation),) = outbox.claim_due_batches()
    assert not outbox.heartbeat(batch.pk, generation)
    assert batch.progress().states == {State.CANCELLED: 3}
    assert Batch.objects.get().due_at is None
