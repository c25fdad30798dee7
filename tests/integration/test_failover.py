"""Over which mail backend a mail goes: real SMTP that is stopped and started, and SparkPost's API over real HTTPS."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from congressy_mailer import outbox, send_bulk, send_mail
from congressy_mailer.delivery import Delivery
from congressy_mailer.exceptions import TransportUnavailable
from congressy_mailer.models import Message, State, TransportStatus
from congressy_mailer.transports import kept
from demo.local_sparkpost import KEEP_AND_HANG_UP, LocalSparkPost, Stage
from tests.integration.scripted_https import Answer, Request, ScriptedHttps

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.email_settings]

BACKEND = "congressy_mailer.sparkpost.backend.EmailBackend"


def accept(request: Request) -> Answer:
    count = len(request.json["recipients"])
    return Answer(body={"results": {"id": "1166", "total_accepted_recipients": count, "total_rejected_recipients": 0}})


@pytest.fixture(autouse=True)
def quiet(published: list[str]) -> None:
    """Nothing goes to a broker."""


@pytest.fixture
def api(sparkpost_api: ScriptedHttps, settings: Any) -> ScriptedHttps:
    """SparkPost's API, which takes over."""
    settings.CONGRESSY_MAILER = {
        **settings.CONGRESSY_MAILER,
        "TRANSPORTS": {"sparkpost-http": {"BACKEND": BACKEND}},
        "FAILOVER": ["sparkpost-http"],
    }
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_PORT = 1
    sparkpost_api.script = accept
    return sparkpost_api


@pytest.fixture
def smtp(
    api: ScriptedHttps, tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalSparkPost]:
    """The default backend's server, running."""
    server = LocalSparkPost(directory=tmp_path / "mailbox")
    server.__enter__()
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    settings.EMAIL_PORT = server.port
    settings.EMAIL_HOST_PASSWORD = server.password
    yield server
    kept.close_connections()
    server.__exit__(None, None, None)


def deliver(*messages: Message) -> None:
    Delivery(outbox.new_token("task")).run([message.id for message in messages], redelivered=False)


def mails(count: int = 3, **options: Any) -> list[Message]:
    return [send_mail("Olá {{x}}", f"Texto {n}", to=f"{n}@example.com", **options) for n in range(count)]


def over_http(api: ScriptedHttps) -> list[str]:
    return [recipient["address"]["email"] for request in api.requests for recipient in request.json["recipients"]]


def make_due() -> None:
    """The time to try again has come."""
    TransportStatus.objects.update(next_try_at=timezone.now())
    Message.objects.filter(state=State.DEFERRED).update(due_at=timezone.now())


def test_a_mail_that_names_it_goes_over_http(api: ScriptedHttps) -> None:
    (message,) = mails(1, using="sparkpost-http", campaign="abril", bcc=["eva@example.com"])
    deliver(message)
    message.refresh_from_db()
    assert (message.state, message.reply, message.via) == (State.SENT, "200 OK 1166", "")
    request = api.requests[0].json
    assert request["campaign_id"] == "abril"
    mail = email.message_from_string(request["content"]["email_rfc822"], policy=email.policy.default)
    assert mail["Message-ID"] == message.message_id
    assert mail["Bcc"] is None
    assert over_http(api) == ["0@example.com", "eva@example.com"]


def test_one_call_for_a_batch_and_an_end_for_each(api: ScriptedHttps) -> None:
    def script(request: Request) -> Answer:
        error = {"code": "1902", "message": "Message generation rejected", "description": "3@example.com"}
        results = {"id": "7", "total_rejected_recipients": 1, "rcpt_to_errors": [error]}
        return Answer(body={"results": results})

    api.script = script
    people = [f"{n}@example.com" for n in range(20)]
    batch = send_bulk(subject="Oi", message="Olá, convite", recipients=people, using="sparkpost-http")
    Delivery(outbox.new_token("task")).run_batch(batch.id, batch.round)
    assert len(api.requests) == 1
    states = {message.to[0]: message.state for message in batch.messages.all()}
    assert states.pop("3@example.com") == State.FAILED
    assert set(states.values()) == {State.SENT}


def test_a_call_that_is_refused_as_a_whole_is_made_for_each_alone(api: ScriptedHttps) -> None:
    def script(request: Request) -> Answer:
        if "3@example.com" in request.body.decode():
            return Answer(422, {"errors": [{"code": "1300", "message": "invalid data"}]})
        return accept(request)

    api.script = script
    recipients = [f"{n}@example.com" for n in range(5)]
    batch = send_bulk(subject="Oi", message="Olá, convite", recipients=recipients, using="sparkpost-http")
    Delivery(outbox.new_token("task")).run_batch(batch.id, batch.round)
    states = {message.to[0]: message.state for message in batch.messages.all()}
    assert states.pop("3@example.com") == State.FAILED
    assert set(states.values()) == {State.SENT}
    assert len(api.requests) == 6


def test_another_takes_over_and_gives_back(api: ScriptedHttps, smtp: LocalSparkPost, settings: Any) -> None:
    first = mails()
    deliver(*first)
    assert over_http(api) == []
    kept.close_connections()
    port, settings.EMAIL_PORT = settings.EMAIL_PORT, 1
    second = mails()
    deliver(*second)
    third = mails()
    deliver(*third)
    assert len(over_http(api)) == 6
    assert set(Message.objects.filter(via="sparkpost-http").values_list("id", flat=True)) == {
        message.id for message in second + third
    }
    settings.EMAIL_PORT = port
    make_due()
    fourth = mails()
    deliver(*fourth)
    assert len(over_http(api)) == 6
    assert not TransportStatus.objects.exists()
    assert set(Message.objects.values_list("state", flat=True)) == {State.SENT}


def test_with_all_of_them_away_everything_stays_queued(api: ScriptedHttps) -> None:
    api.script = lambda request: Answer(429, {"errors": [{"message": "Too many requests"}]}, {"Retry-After": "60"})
    messages = mails()
    with pytest.raises(TransportUnavailable):
        deliver(*messages)
    assert set(Message.objects.values_list("state", "attempts")) == {(State.QUEUED, 0)}
    status = TransportStatus.objects.get(using="sparkpost-http")
    assert status.next_try_at > timezone.now() + timedelta(seconds=50)
    assert TransportStatus.objects.count() == 2


def test_what_is_in_doubt_over_smtp_does_not_go_over_http(
    api: ScriptedHttps, smtp: LocalSparkPost, settings: Any
) -> None:
    smtp.script = lambda exchange: KEEP_AND_HANG_UP if exchange.stage is Stage.CONTENT else None
    messages = mails(1)
    deliver(*messages)
    kept.close_connections()
    settings.EMAIL_PORT = 1
    make_due()
    other = mails(1)
    with pytest.raises(TransportUnavailable):
        deliver(*messages)
    deliver(*other)
    assert len(over_http(api)) == 1
    assert Message.objects.get(id=messages[0].id).state == State.QUEUED


def test_what_is_in_doubt_over_http_does_not_go_over_smtp(
    api: ScriptedHttps, smtp: LocalSparkPost, settings: Any
) -> None:
    port, settings.EMAIL_PORT = settings.EMAIL_PORT, 1
    api.script = lambda request: None
    messages = mails(1)
    with pytest.raises(TransportUnavailable):
        deliver(*messages)
    message = Message.objects.get()
    assert (message.state, message.crashes, message.via) == (State.DEFERRED, 1, "sparkpost-http")
    settings.EMAIL_PORT = port
    api.script = accept
    make_due()
    deliver(*messages)
    assert Message.objects.get().state == State.SENT
    assert len(api.requests) == 2
