"""The pipelined transport with a server that speaks as SparkPost does, over TLS and with login."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from celery.signals import worker_process_shutdown
from django.core.mail.backends import smtp as django_smtp

from congressy_mailer.exceptions import NoFreeConnection, TransportUnavailable
from congressy_mailer.mime.outgoing import OutgoingMail
from congressy_mailer.replies import Outcome, Reply
from congressy_mailer.testing.local_sparkpost.replies import HANG_UP, KEEP_AND_HANG_UP, Exchange, Stage
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from congressy_mailer.throttling import connection_slots
from congressy_mailer.transports.base import ComposedMail
from congressy_mailer.transports.django_backend import DjangoTransport
from congressy_mailer.transports.host_backends import open_backend
from congressy_mailer.transports.selection import transport_for
from congressy_mailer.transports.smtp import session
from congressy_mailer.transports.smtp.transport import SmtpTransport
from tests.conftest import wait_for
from tests.support.scripted_smtp import YES, ScriptedServer, Step
from tests.support.smtp_replies import all_accepted, at
from tests.support.tcp_relay import Relay
from tests.support.transports import composed, hand_over, sparkpost_at, transport_to


def test_a_mail_costs_one_round_trip(server: LocalSparkPost) -> None:
    with Relay(server.port) as relay, sparkpost_at(server, relay.port):
        hand_over(composed())
        before = relay.turns
        assert all_accepted(hand_over(*(composed() for _ in range(50))))
        # One for each, and one to begin with: there is no content before the first envelope.
        assert relay.turns - before == 51
        before = relay.turns
        assert all_accepted(hand_over(composed("ana@example.com", "eva@example.com", "rui@example.com")))
        assert relay.turns - before == 2
        worker_process_shutdown.send(None)
    assert server.connections == 1


def test_an_outcome_does_not_wait_for_what_is_said_of_the_next_mail(server: LocalSparkPost) -> None:
    # Until it is written down, a process that is killed leaves a mail of which nobody knows.
    known = threading.Event()
    waited: list[bool] = []

    def hold(exchange: Exchange) -> None:
        if exchange.stage is Stage.RCPT and exchange.recipient == "slow@example.com":
            waited.append(known.wait(10))

    server.script = hold
    with transport_for("sparkpost") as transport:
        outcomes = transport.deliver([composed(), composed("slow@example.com")])
        assert next(outcomes).accepted == ("ana@example.com",)
        known.set()
        assert next(outcomes).accepted == ("slow@example.com",)
        assert list(outcomes) == []
    assert waited == [True]


def test_what_arrives(server: LocalSparkPost) -> None:
    (first, second) = hand_over(composed("ana@example.com", "eva@example.com"), composed("rui@bücher.example"))
    assert first.accepted == ("ana@example.com", "eva@example.com")
    one, two = server.mailbox
    assert first.reply == Reply(250, f"2.0.0 OK {one.queue_id}")
    assert (one.sender, one.recipients) == ("mail@congressy.net", ("ana@example.com", "eva@example.com"))
    assert one.content.endswith(b"\r\n\r\nTexto\r\n.\r\n..dois\r\n")
    assert two.recipients == second.accepted == ("rui@xn--bcher-kva.example",)


def test_a_hundred_mails_for_a_connection(server: LocalSparkPost) -> None:
    quits: list[int] = []
    server.script = lambda exchange: quits.append(exchange.connection) if exchange.stage is Stage.QUIT else None
    assert all_accepted(hand_over(*(composed() for _ in range(230))))
    assert server.connections == 3
    assert len(server.mailbox) == 230
    # The third has room left.
    assert quits == [1, 2]
    assert server.open_connections == 1


def test_a_server_that_wants_fewer(server: LocalSparkPost) -> None:
    server.script = lambda exchange: "421 4.7.0 Enough" if exchange.stage is Stage.MAIL and exchange.mail > 10 else None
    assert all_accepted(hand_over(*(composed() for _ in range(25))))
    assert (server.connections, len(server.mailbox)) == (3, 25)


def test_a_server_that_closes_between_two_mails(server: LocalSparkPost) -> None:
    def mails() -> Iterator[ComposedMail]:
        yield composed()
        yield composed()
        server.stop()
        server.start()
        yield composed()

    with transport_for("sparkpost") as transport:
        outcomes = list(transport.deliver(mails()))
    # What was on its way then may have arrived or not; what comes after has arrived.
    assert len(outcomes) == 3
    assert outcomes[-1].accepted
    assert all(outcome.accepted or outcome.in_doubt for outcome in outcomes)


def test_one_command_at_a_time_where_the_server_cannot_do_more(server: LocalSparkPost) -> None:
    server.script = at(Stage.HELLO, "250-old\n250-STARTTLS\n250 AUTH LOGIN PLAIN")
    with Relay(server.port) as relay, sparkpost_at(server, relay.port):
        hand_over(composed())
        before = relay.turns
        assert all_accepted(hand_over(*(composed("ana@example.com", text="Olá") for _ in range(5))))
        assert relay.turns - before == 5 * 4
        worker_process_shutdown.send(None)
    # It has not offered 8BITMIME either.
    assert all(received.content.isascii() for received in server.mailbox)
    assert list(server.mailbox)[-1].message.get_content().strip() == "Olá"


def test_each_recipient_has_its_own_answer(server: LocalSparkPost) -> None:
    answers = {"eva@example.com": "451 4.7.1 later", "rui@example.com": "550 5.1.1 nobody"}
    server.script = lambda exchange: answers.get(exchange.recipient) if exchange.stage is Stage.RCPT else None
    four = composed("ana@example.com", "eva@example.com", "rui@example.com")
    # The call refuses it; a row may be older.
    four.mail.envelope.append("joão@example.com")
    mixed, after = hand_over(four, composed())
    assert mixed.accepted == ("ana@example.com",)
    assert mixed.deferred == {"eva@example.com": Reply(451, "4.7.1 later")}
    assert mixed.rejected["rui@example.com"] == Reply(550, "5.1.1 nobody")
    assert "SMTPUTF8" in mixed.rejected["joão@example.com"].text
    assert mixed.reply.text.startswith("2.0.0 OK")
    assert after.accepted == ("ana@example.com",)
    assert [received.recipients for received in server.mailbox] == [("ana@example.com",), ("ana@example.com",)]
    assert server.connections == 1


ANSWERS = [
    (stage, answer)
    for stage in (Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.CONTENT)
    for answer in (
        "451 4.3.0 later",
        "421 4.3.2 closing",
        "552 5.2.2 much",
        "554 5.5.1 no",
        "530 5.7.0 login first",
        "550 5.7.1 Unconfigured Sending Domain <congressy.net>",
        HANG_UP,
    )
]


@pytest.mark.parametrize("recipients", [("ana@example.com",), ("ana@example.com", "eva@example.com")])
@pytest.mark.parametrize(("stage", "answer"), [*ANSWERS, (Stage.CONTENT, KEEP_AND_HANG_UP)])
def test_means_the_same_as_without_pipelining(
    server: LocalSparkPost, stage: Stage, answer: Any, recipients: tuple[str, ...]
) -> None:
    def meaning(transport: Any) -> Any:
        try:
            (outcome,) = transport.deliver([composed(*recipients)])
        except TransportUnavailable:
            return "unavailable"
        finally:
            transport.close()
        codes = [{to: reply.code for to, reply in said.items()} for said in (outcome.deferred, outcome.rejected)]
        return outcome.accepted, *codes, outcome.sender_refused, outcome.in_doubt

    # Of several recipients, the first.
    server.script = lambda exchange: (
        answer if exchange.stage is stage and exchange.recipient in ("", "ana@example.com") else None
    )
    backend = open_backend("sparkpost")
    assert isinstance(backend, django_smtp.EmailBackend)
    pipelined = meaning(SmtpTransport(backend))
    assert pipelined == meaning(DjangoTransport(open_backend("sparkpost")))


# 530 is no mail's fault, and stops them all.
@pytest.mark.parametrize(("stage", "answer"), [(stage, said) for stage, said in ANSWERS if "530" not in str(said)])
def test_the_mail_behind_it_goes_its_own_way(server: LocalSparkPost, stage: Stage, answer: Any) -> None:
    # Once, for the second of three.
    left = iter([answer])
    server.script = lambda exchange: next(left, None) if exchange.stage is stage and exchange.mail == 2 else None
    first, _, third = hand_over(composed("ana@example.com"), composed("eva@example.com"), composed("rui@example.com"))
    assert first.accepted == ("ana@example.com",)
    assert third.accepted == ("rui@example.com",)


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA])
@pytest.mark.parametrize("answer", ["421 4.4.2 idle", HANG_UP])
def test_what_a_used_connection_refuses_in_dying_is_tried_on_a_new_one(
    server: LocalSparkPost, stage: Stage, answer: Any
) -> None:
    hand_over(composed())
    left = iter([answer])
    server.script = lambda exchange: next(left, None) if exchange.stage is stage else None
    assert all_accepted(hand_over(composed(), composed()))
    assert (server.connections, len(server.mailbox)) == (2, 3)


@pytest.mark.parametrize(
    ("stage", "answer"),
    [
        (Stage.CONNECT, "421 4.3.2 closing"),
        (Stage.HELLO, HANG_UP),
        (Stage.STARTTLS, "454 4.7.0 TLS not available"),
        (Stage.AUTH, "535 5.7.8 Sorry."),
        (Stage.AUTH, HANG_UP),
    ],
)
def test_a_server_that_cannot_be_used(server: LocalSparkPost, stage: Stage, answer: Any) -> None:
    server.script = at(stage, answer)
    pulled = []
    with pytest.raises(TransportUnavailable), transport_for("sparkpost") as transport:
        list(transport.deliver(pulled.append(number) or composed() for number in range(3)))  # type: ignore[func-returns-value]
    assert pulled == []


def test_a_server_with_fewer_connections_than_processes_is_no_server_that_cannot_be_used(
    server: LocalSparkPost, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.script = lambda exchange: (
        "421 4.7.0 Error: too many connections from 127.0.0.1"
        if exchange.stage is Stage.CONNECT and server.open_connections > 1
        else None
    )
    backend: Any = open_backend("sparkpost")
    first, second = SmtpTransport(backend, "sparkpost"), SmtpTransport(open_backend("sparkpost"), "sparkpost")  # type: ignore[arg-type]
    try:
        assert all_accepted(list(first.deliver([composed()])))
        with pytest.raises(NoFreeConnection):
            list(second.deliver([composed()]))
        # Nobody keeps a connection while it has no mail.
        assert all_accepted(list(first.deliver([composed()])))
        wait_for(lambda: server.open_connections == 0)
        connection_slots.forget_refusals()
        assert all_accepted(list(second.deliver([composed()])))
    finally:
        first.close()
        second.close()


def test_what_has_no_outcome_when_the_server_goes_away_was_not_sent(server: LocalSparkPost) -> None:
    def script(exchange: Exchange) -> Any:
        if exchange.stage is Stage.CONTENT and exchange.mail == 3:
            return KEEP_AND_HANG_UP
        return "421 4.3.2 closing" if exchange.stage is Stage.CONNECT and exchange.connection > 1 else None

    server.script = script
    outcomes = []
    with pytest.raises(TransportUnavailable), transport_for("sparkpost") as transport:
        for outcome in transport.deliver(composed() for _ in range(9)):
            outcomes.append(outcome)
    assert [bool(outcome.accepted) for outcome in outcomes] == [True, True, False]
    assert outcomes[2].in_doubt
    assert len(server.mailbox) == 3


def test_whoever_stops_listening_stops_the_sending(server: LocalSparkPost) -> None:
    with transport_for("sparkpost") as transport:
        outcomes = transport.deliver(composed() for _ in range(9))
        assert next(outcomes).accepted
        outcomes.close()  # type: ignore[attr-defined]
        wait_for(lambda: server.open_connections == 0, 5)
        assert len(server.mailbox) == 1
        # Nothing is left over of the second, whose envelope had been announced.
        assert all_accepted(list(transport.deliver([composed()])))
    assert (server.connections, len(server.mailbox)) == (2, 2)


def test_a_delivery_that_somebody_has_forgotten_to_end(server: LocalSparkPost) -> None:
    with transport_for("sparkpost") as transport:
        forgotten = transport.deliver(composed() for _ in range(9))
        assert next(forgotten).accepted
        begun = time.monotonic()
        assert all_accepted(list(transport.deliver([composed()])))
        # Nobody has waited for a server that waits for content.
        assert time.monotonic() - begun < 30
    assert len(server.mailbox) == 2


def test_a_connection_that_is_said_to_be_closing_is_used_no_more() -> None:
    server = ScriptedServer([YES, YES, YES, Step("421 4.3.2 closing", stays_open=True)])
    try:
        with transport_to(server.port) as transport:
            first, second = transport.deliver([composed(), composed()])
    finally:
        server.close()
    assert set(first.deferred) == set(second.accepted) == {"ana@example.com"}
    assert server.connections == 2


def test_nothing_is_on_its_way_while_a_mail_is_composed(server: LocalSparkPost) -> None:
    outcomes: list[Outcome] = []

    def mails() -> Iterator[ComposedMail]:
        for number in range(5):
            # Were this the moment that kills the process, or takes an hour: all that was sent is known.
            assert len(server.mailbox) == len(outcomes) == max(0, number - 1)
            yield composed()
        raise KeyError("a fault of the caller's")

    with pytest.raises(KeyError, match="a fault"), transport_for("sparkpost") as transport:
        for outcome in transport.deliver(mails()):
            outcomes.append(outcome)
    assert all_accepted(outcomes)
    assert len(outcomes) == len(server.mailbox) == 4
    wait_for(lambda: server.open_connections == 0, 5)


@pytest.mark.parametrize("extensions", [["PIPELINING"], []])
def test_a_mail_that_cannot_be_written_out(extensions: list[str]) -> None:
    class TooLarge(OutgoingMail):
        @property
        def wire(self) -> bytes:
            raise MemoryError("no more")

    mails = [composed(), composed(), composed()]
    mails[1].mail.__class__ = TooLarge
    server = ScriptedServer(extensions=extensions)
    try:
        with transport_to(server.port) as transport:
            first, second, third = transport.deliver(mails)
    finally:
        server.close()
    assert all_accepted([first, third])
    assert second.deferred == {"ana@example.com": Reply(None, "It cannot be written out: MemoryError: no more")}
    assert [taken.key for taken in server.received] == [str(first.key), str(third.key)]


def test_interrupted_while_the_content_is_on_its_way(server: LocalSparkPost, monkeypatch: pytest.MonkeyPatch) -> None:
    class TimeIsOver(Exception):
        """As Celery's soft time limit, raised by a signal handler."""

    reading = session.read_reply

    def interrupted(*args: Any) -> None:
        monkeypatch.setattr(session, "read_reply", reading)
        raise TimeIsOver

    monkeypatch.setattr(session, "read_reply", interrupted)
    outcomes = []
    with pytest.raises(TimeIsOver), transport_for("sparkpost") as transport:
        for outcome in transport.deliver(composed() for _ in range(3)):
            outcomes.append(outcome)
    (outcome,) = outcomes
    assert outcome.in_doubt
    assert outcome.deferred["ana@example.com"].text.startswith("Interrupted: TimeIsOver")
    assert all_accepted(hand_over(composed()))


# Contents larger than any buffer.


def test_large_content_over_tls_in_both_directions(server: LocalSparkPost) -> None:
    text = "\n".join(["." + "x" * 70] * 75_000)
    many = [f"r{number}@example.com" for number in range(3000)]
    outcomes = hand_over(composed(text=text), composed(*many), composed(text=text))
    assert all_accepted(outcomes)
    assert len(outcomes[1].accepted) == 3000
    assert [len(received.content) > 5_000_000 for received in server.mailbox] == [True, False, True]
    assert server.connections == 1


def test_both_sides_have_much_to_say() -> None:
    """Whoever wrote all of it before reading anything would wait here for a server that waits for the same."""
    server = ScriptedServer(buffers=65536, yes="x" * 1000)
    mails = [composed(), composed(), composed()]
    domain = ".".join(["x" * 60] * 3)
    for one in mails[1:]:
        one.mail.envelope = [f"r{number}@{domain}.example" for number in range(3000)]
    try:
        with transport_to(server.port, buffers=65536) as transport:
            outcomes = list(transport.deliver(mails))
    finally:
        server.close()
    assert all_accepted(outcomes)
    assert [len(taken.recipients) for taken in server.received] == [1, 3000, 3000]
    assert server.violations == []


@pytest.mark.parametrize("hangs_up", [False, True])
def test_a_server_that_does_not_wait_for_the_end(hangs_up: bool) -> None:
    large = composed(text="\n".join(["x" * 70] * 75_000))
    # Then the rest of the content is read, or not.
    early = Step("421 4.3.4 too much" if hangs_up else "552 5.3.4 too much", early=True)
    server = ScriptedServer([YES, YES, YES, early], buffers=65536)
    try:
        with transport_to(server.port) as transport:
            first, second = transport.deliver([large, composed()])
    finally:
        server.close()
    said = first.deferred if hangs_up else first.rejected
    assert said["ana@example.com"].text == early.reply[4:]
    assert not first.in_doubt
    assert second.accepted == ("ana@example.com",)
    assert server.connections == (2 if hangs_up else 1)
