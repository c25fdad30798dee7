"""A sender's domain that a mail server refuses: its own mail waits, and no other."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from congressy_mailer import outbox
from congressy_mailer.delivery import availability
from congressy_mailer.delivery.availability import CircuitBreaker
from congressy_mailer.models import State, TransportStatus
from tests.support.availability import Clock, Server, logged, put_forward_to_the_next_try, status
from tests.support.mails import attempt, deliver, queue, states, stored

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.email_settings]


def test_a_refused_sender_domain_holds_back_its_own_mail_only(
    server: type[Server], told: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    server.unconfigured = {"evento.example"}
    mixed = [
        *queue(2),
        *queue(2, from_email="Feira <org@Evento.example>"),
        *queue(1, from_email="org@outro.example"),
    ]
    deliver(mixed)
    sent, kept = [*mixed[:2], mixed[4]], mixed[2:4]
    assert set(states(sent)) == {State.SENT}
    known = status("evento.example")
    assert "Unconfigured Sending Domain" in known.reason
    for message in stored(kept):
        assert (message.state, message.attempts) == (State.QUEUED, 0)
        assert message.due_at is not None
        assert abs(message.due_at - known.next_try_at) < timedelta(seconds=1)
    # Its second mail was not offered any more, nor is any that comes later.
    connections_used = server.opened
    more = [*queue(1, from_email="org@evento.example"), *queue(1)]
    deliver(more)
    assert states(more) == [State.QUEUED, State.SENT]
    assert status("evento.example").failures == 1
    assert server.opened == connections_used + 1
    assert [(level, "for senders at evento.example" in text) for level, text in logged(caplog)] == [("ERROR", True)]
    ((_, arguments),) = told
    assert (arguments["using"], arguments["sender_domain"]) == ("", "evento.example")


def test_what_is_put_back_for_a_sender_that_is_accepted_by_then_is_due_at_once(
    server: type[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.unconfigured = {"evento.example"}
    kept = queue(3, from_email="org@evento.example")
    record_failure = CircuitBreaker.record_failure

    def recorded(self: CircuitBreaker, *arguments: Any, **options: Any) -> timedelta:
        wait = record_failure(self, *arguments, **options)
        # Another worker's try succeeds in the midst of this slice, before the others are put back.
        TransportStatus.objects.filter(sender_domain="evento.example").delete()
        return wait

    monkeypatch.setattr(CircuitBreaker, "record_failure", recorded)
    result = deliver(kept)
    assert set(states(kept)) == {State.QUEUED}
    assert result.made_due
    assert set(kept) <= set(outbox.sweep(timezone.now()))


def test_a_refused_sender_domain_is_tried_again_and_recovers(
    server: type[Server], clock: Clock, told: list[Any]
) -> None:
    server.unconfigured = {"evento.example"}
    ids = queue(3, from_email="org@evento.example")
    deliver(ids)
    assert status("evento.example").failures == 1
    put_forward_to_the_next_try(clock, sender_domain="evento.example")
    deliver(ids)
    assert status("evento.example").failures == 2
    server.unconfigured = set()
    put_forward_to_the_next_try(clock, sender_domain="evento.example")
    # Somebody else's mail says nothing of it.
    deliver([*queue(), ids[0]])
    deliver(ids)
    assert set(states(ids)) == {State.SENT}
    assert [(kind, arguments["sender_domain"]) for kind, arguments in told] == [
        ("unavailable", "evento.example"),
        ("available", "evento.example"),
    ]


def test_a_server_that_refuses_the_sender_is_reached_again(server: type[Server], clock: Clock) -> None:
    server.away = "Connection refused"
    server.unconfigured = {"evento.example"}
    ids = queue(1, from_email="org@evento.example")
    attempt(ids)
    server.away = ""
    put_forward_to_the_next_try(clock)
    deliver(ids)
    assert [known.sender_domain for known in availability.unavailable_backends()] == ["evento.example"]
    others = queue()
    deliver(others)
    assert states(others) == [State.SENT]


def test_a_refused_domain_is_no_try_while_the_server_is_away(server: type[Server], clock: Clock) -> None:
    server.unconfigured = {"evento.example"}
    ids = queue(1, from_email="org@evento.example")
    deliver(ids)
    server.away = "Connection refused"
    attempt(queue())
    clock.forward(minutes=20)
    attempt(ids)
    assert status("evento.example").failures == 1
    server.away = ""
    server.unconfigured = set()
    put_forward_to_the_next_try(clock)
    deliver(ids)
    assert states(ids) == [State.SENT]
    assert not TransportStatus.objects.exists()
