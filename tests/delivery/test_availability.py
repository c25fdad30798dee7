"""Mail servers that cannot be used: tried by one worker at a time, further and further apart, said once."""

from __future__ import annotations

import logging
import smtplib
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar

import pytest
from django.core.mail.backends.base import BaseEmailBackend
from django.utils import timezone

from congressy_mailer import outbox
from congressy_mailer.delivery import availability
from congressy_mailer.delivery.availability import CircuitBreaker
from congressy_mailer.exceptions import TransportUnavailable
from congressy_mailer.mime.addresses import domain_of
from congressy_mailer.models import Message, State, TransportStatus
from congressy_mailer.signals import transport_available, transport_unavailable
from tests.conftest import run_concurrently
from tests.support.mails import attempt, deliver, queue, states, stored

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.email_settings]

HOME = "congressy.net"
#: Other workers leave a try alone for this long.
TRY_TIME = timedelta(seconds=90)


class Server(BaseEmailBackend):
    """A mail server that is there or not, as SparkPost's would be: one for all connections of a test."""

    #: Why nobody can connect; empty: everybody can.
    away: ClassVar[str] = ""
    #: Domains that are not set up in the account.
    unconfigured: ClassVar[set[str]] = set()
    #: Runs whenever somebody connects.
    at_open: ClassVar[Callable[[], object]] = staticmethod(lambda: None)
    opened: ClassVar[int] = 0
    subjects: ClassVar[list[str]] = []

    def open(self) -> None:
        type(self).opened += 1
        type(self).at_open()
        if self.away:
            raise ConnectionRefusedError(111, self.away)

    def send_messages(self, email_messages: Sequence[Any]) -> int:
        for mail in email_messages:
            domain = domain_of(mail.from_email)
            if domain in self.unconfigured:
                raise smtplib.SMTPDataError(550, f"5.7.1 Unconfigured Sending Domain <{domain}>".encode())
            if "nobody" in mail.to[0]:
                raise smtplib.SMTPRecipientsRefused({mail.to[0]: (550, b"5.1.1 no such user")})
            if "hangs-up" in mail.to[0]:
                raise smtplib.SMTPServerDisconnected("Connection unexpectedly closed")
            self.subjects.append(mail.subject)
        return len(email_messages)


class Other(Server):
    """The server of another alias."""

    subjects: ClassVar[list[str]] = []


class Clock:
    """The time that the mailer sees: it can be put forward."""

    def __init__(self) -> None:
        self._ahead = timedelta(0)
        self._now = timezone.now

    def now(self) -> datetime:
        return self._now() + self._ahead

    def forward(self, **span: float) -> None:
        self._ahead += timedelta(**span)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timezone, "now", clock.now)
    return clock


@pytest.fixture(autouse=True)
def server(settings: Any, published: list[str]) -> type[Server]:
    """Only workers and their servers are under test: nothing is published."""
    settings.EMAIL_BACKEND = f"{__name__}.Server"
    settings.CONGRESSY_MAILER = {"TRANSPORTS": {"other": {"BACKEND": f"{__name__}.Other"}}}
    for kind in (Server, Other):
        kind.away, kind.unconfigured, kind.opened, kind.at_open = "", set(), 0, staticmethod(lambda: None)
        kind.subjects.clear()
    return Server


@pytest.fixture
def told() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """The signals that were sent."""
    received: list[tuple[str, dict[str, Any]]] = []

    def lost(signal: Any, sender: type, **arguments: Any) -> None:
        received.append(("unavailable", arguments))

    def found(signal: Any, sender: type, **arguments: Any) -> None:
        received.append(("available", arguments))

    transport_unavailable.connect(lost)
    transport_available.connect(found)
    yield received
    transport_unavailable.disconnect(lost)
    transport_available.disconnect(found)


def status(sender_domain: str = "", using: str = "") -> TransportStatus:
    return TransportStatus.objects.get(sender_domain=sender_domain, using=using)


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [
        (record.levelname, record.getMessage())
        for record in caplog.records
        if record.name == "congressy_mailer.availability"
    ]


def put_forward_to_the_next_try(clock: Clock, **of: str) -> None:
    clock.forward(seconds=max(0.0, (status(**of).next_try_at - timezone.now()).total_seconds()) + 0.001)


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
