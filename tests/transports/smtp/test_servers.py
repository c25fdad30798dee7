"""Ways of mail servers that differ from what RFC 2920 and RFC 5321 let a client expect."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from celery.signals import worker_process_shutdown
from django.test import override_settings
from django.utils import timezone

from congressy_mailer import send_mail
from congressy_mailer.delivery import missing_login
from congressy_mailer.delivery.slice import Delivery
from congressy_mailer.exceptions import TransportUnavailable
from congressy_mailer.models import Message, State, TransportStatus
from congressy_mailer.transports.smtp import pipelining
from tests.support.scripted_smtp import YES, ScriptedServer, Step
from tests.transports.smtp.test_model import deliver, mail, transport_to


@contextmanager
def serving(steps: Sequence[Step] = (), **options: Any) -> Iterator[ScriptedServer]:
    server = ScriptedServer(steps, **options)
    try:
        yield server
    finally:
        # The connection that is kept for the next task ends first.
        worker_process_shutdown.send(None)
        server.close()


# Haraka, Postfix, an imaginary one, and chasquid.
BEHIND_CONTENT = ["503 Bad sequence of commands - pipelined after end of DATA", "502 no", "554 5.5.0 out of order", ""]


@pytest.mark.parametrize("said", BEHIND_CONTENT)
def test_a_server_that_takes_no_envelope_behind_a_content(
    said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(pipelining, "PATIENCE", 0.3)
    with serving(behind_content=said) as server, transport_to(server.port) as transport:
        mails = [mail() for _ in range(6)]
        result = deliver(transport, mails)
        # Another slice knows it already.
        more = deliver(transport, [mail() for _ in range(4)])
    assert [outcome.accepted for outcome in (*result.outcomes, *more.outcomes)] == [("r0@example.com",)] * 10
    assert len(server.received) == 10
    assert server.violations == []
    # Where it answers at all, all of it goes over one connection.
    assert server.connections == (1 if said else 2)
    (line,) = [record for record in caplog.records if record.name == "congressy_mailer.transports"]
    assert "takes no envelope behind the content of another mail" in line.getMessage()
    assert not [
        record
        for record in caplog.records
        if record.levelno >= logging.WARNING and record.name != "congressy_mailer.throttling"
    ]


def test_a_server_that_refuses_a_sender_goes_on_taking_the_next_envelope_along() -> None:
    refused = [Step("550 5.1.8 no such sender")] * 2
    # The second mail's envelope, in the group with the first's content and by itself; RCPT and DATA are out of order.
    with (
        serving([YES, YES, YES, YES, refused[0], Step("503 no"), YES, refused[1], Step("503 no")]) as server,
        transport_to(server.port) as transport,
    ):
        result = deliver(transport, [mail() for _ in range(3)])
        assert pipelining.spans_mails("127.0.0.1", server.port)
    assert [bool(outcome.accepted) for outcome in result.outcomes] == [True, False, True]
    assert result.outcomes[1].rejected


@pytest.mark.parametrize("extensions", [("PIPELINING",), ()])
@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("code", [500, 502, 503])
def test_what_is_said_of_the_session_ends_no_mail(code: int, stage: int, extensions: Sequence[str]) -> None:
    with (
        serving([*[YES] * stage, Step(f"{code} what")], extensions=extensions) as server,
        transport_to(server.port) as transport,
    ):
        result = deliver(transport, [mail()])
    assert [set(outcome.deferred) for outcome in result.outcomes] == [{"r0@example.com"}]


def test_it_is_forgotten_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelining, "MEMORY", 0.0)
    with serving(behind_content="503 no") as server, transport_to(server.port) as transport:
        deliver(transport, [mail(), mail()])
        assert pipelining.spans_mails("127.0.0.1", server.port)


def test_a_server_that_dies_in_a_content_is_not_suspected() -> None:
    with serving([YES, YES, YES, Step(cut=0)]) as server, transport_to(server.port) as transport:
        result = deliver(transport, [mail(), mail()])
        assert pipelining.spans_mails("127.0.0.1", server.port)
    assert result.outcomes[0].in_doubt
    assert result.outcomes[1].accepted


@pytest.mark.parametrize("extensions", [("PIPELINING",), ()])
def test_recipients_that_a_server_has_closed_over_do_not_keep_the_others_from_theirs(extensions: Sequence[str]) -> None:
    full = [Step("450 4.2.2 full")] * 3
    with (
        serving([YES, *full, Step("421 4.7.0 too many errors")], extensions=extensions) as server,
        transport_to(server.port) as transport,
    ):
        (outcome,) = deliver(transport, [mail(6)]).outcomes
    # On a new connection, without those who were refused.
    assert sorted(outcome.accepted) == [f"r{number}@example.com" for number in (3, 4, 5)]
    assert list(outcome.deferred) == [f"r{number}@example.com" for number in (0, 1, 2)]


def test_a_refusal_before_the_content_is_final_where_it_stays_the_same() -> None:
    early = Step("550 5.7.1 not you", unasked=True)
    script = [YES, YES, YES, early] * 2
    with serving(script) as server, transport_to(server.port) as transport:
        result = deliver(transport, [mail(), mail()])
    first, second = result.outcomes
    assert first.rejected["r0@example.com"].code == 550
    assert second.accepted
    assert server.connections == 3


def test_a_refusal_before_the_content_may_be_about_the_connection() -> None:
    with (
        serving([YES, YES, YES, Step("554 5.4.0 too slow", unasked=True)]) as server,
        transport_to(server.port) as transport,
    ):
        (outcome,) = deliver(transport, [mail()]).outcomes
    assert outcome.accepted == ("r0@example.com",)


@contextmanager
def default_backend(server: ScriptedServer, **login: str) -> Iterator[None]:
    backend = {
        "BACKEND": "django.core.mail.backends.smtp.EmailBackend",
        "OPTIONS": {"host": "127.0.0.1", "port": server.port, "use_tls": False, "timeout": 5, **login},
    }
    with override_settings(CONGRESSY_MAILER={"TRANSPORTS": {"plain": backend}}):
        yield


def send(server: ScriptedServer, *recipients: str, sensitive: bool = False) -> list[Message]:
    with default_backend(server):
        return [
            send_mail("Assunto", "texto", "mail@congressy.net", recipient, using="plain", sensitive=sensitive)
            for recipient in recipients
        ]


def states(messages: Sequence[Message]) -> list[str]:
    return [str(Message.objects.get(pk=message.pk).state) for message in messages]


NO_DATA = Step("503 5.5.1 need RCPT")
NO_LOGIN = {"username": "", "password": ""}


def run(server: ScriptedServer, messages: Sequence[Message], **login: str) -> None:
    with default_backend(server, **login):
        Delivery("token").run([message.pk for message in messages], redelivered=False)


@pytest.fixture(autouse=True)
def _worker_has_just_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(missing_login, "_STARTED", timezone.now())


outbox_test = pytest.mark.usefixtures("published")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("refusal", "recipients"),
    [
        ("554 5.7.1 <x>: Relay access denied", ["ana@example.com"]),
        ("550 relay not permitted", ["ana@example.com"]),
        ("550 5.7.1 Relaying denied. Proper authentication required.", ["ana@example.com", "eva@example.net"]),
        ("550 Invalid recipient", ["ana@example.com", "eva@example.net", "rui@example.org"]),
    ],
)
@pytest.mark.parametrize("sensitive", [False, True])
@outbox_test
def test_a_server_that_relays_for_nobody_without_login_holds_the_mail(
    refusal: str, recipients: list[str], sensitive: bool
) -> None:
    script = [YES, Step(refusal), NO_DATA] * len(recipients)
    with serving(script) as server:
        messages = send(server, *recipients, sensitive=sensitive)
        with pytest.raises(TransportUnavailable):
            run(server, messages, **NO_LOGIN)
    assert states(messages) == [State.QUEUED] * len(recipients)
    assert [message.attempts for message in Message.objects.all()] == [0] * len(recipients)
    reason = TransportStatus.objects.get().reason
    assert reason.startswith("The mail server refuses")
    assert (refusal in reason) is not sensitive


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("taken", [0, 1, 2])
@outbox_test
def test_a_server_that_takes_one_mail_refuses_the_others_for_good(taken: int) -> None:
    refused = [YES, Step("554 5.7.1 <x>: Relay access denied"), NO_DATA]
    # Behind one that was refused goes a RSET.
    script = [
        step
        for number in range(3)
        for step in [YES] * (number > 0 and number - 1 != taken) + ([YES] * 4 if number == taken else refused)
    ]
    with serving(script) as server:
        messages = send(server, "ana@example.com", "eva@example.com", "rui@example.com")
        run(server, messages, **NO_LOGIN)
        # Also in a later slice.
        server._steps = iter([YES] * (taken < 2) + refused)
        later = send(server, "ivo@example.com")
        run(server, later, **NO_LOGIN)
    expected = [State.FAILED] * 3
    expected[taken] = State.SENT
    assert states(messages) == expected
    assert states(later) == [State.FAILED]
    assert not TransportStatus.objects.exists()


@pytest.mark.django_db(transaction=True)
@outbox_test
def test_a_recipient_who_does_not_exist_is_refused_for_good_also_without_login() -> None:
    with serving([YES, Step("550 5.1.1 no such user"), NO_DATA]) as server:
        messages = send(server, "ana@example.com")
        run(server, messages, **NO_LOGIN)
    assert states(messages) == [State.FAILED]
