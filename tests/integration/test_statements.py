"""How often the database is asked until a single mail is accepted: once, on databases that tell what they changed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.core.mail.backends.locmem import EmailBackend as MemoryBackend
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from congressy_mailer import outbox, send_mail, tasks
from congressy_mailer.models import Message, State, TransportStatus
from congressy_mailer.suppressions import suppress
from tests.conftest import run_concurrently

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.email_settings]

queries: list[dict[str, Any]] = []


class Counting(MemoryBackend):
    """Takes all mail, and keeps what the database was asked before."""

    def send_messages(self, messages: Any) -> int:
        queries[:] = connection.queries_log
        return super().send_messages(messages)


@pytest.fixture(autouse=True)
def counting(settings: Any, published: list[str]) -> None:
    settings.EMAIL_BACKEND = f"{__name__}.Counting"
    # Asked at the first message, and then every few minutes.
    timezone.now()
    outbox.is_away()


def deliver(message: Message) -> int:
    """Deliver a message; returns how many statements there were before the server had it."""
    queries.clear()
    outbox.forget_pauses()
    with CaptureQueriesContext(connection) as captured:
        before = captured.initial_queries
        tasks.deliver([str(message.pk)])
    message.refresh_from_db()
    return len(queries) - before


def warmed_up() -> None:
    """The clocks have been compared, and templates loaded."""
    deliver(send_mail("x", "y", to="first@example.com"))


def test_a_mail_is_claimed_read_and_looked_up_by_one_statement() -> None:
    warmed_up()
    message = send_mail("x", "y", to="ana@example.com")
    asked = deliver(message)
    assert message.state == State.SENT
    assert asked == 1 if connection.vendor != "mysql" else asked <= 9


def test_what_comes_with_a_mail_is_read_where_there_is_some() -> None:
    message = send_mail("x", "y", to="ana@example.com", attachments=[("a.txt", b"a")])
    deliver(message)
    assert message.state == State.SENT
    assert mail.outbox[-1].attachments


def test_who_was_suppressed_a_moment_ago_gets_nothing() -> None:
    alone = send_mail("x", "y", to="Ana <Ana@example.com>")
    beside = send_mail("x", "y", to=["bia@example.com", "ana@example.com"])
    suppress("ana@example.com")
    deliver(alone)
    deliver(beside)
    assert alone.state == State.SUPPRESSED
    assert [one.recipients() for one in mail.outbox] == [["bia@example.com"]]


def test_a_backend_that_became_unavailable_a_moment_ago_is_not_used() -> None:
    message = send_mail("x", "y", to="ana@example.com")
    now = timezone.now()
    TransportStatus.objects.create(
        using="", sender_domain="", unavailable_since=now, next_try_at=now + timedelta(minutes=1)
    )
    deliver(message)
    assert message.state == State.QUEUED
    assert not mail.outbox


def test_of_claims_at_the_same_moment_one_has_the_message() -> None:
    keys = [send_mail("x", "y", to=f"p{number}@example.com").pk for number in range(20)]
    claimed = run_concurrently(lambda worker: outbox.claim(keys, outbox.new_claim_token(f"task{worker}")))
    assert sorted(message.pk for messages in claimed for message in messages) == sorted(keys)
