"""Mails to many recipients over servers that take long for each: never twice, never stuck, and no crash."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.db import connection
from django.test import override_settings
from django.utils import timezone

from congressy_mailer import outbox, send_mail
from congressy_mailer.models import Event, Message, State
from congressy_mailer.replies import Outcome, Reply
from congressy_mailer.transports.smtp import connections as smtp_connections
from congressy_mailer.transports.smtp.envelopes import EnvelopeExchange
from congressy_mailer.transports.smtp.session import Session
from tests.support.mails import deliver
from tests.support.scripted_smtp import YES, ScriptedServer, Step, serving
from tests.support.transports import SMTP

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("published")]

PIPELINED_OR_NOT = pytest.mark.parametrize("extensions", [("PIPELINING", "8BITMIME"), ("8BITMIME",)])


@contextmanager
def serving_alias(steps: Sequence[Step] = (), settings: dict[str, Any] | None = None, **options: Any) -> Iterator[Any]:
    """A server to which the alias ``plain`` leads."""
    with serving(steps, **options) as server:
        login = {"username": "", "password": ""}
        backend = {"host": "127.0.0.1", "port": server.port, "use_tls": False, "timeout": 9, **login}
        transports = {"plain": {"BACKEND": SMTP, "OPTIONS": backend}}
        with override_settings(CONGRESSY_MAILER={"TRANSPORTS": transports, **(settings or {})}):
            yield server


def queue_to(recipients: int) -> Message:
    to = [f"r{number}@example.com" for number in range(recipients)]
    return send_mail("Assunto", "texto", "mail@congressy.net", to, using="plain")


def copies(server: ScriptedServer) -> Counter[str]:
    return Counter(to for one in server.received if one.accepted for to in one.recipients)


@PIPELINED_OR_NOT
def test_a_slow_server_gets_the_recipients_in_several_transactions(
    extensions: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp_connections, "longest_envelope", lambda: 0.25)
    with serving_alias(pace=0.05, extensions=extensions) as server:
        message = queue_to(30)
        for _ in range(30):
            result = deliver([message])
            message.refresh_from_db()
            if message.state == State.SENT:
                break
            # The next part is due at once, and was no attempt that failed.
            assert (message.state, message.attempts, message.crashes) == (State.QUEUED, 0, 0)
            assert result.retries == {1: [message.pk]}
    assert message.state == State.SENT
    assert copies(server) == Counter({f"r{number}@example.com": 1 for number in range(30)})
    assert len(server.received) > 3
    assert server.violations == []


@PIPELINED_OR_NOT
def test_recipients_that_are_refused_for_now_are_not_asked_about_without_end(
    extensions: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp_connections, "longest_envelope", lambda: 0.1)
    with serving_alias([YES, *[Step("450 4.2.2 full")] * 20], pace=0.02, extensions=extensions) as server:
        message = queue_to(20)
        deliver([message])
        message.refresh_from_db()
    assert (message.state, message.attempts) == (State.DEFERRED, 1)
    assert sorted(message.remaining) == sorted(f"r{number}@example.com" for number in range(20))
    # Those that were not asked about are next.
    asked = {command.partition("<")[2].rstrip(">") for command in server.commands if command.startswith("RCPT")}
    assert not asked & set(message.remaining[: 20 - len(asked)])


def test_a_sender_that_is_refused_is_refused_for_all_recipients() -> None:
    with serving_alias([Step("550 5.1.8 no"), *[Step("503 no")] * 10]):
        message = queue_to(25)
        deliver([message])
        message.refresh_from_db()
    assert message.state == State.FAILED
    assert Event.objects.filter(type=Event.Type.REJECTED).count() == 25


@PIPELINED_OR_NOT
def test_a_lease_is_extended_while_the_server_is_waited_for(extensions: Sequence[str]) -> None:
    with serving_alias(pace=0.3, extensions=extensions, settings={"LEASE": timedelta(seconds=1.5)}) as server:
        message = queue_to(10)
        done = threading.Event()

        def work() -> None:
            try:
                deliver([message])
            finally:
                connection.close()
                done.set()

        worker = threading.Thread(target=work)
        worker.start()
        overdue = []
        while not done.wait(0.05):
            now = timezone.now()
            overdue += Message.objects.filter(state=State.SENDING, due_at__lt=now).values_list("pk", flat=True)
        worker.join()
        message.refresh_from_db()
    assert overdue == []
    assert (message.state, message.crashes) == (State.SENT, 0)
    assert set(copies(server).values()) == {1}


def test_an_interrupted_envelope_is_deferred_and_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any, **options: Any) -> None:
        raise SoftTimeLimitExceeded

    with serving_alias() as server:
        messages = queue_to(20), queue_to(1)
        with monkeypatch.context() as patched:
            patched.setattr(EnvelopeExchange, "read_replies", interrupted)
            deliver(messages)
        first, second = (Message.objects.get(pk=message.pk) for message in messages)
        assert (first.state, first.attempts, first.crashes) == (State.DEFERRED, 1, 0)
        assert "Interrupted" in first.reason
        assert (second.state, second.attempts, second.crashes) == (State.QUEUED, 0, 0)
        Message.objects.update(due_at=timezone.now())
        deliver(messages)
    # Both mails go to the first of them.
    assert copies(server).total() == 21


def test_a_content_does_not_leave_when_the_claim_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = Session.read_replies

    def overtaken(session: Session, beginning: Any) -> Any:
        yield from reading(session, beginning)
        Message.objects.update(token="another", due_at=timezone.now() + timedelta(minutes=15))

    monkeypatch.setattr(Session, "read_replies", overtaken)
    with serving_alias() as server:
        message = queue_to(1)
        Message.objects.update(crashes=1)
        deliver([message])
        message.refresh_from_db()
    assert server.received == []
    assert (message.state, message.token) == (State.SENDING, "another")


@pytest.mark.parametrize("state", [State.SENDING, State.QUEUED, State.DEFERRED, State.HELD])
@pytest.mark.parametrize("together", [True, False])
def test_an_acceptance_is_written_down_where_the_claim_is_gone(state: State, together: bool) -> None:
    with serving_alias():
        message = queue_to(2)
        Message.objects.update(state=state, token="another" if state == State.SENDING else "")
        reply = Reply(250, "2.0.0 taken")
        if together:
            outbox.record_accepted("mine", [(message, reply)])
        else:
            outbox.record("mine", message, Outcome(message.pk, accepted=tuple(message.envelope), reply=reply))
        message.refresh_from_db()
    assert (message.state, message.token, message.reply) == (State.SENT, "", "250 2.0.0 taken")
    assert message.sent_at is not None


def test_some_recipients_of_a_lost_claim_have_it() -> None:
    with serving_alias():
        message = queue_to(2)
        Message.objects.update(state=State.SENDING, token="another")
        refused = {"r1@example.com": Reply(451, "later")}
        outcome = Outcome(message.pk, accepted=("r0@example.com",), deferred=refused, reply=Reply(250, "taken"))
        assert outbox.record("mine", message, outcome) is None
        message.refresh_from_db()
    assert (message.state, message.token, message.remaining) == (State.QUEUED, "", ["r1@example.com"])


def test_what_is_final_stays_so() -> None:
    with serving_alias():
        message = queue_to(1)
        Message.objects.update(state=State.CANCELLED)
        outbox.record("mine", message, Outcome(message.pk, accepted=("r0@example.com",), reply=Reply(250, "taken")))
        message.refresh_from_db()
    assert message.state == State.CANCELLED
