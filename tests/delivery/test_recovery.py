"""Mail servers that can be used again: found by the next try, said once, and everything leaves."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from congressy_mailer import outbox
from congressy_mailer.delivery.availability import CircuitBreaker
from congressy_mailer.models import Message, State, TransportStatus
from tests.conftest import run_concurrently
from tests.support.availability import HOME, TRY_TIME, Clock, Server, logged, put_forward_to_the_next_try, status
from tests.support.mails import attempt, deliver, queue, states, stored

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.email_settings]


def test_recovery_is_found_by_the_next_try_and_everything_leaves(
    server: type[Server], clock: Clock, told: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    server.away = "Connection refused"
    ids = queue(7)
    attempt(ids[:4])
    attempt(ids[4:])
    server.away = ""
    assert outbox.sweep(timezone.now()) == []
    put_forward_to_the_next_try(clock)
    ready = outbox.sweep(timezone.now())
    assert sorted(ready) == sorted(ids)
    assert attempt(ready) == ""
    assert set(states(ids)) == {State.SENT}
    assert {message.attempts for message in stored(ids)} == {1}
    assert not TransportStatus.objects.exists()
    assert [kind for kind, _ in told] == ["unavailable", "available"]
    assert told[1][1]["using"] == told[1][1]["sender_domain"] == ""
    assert timedelta(seconds=5) <= told[1][1]["unavailable_for"] < timedelta(seconds=30)
    assert [level for level, _ in logged(caplog)] == ["ERROR", "WARNING"]
    assert "is available again, after 0:00:" in logged(caplog)[1][1]


def test_what_is_held_back_during_a_try_leaves_when_it_succeeds(server: type[Server], clock: Clock) -> None:
    server.away = "Connection refused"
    (first,) = queue()
    attempt([first])
    server.away = ""
    put_forward_to_the_next_try(clock)
    others = queue(3)
    server.at_open = staticmethod(lambda: attempt(others))
    result = deliver([first])
    assert states([first, *others]) == [State.SENT, State.QUEUED, State.QUEUED, State.QUEUED]
    assert server.opened == 2
    assert result.made_due
    assert set(others) <= set(outbox.sweep(timezone.now()))


def test_what_is_put_back_after_the_try_has_succeeded_is_due_at_once(server: type[Server], clock: Clock) -> None:
    server.away = "Connection refused"
    attempt(queue())
    put_forward_to_the_next_try(clock)
    prober = CircuitBreaker("", {HOME})
    others = queue(3)
    look_up = CircuitBreaker.look_up

    def looked_up(self: CircuitBreaker, sender_domains: Sequence[str]) -> None:
        look_up(self, sender_domains)
        # Before the slice that has found the breaker open puts anything back.
        prober.record_success()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(CircuitBreaker, "look_up", looked_up)
        result = deliver(others)
    assert set(states(others)) == {State.QUEUED}
    assert result.made_due
    assert set(others) <= set(outbox.sweep(timezone.now()))


def test_what_waits_for_a_try_that_fails_waits_for_the_next_one(server: type[Server], clock: Clock) -> None:
    server.away = "Connection refused"
    attempt(queue())
    put_forward_to_the_next_try(clock)
    prober = CircuitBreaker("", {HOME})
    others = queue(3)
    attempt(others)
    prober.record_failure("", "Connection refused")
    assert {message.due_at for message in stored(others)} == {status().next_try_at}


def test_several_workers_that_find_the_recovery_at_once_say_it_once(
    server: type[Server], clock: Clock, told: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    server.away = "Connection refused"
    attempt(queue())
    put_forward_to_the_next_try(clock)
    breakers = [CircuitBreaker("", {HOME})]
    # The first try took too long, and another worker took it over: then both get through.
    for _ in range(3):
        clock.forward(seconds=TRY_TIME.total_seconds() + 1)
        breakers.append(CircuitBreaker("", {HOME}))
    assert [breaker.open_until for breaker in breakers] == [{}] * 4
    run_concurrently(lambda worker: breakers[worker].record_success())
    assert [kind for kind, _ in told] == ["unavailable", "available"]
    assert [level for level, _ in logged(caplog)] == ["ERROR", "WARNING"]
    assert not TransportStatus.objects.exists()


def test_a_worker_whose_connection_still_works_does_not_end_what_others_found(server: type[Server]) -> None:
    ids = queue(2)
    others: list[str] = []

    def meanwhile() -> None:
        if not others:
            others.append("")
            server.away = "Too many connections"
            others[0] = attempt(ids[1:])
            server.away = ""

    server.at_open = staticmethod(meanwhile)
    deliver(ids[:1])
    assert "Too many connections" in others[0]
    assert states(ids) == [State.SENT, State.QUEUED]
    assert status().failures == 1


@pytest.mark.parametrize("to", ["nobody@example.com", "ana@example.com"])
def test_a_server_that_answers_is_available_whatever_it_says_of_the_mail(
    server: type[Server], clock: Clock, to: str
) -> None:
    server.away = "Connection refused"
    ids = queue(to=to)
    attempt(ids)
    server.away = ""
    put_forward_to_the_next_try(clock)
    deliver(ids)
    assert not TransportStatus.objects.exists()


def test_a_server_that_hangs_up_has_not_answered(server: type[Server], clock: Clock) -> None:
    server.away = "Connection refused"
    ids = queue(to="hangs-up@example.com")
    attempt(ids)
    server.away = ""
    put_forward_to_the_next_try(clock)
    deliver(ids)
    assert states(ids) == [State.DEFERRED]
    assert TransportStatus.objects.exists()


def test_a_try_that_was_not_made_is_left_to_others(server: type[Server], clock: Clock) -> None:
    server.away = "Connection refused"
    (broken,) = queue()
    ids = queue(2)
    attempt([broken, *ids])
    server.away = ""
    put_forward_to_the_next_try(clock)
    # It cannot be composed, so the server is not asked anything.
    Message.objects.filter(pk=broken).update(template="mail/of-the-next-release", text="")
    deliver([broken])
    assert states([broken]) == [State.DEFERRED]
    assert TransportStatus.objects.exists()
    deliver(ids)
    assert states(ids) == [State.SENT, State.SENT]
