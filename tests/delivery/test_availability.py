"""Mail servers that cannot be used: tried by one worker at a time, further and further apart, said once."""

from __future__ import annotations

import logging
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from congressy_mailer import outbox
from congressy_mailer.delivery import availability
from congressy_mailer.delivery.availability import CircuitBreaker
from congressy_mailer.exceptions import TransportUnavailable
from congressy_mailer.models import State, TransportStatus
from congressy_mailer.signals import transport_available, transport_unavailable
from tests.conftest import run_concurrently
from tests.support.availability import HOME, TRY_TIME, Clock, Other, Server, logged, put_forward_to_the_next_try, status
from tests.support.mails import attempt, deliver, queue, states, stored

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.email_settings]


def test_everything_stays_queued_without_an_attempt_and_the_server_is_left_alone(server: type[Server]) -> None:
    server.away = "Connection refused"
    ids = queue(3)
    with pytest.raises(TransportUnavailable, match="cannot be reached: ConnectionRefusedError") as raised:
        deliver(ids)
    known = status()
    assert "Connection refused" in known.reason
    assert raised.value.retry_in is not None
    assert raised.value.retry_in >= timedelta(seconds=5)
    for message in stored(ids):
        assert (message.state, message.attempts, message.token) == (State.QUEUED, 0, "")
        # Not before there is something to be tried, and not long after.
        assert message.due_at is not None
        assert abs(message.due_at - known.next_try_at) < timedelta(seconds=1)
        assert not message.events.exists()
    assert server.opened == 1
    # More mail, more tasks: nobody connects.
    more = queue(2)
    for _ in range(3):
        assert attempt([*ids, *more]) == ""
    assert server.opened == 1
    assert set(states([*ids, *more])) == {State.QUEUED}
    assert status().failures == 1


def test_several_workers_that_find_it_out_at_once_count_and_say_it_once(
    server: type[Server], told: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    server.away = "Connection refused"
    everybody = threading.Barrier(4)
    server.at_open = staticmethod(lambda: everybody.wait(20))
    ids = [queue(2) for _ in range(4)]
    reasons = run_concurrently(lambda worker: attempt(ids[worker]))
    assert all("cannot be reached" in reason for reason in reasons)
    assert server.opened == 4
    assert status().failures == 1
    assert [level for level, _ in logged(caplog)] == ["ERROR"]
    assert "'default' is unavailable; its mail stays queued" in logged(caplog)[0][1]
    ((kind, arguments),) = told
    assert (kind, arguments["using"], arguments["sender_domain"]) == ("unavailable", "", "")
    assert "Connection refused" in arguments["reason"]
    assert set(states([key for some in ids for key in some])) == {State.QUEUED}


def test_one_worker_tries_while_the_others_wait(server: type[Server], clock: Clock) -> None:
    server.away = "Connection refused"
    ids = [queue(2) for _ in range(4)]
    attempt(ids[0])
    put_forward_to_the_next_try(clock)
    others_are_done = threading.Semaphore(0)
    trying = threading.Event()

    def open_slowly() -> None:
        trying.set()
        for _ in range(3):
            assert others_are_done.acquire(timeout=20)

    server.at_open = staticmethod(open_slowly)

    def work(worker: int) -> str:
        reason = attempt(ids[worker])
        if not reason:
            assert trying.wait(20)
            # Also somebody who comes while the try is going on.
            attempt(ids[worker])
            others_are_done.release()
        return reason

    reasons = run_concurrently(work)
    assert sorted(map(bool, reasons)) == [False, False, False, True]
    assert server.opened == 2
    assert status().failures == 2
    assert set(states([key for some in ids for key in some])) == {State.QUEUED}


def test_at_one_moment_only_one_slice_probes(server: type[Server], clock: Clock) -> None:
    server.away = "Connection refused"
    attempt(queue())
    for _ in range(5):
        put_forward_to_the_next_try(clock)
        breakers = run_concurrently(lambda worker: CircuitBreaker("", {HOME}), 6)
        (prober,) = (breaker for breaker in breakers if not breaker.open_until)
        prober.record_failure("", "Connection refused")


def test_a_try_whose_worker_died_is_taken_over(server: type[Server], clock: Clock) -> None:
    server.away = "Connection refused"
    ids = queue()
    attempt(ids)
    put_forward_to_the_next_try(clock)
    # It takes the try on, and is never heard of again.
    assert CircuitBreaker("", {HOME}).open_until == {}
    clock.forward(seconds=TRY_TIME.total_seconds() - 5)
    assert attempt(ids) == ""
    assert server.opened == 1
    clock.forward(seconds=6)
    assert "cannot be reached" in attempt(ids)
    assert server.opened == 2


def waits(clock: Clock, tries: int) -> list[tuple[float, float]]:
    """Fail again and again, always as soon as it is allowed; returns the least and the most seconds between.

    They differ by what the attempt itself has taken.
    """
    (key,) = queue()
    found = []
    for _ in range(tries):
        began = timezone.now()
        assert attempt([key])
        next_try_at = status().next_try_at
        found.append(((next_try_at - timezone.now()).total_seconds(), (next_try_at - began).total_seconds()))
        put_forward_to_the_next_try(clock)
    return found


def test_the_time_between_tries_doubles_from_five_seconds_to_ten_minutes(
    server: type[Server], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.away = "Connection refused"
    monkeypatch.setattr("celery.utils.time.random.randrange", lambda stop: stop - 1)
    expected = (5, 10, 20, 40, 80, 160, 320, 600, 600, 600)
    for seconds, (least, most) in zip(expected, waits(clock, len(expected)), strict=True):
        # The jitter of Celery counts whole seconds, and stays below the last of them.
        assert least - 1 <= seconds <= most + 1
    assert server.opened == status().failures == 10


def test_the_time_between_tries_is_random_and_never_below_five_seconds(server: type[Server], clock: Clock) -> None:
    server.away = "Connection refused"
    found = waits(clock, 12)
    assert all(most >= 4.9 and least <= 600.9 for least, most in found)
    assert len({round(most) for _, most in found}) > 3


def test_the_reason_is_that_of_the_last_try(server: type[Server], clock: Clock, told: list[Any]) -> None:
    server.away = "Connection refused"
    ids = queue()
    attempt(ids)
    put_forward_to_the_next_try(clock)
    server.away = "No route to host"
    attempt(ids)
    assert "No route to host" in status().reason
    assert len(told) == 1


def test_a_receiver_that_raises_does_no_harm(server: type[Server], clock: Clock, told: list[Any]) -> None:
    def broken(**arguments: Any) -> None:
        raise RuntimeError("the pager is away")

    transport_unavailable.connect(broken)
    transport_available.connect(broken)
    try:
        server.away = "Connection refused"
        ids = queue(2)
        assert "cannot be reached" in attempt(ids)
        assert set(states(ids)) == {State.QUEUED}
        server.away = ""
        put_forward_to_the_next_try(clock)
        deliver(ids)
    finally:
        transport_unavailable.disconnect(broken)
        transport_available.disconnect(broken)
    assert set(states(ids)) == {State.SENT}
    assert [kind for kind, _ in told] == ["unavailable", "available"]


def test_another_backend_is_not_held_back(server: type[Server]) -> None:
    server.away = "Connection refused"
    Other.away = ""
    ours, others = queue(2), queue(2, using="other")
    mixed = [ours[0], others[0], ours[1], others[1]]
    assert "cannot be reached" in attempt(mixed)
    assert states(ours) == [State.QUEUED, State.QUEUED]
    assert states(others) == [State.SENT, State.SENT]
    assert [(known.using, known.sender_domain) for known in availability.unavailable_backends()] == [("", "")]
    later = [*queue(1, using="other"), *queue(1)]
    assert attempt(later) == ""
    assert states(later) == [State.SENT, State.QUEUED]
    Other.away = "No route to host"
    assert "No route to host" in attempt(queue(1, using="other"))
    assert {known.using for known in availability.unavailable_backends()} == {"", "other"}


@pytest.mark.parametrize("closed", ["found out", "known", "domain found out", "domain known"])
def test_what_expires_while_it_is_held_back_expires_in_time(server: type[Server], clock: Clock, closed: str) -> None:
    server.away = "" if "domain" in closed else "Connection refused"
    server.unconfigured = {HOME}
    if "known" in closed:
        attempt(queue())
    TransportStatus.objects.update(failures=20, next_try_at=timezone.now() + timedelta(minutes=10))
    expires_at = timezone.now() + timedelta(seconds=3)
    brief, patient = queue(expires_at=expires_at), queue(expires_at=timezone.now() + timedelta(hours=1))
    attempt([*brief, *patient])
    assert states([*brief, *patient]) == [State.QUEUED, State.QUEUED]
    assert outbox.sweep(timezone.now()) == []
    clock.forward(seconds=3.1)
    assert outbox.sweep(timezone.now()) == []
    assert states([*brief, *patient]) == [State.EXPIRED, State.QUEUED]
    assert stored(brief)[0].finished_at is not None


def test_a_long_outage_with_several_workers_loses_and_repeats_nothing(
    server: type[Server], clock: Clock, told: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.away = "Connection refused"
    ids = queue(24)
    parts = [ids[start::4] for start in range(4)]
    opened = []
    for turn in range(6):
        if turn == 5:
            server.away = ""
        before = server.opened
        ready = outbox.sweep(timezone.now()) if turn else ids
        if turn:
            parts = [ready[start::4] for start in range(4)]
        run_concurrently(lambda worker: attempt(parts[worker]))  # noqa: B023
        opened.append(server.opened - before)
        if TransportStatus.objects.exists():
            put_forward_to_the_next_try(clock)
    # Once each: what waited for the others' try comes with the next sweep.
    assert opened[1:5] == [1, 1, 1, 1]
    clock.forward(minutes=2)
    deliver(outbox.sweep(timezone.now()))
    assert set(states(ids)) == {State.SENT}
    assert len(server.subjects) == 24
    assert [kind for kind, _ in told] == ["unavailable", "available"]
    assert [level for level, _ in logged(caplog)] == ["ERROR", "WARNING"]
