"""Of several workers that claim at the same moment, one has each message, whatever the level of isolation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import DatabaseError, connection
from django.utils import timezone

from congressy_mailer import Priority, outbox, send_bulk, send_mail
from congressy_mailer.models import Message, State, clock
from congressy_mailer.outbox import claim_statement
from congressy_mailer.outbox.cursors import BatchCursors
from tests.conftest import run_concurrently

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.usefixtures("published")]

SETTING = {
    "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL",
    "mysql": "SET SESSION TRANSACTION ISOLATION LEVEL",
}


@pytest.fixture(params=["READ COMMITTED", "REPEATABLE READ"])
def isolated(request: pytest.FixtureRequest) -> Callable[[], None]:
    """Has the connection of a thread isolated so. SQLite has one level."""

    def isolate() -> None:
        if connection.vendor in SETTING:
            with connection.cursor() as cursor:
                cursor.execute(f"{SETTING[connection.vendor]} {request.param}")

    return isolate


def claimed_by_all(claim: Callable[[str], list[Message]], isolate: Callable[[], None]) -> Counter[UUID]:
    """How often each message was claimed by workers that go on while there is any."""

    def work(worker: int) -> list[Message]:
        isolate()
        token = outbox.new_claim_token(f"task{worker}")
        mine: list[Message] = []
        while messages := claim(token):
            mine += messages
        # All that it holds by the table, and nothing else.
        held = Message.objects.filter(state=State.SENDING, token=token)
        assert sorted(message.pk for message in mine) == sorted(held.values_list("pk", flat=True))
        assert all((message.state, message.token) == (State.SENDING, token) for message in mine)
        return mine

    return Counter(message.pk for mine in run_concurrently(work) for message in mine)


def test_messages_with_a_task_of_their_own(isolated: Callable[[], None]) -> None:
    keys = [send_mail("x", "y", to=f"p{number}@example.com").pk for number in range(40)]
    found = claimed_by_all(lambda token: outbox.claim(keys, token), isolated)
    assert found == Counter(keys)


def test_one_message(isolated: Callable[[], None]) -> None:
    for _ in range(10):
        key = send_mail("x", "y", to="ana@example.com").pk
        assert claimed_by_all(lambda token, key=key: outbox.claim([key], token), isolated) == {key: 1}  # type: ignore[misc]


def test_messages_that_wait(isolated: Callable[[], None]) -> None:
    keys = [send_mail("x", "y", to=f"p{number}@example.com").pk for number in range(40)]
    Message.objects.update(queued_at=timezone.now() - timedelta(minutes=1))
    assert claimed_by_all(lambda token: outbox.claim_waiting(token, 3), isolated) == Counter(keys)


def test_messages_of_a_batch(isolated: Callable[[], None]) -> None:
    batch = send_bulk([f"p{number}@example.com" for number in range(120)], subject="s", message="b")
    keys = list(Message.objects.values_list("pk", flat=True))
    assert claimed_by_all(lambda token: outbox.claim_from_batch(batch, token, 5), isolated) == Counter(keys)


def test_two_claims_of_a_task_are_told_apart_by_a_clock_that_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = send_bulk([f"p{number}@example.com" for number in range(6)], subject="s", message="b")
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now)
    cursors = BatchCursors()
    claims = [outbox.claim_from_batch(batch, "t", 2, cursors) for _ in range(3)]
    # Nor by one that keeps the claim.
    outbox.extend_claim("t", [message.pk for message in claims[0]])
    assert len({message.pk for claim in claims for message in claim}) == 6


def test_what_is_urgent_goes_first_and_what_waits_longest_before_the_rest() -> None:
    sent: list[Any] = [
        send_mail("x", "y", to="ana@example.com", priority=priority)
        for priority in (Priority.NORMAL, Priority.LOW, Priority.HIGH, Priority.NORMAL)
    ]
    Message.objects.update(queued_at=timezone.now() - timedelta(minutes=1))
    normal, low, high, later = (message.pk for message in sent)
    assert [message.pk for message in outbox.claim_waiting("t", 2)] == [high, normal]
    assert [message.pk for message in outbox.claim_waiting("t", 9)] == [later, low]


def test_a_claim_that_fails_as_a_whole_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    key = send_mail("x", "y", to="ana@example.com").pk
    monkeypatch.setattr(claim_statement, "_update", lambda *arguments: ("UPDATE no_such_table SET x = 1", []))
    with pytest.raises(DatabaseError, match="no_such_table"):
        outbox.claim([key], "t")
    monkeypatch.undo()
    assert [message.pk for message in outbox.claim([key], "t")] == [key]
