"""A batch with a key: continued where its caller was interrupted, stored by one caller at a time, nobody twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone

from congressy_mailer import Recipient, send_bulk
from congressy_mailer.exceptions import (
    IdempotencyConflict,
    MailerError,
)
from congressy_mailer.models import Batch, Message
from congressy_mailer.submission import batch_writer
from tests.conftest import run_concurrently
from tests.support.bulk import Broken, addresses, people_with_context

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.usefixtures("published")]


def interrupted(count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from people_with_context(count)
    raise Broken


def test_the_same_key_goes_on_where_the_caller_was_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_writer, "_CHUNK", 10)
    options: dict[str, Any] = {"template": "mail/hello", "subject": "x", "key": "newsletter 7", "on_invalid": "skip"}
    with pytest.raises(Broken):
        send_bulk(interrupted(25), **options)
    begun = Batch.objects.get()
    assert (begun.stored_at, begun.messages.count()) == (None, 20)
    # In another order, and with somebody who was not there before.
    batch = send_bulk(list(people_with_context(31))[::-1], **options)
    assert batch.pk == begun.pk
    assert addresses(batch) == sorted(address for address, _ in people_with_context(31))
    assert batch.skipped == 0
    again = send_bulk(people_with_context(500), **options)
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
            return send_bulk(people_with_context(60), template="mail/hello", subject="x", key="k", on_invalid="skip").pk
        except MailerError:
            return None

    keys = set(run_concurrently(send, 3)) - {None}
    assert keys == {Batch.objects.get().pk}
    assert Counter(to[0] for to in Message.objects.values_list("to", flat=True)) == Counter(
        address for address, _ in people_with_context(60)
    )


def test_one_caller_at_a_time_stores_the_recipients_of_a_batch() -> None:
    errors: list[str] = []

    def some() -> Iterator[Any]:
        yield from people_with_context(3)
        with pytest.raises(IdempotencyConflict) as raised:
            send_bulk(people_with_context(3), template="mail/hello", subject="x", key="k", on_invalid="skip")
        errors.append(str(raised.value))
        yield from people_with_context(3, first=3)

    batch = send_bulk(some(), template="mail/hello", subject="x", key="k", on_invalid="skip")
    assert "Another caller is storing the recipients of the batch with key='k'" in errors[0]
    assert (batch.messages.count(), batch.skipped, batch.problems) == (6, 0, [])
    # The end of the recipients ends the lease, and so does an error.
    assert send_bulk(people_with_context(6), template="mail/hello", subject="x", key="k").pk == batch.pk
    batch.refresh_from_db()
    assert (batch.storing_until, batch.storing_token) == (None, "")


def test_another_caller_goes_on_once_the_first_has_stored_nothing_for_the_time_of_its_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch_writer, "_CHUNK", 2)

    def slow() -> Iterator[Any]:
        yield from people_with_context(4)
        Batch.objects.update(storing_until=timezone.now() - timedelta(seconds=1))
        send_bulk(people_with_context(6), template="mail/hello", subject="x", key="k", on_invalid="skip")
        yield from people_with_context(2, first=4)

    with pytest.raises(IdempotencyConflict, match="has gone on with the batch"):
        send_bulk(slow(), template="mail/hello", subject="x", key="k", on_invalid="skip")
    batch = Batch.objects.get()
    assert (batch.messages.count(), batch.skipped) == (6, 0)
    assert batch.progress().stored


def test_a_batch_whose_content_was_dropped_is_not_continued_with_empty_mails() -> None:
    def some() -> Iterator[Any]:
        yield from people_with_context(1500)
        raise Broken

    for content in ({"template": "mail/hello", "subject": "x"}, {"subject": "x", "message": "y"}):
        with pytest.raises(Broken):
            send_bulk(some(), key="k", on_invalid="skip", **content)  # type: ignore[arg-type]
        Batch.objects.update(content_dropped_at=timezone.now(), template="", subject="", text="")
        with pytest.raises(IdempotencyConflict, match="cannot be continued: its content was dropped"):
            send_bulk(people_with_context(2000), key="k", on_invalid="skip", **content)  # type: ignore[arg-type]
        Message.objects.all().delete()
        Batch.objects.all().delete()


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
