"""Over which mail backend a mail goes: real SMTP that is stopped and started, and SparkPost's API over real HTTPS."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Collection, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.db import connections
from django.utils import timezone

from congressy_mailer import outbox, send_bulk
from congressy_mailer.delivery.recording import Recorder
from congressy_mailer.delivery.slice import Delivery
from congressy_mailer.exceptions import TransportUnavailable
from congressy_mailer.models import Message, State, TransportStatus
from congressy_mailer.replies import Outcome
from congressy_mailer.testing.local_sparkpost.replies import KEEP_AND_HANG_UP, Stage
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from congressy_mailer.transports import pool
from tests.support.mails import deliver, deliver_slice, people, queue, queue_batch, state
from tests.support.scripted_https import Answer, Request, ScriptedHttps

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
    pool.close_connections()
    server.__exit__(None, None, None)


def over_http(api: ScriptedHttps) -> list[str]:
    return [recipient["address"]["email"] for request in api.requests for recipient in request.json["recipients"]]


def make_due() -> None:
    """The time to try again has come."""
    TransportStatus.objects.update(next_try_at=timezone.now())
    Message.objects.filter(state=State.DEFERRED).update(due_at=timezone.now())


def test_a_mail_that_names_it_goes_over_http(api: ScriptedHttps) -> None:
    (key,) = queue(using="sparkpost-http", subject="Olá {{x}}", campaign="abril", bcc=["eva@example.com"])
    deliver([key])
    message = Message.objects.get()
    assert (message.state, message.reply, message.route) == (State.SENT, "200 OK 1166", "")
    request = api.requests[0].json
    assert request["campaign_id"] == "abril"
    mail = email.message_from_string(request["content"]["email_rfc822"], policy=email.policy.default)
    assert mail["Message-ID"] == message.message_id
    assert mail["Bcc"] is None
    assert over_http(api) == ["ana@example.com", "eva@example.com"]


def test_one_call_for_a_batch_and_an_end_for_each(api: ScriptedHttps) -> None:
    def script(request: Request) -> Answer:
        error = {"code": "1902", "message": "Message generation rejected", "description": "p3@example.com"}
        results = {"id": "7", "total_rejected_recipients": 1, "rcpt_to_errors": [error]}
        return Answer(body={"results": results})

    api.script = script
    batch = queue_batch(20, using="sparkpost-http")
    deliver_slice(batch)
    assert len(api.requests) == 1
    states = {message.to[0]: message.state for message in batch.messages.all()}
    assert states.pop("p3@example.com") == State.FAILED
    assert set(states.values()) == {State.SENT}


def test_a_call_that_is_refused_as_a_whole_is_made_for_each_alone(api: ScriptedHttps) -> None:
    def script(request: Request) -> Answer:
        if "p3@example.com" in request.body.decode():
            return Answer(422, {"errors": [{"code": "1300", "message": "invalid data"}]})
        return accept(request)

    api.script = script
    batch = queue_batch(5, using="sparkpost-http")
    deliver_slice(batch)
    states = {message.to[0]: message.state for message in batch.messages.all()}
    assert states.pop("p3@example.com") == State.FAILED
    assert set(states.values()) == {State.SENT}
    assert len(api.requests) == 6


def test_another_takes_over_and_gives_back(api: ScriptedHttps, smtp: LocalSparkPost, settings: Any) -> None:
    first = queue(3)
    deliver(first)
    assert over_http(api) == []
    pool.close_connections()
    port, settings.EMAIL_PORT = settings.EMAIL_PORT, 1
    second = queue(3)
    deliver(second)
    third = queue(3)
    deliver(third)
    assert len(over_http(api)) == 6
    assert set(Message.objects.filter(route="sparkpost-http").values_list("id", flat=True)) == {*second, *third}
    settings.EMAIL_PORT = port
    make_due()
    fourth = queue(3)
    deliver(fourth)
    assert len(over_http(api)) == 6
    assert not TransportStatus.objects.exists()
    assert set(Message.objects.values_list("state", flat=True)) == {State.SENT}


def test_with_all_of_them_away_everything_stays_queued(api: ScriptedHttps) -> None:
    api.script = lambda request: Answer(429, {"errors": [{"message": "Too many requests"}]}, {"Retry-After": "60"})
    ids = queue(3)
    with pytest.raises(TransportUnavailable):
        deliver(ids)
    assert set(Message.objects.values_list("state", "attempts")) == {(State.QUEUED, 0)}
    status = TransportStatus.objects.get(using="sparkpost-http")
    assert status.next_try_at > timezone.now() + timedelta(seconds=50)
    assert TransportStatus.objects.count() == 2


def test_everything_waits_for_the_one_that_is_tried_first(api: ScriptedHttps) -> None:
    api.script = lambda request: Answer(429, {"errors": [{"message": "Too many requests"}]}, {"Retry-After": "9" * 400})
    ids = queue(3)
    with pytest.raises(TransportUnavailable) as raised:
        deliver(ids)
    first, last = TransportStatus.objects.get(using=""), TransportStatus.objects.get(using="sparkpost-http")
    assert first.next_try_at < last.next_try_at
    # To the microsecond: it is found by that when the backend can be used again.
    assert set(Message.objects.values_list("state", "due_at")) == {(State.QUEUED, first.next_try_at)}
    assert raised.value.retry_in is not None
    assert timezone.now() + raised.value.retry_in < last.next_try_at
    # Also where both are known to be away.
    Message.objects.update(due_at=timezone.now())
    deliver(ids)
    assert not Message.objects.exclude(state=State.QUEUED, due_at__lt=last.next_try_at).exists()


@pytest.mark.parametrize("end", ["lease", "stop"])
def test_what_was_taken_and_not_begun_when_the_time_is_over_is_put_back(api: ScriptedHttps, end: str) -> None:
    people = [(f"{n}@example.com", {"lines": "\n" * n}) for n in range(6)]
    batch = send_bulk(subject="Oi", template="mail/lines", recipients=people, using="sparkpost-http")
    delivery = Delivery(outbox.new_claim_token("task"))

    def script(request: Request) -> Answer:
        if len(api.requests) == 2:
            if end == "lease":
                delivery.deadlines.lease_ends = 0.0
            else:
                delivery.deadlines.stop()
        return accept(request)

    api.script = script
    delivery.run_batch(batch.id, batch.generation)
    assert len(api.requests) == 2
    assert sorted(batch.messages.values_list("state", "crashes")) == [(State.QUEUED, 0)] * 4 + [(State.SENT, 0)] * 2
    deliver_slice(batch)
    assert sorted(over_http(api)) == [f"{n}@example.com" for n in range(6)]


@pytest.mark.parametrize(("limit", "sizes"), [(None, [10, 40, 150]), ("100000/s", [10] * 20)])
def test_while_there_is_time_more_and_more_share_a_call(
    api: ScriptedHttps, settings: Any, monkeypatch: pytest.MonkeyPatch, limit: str | None, sizes: list[int]
) -> None:
    # However long composing takes on a busy machine.
    monkeypatch.setattr("congressy_mailer.transports.sparkpost.call_groups._MAX_PACED_SECONDS", 60.0)
    settings.CONGRESSY_MAILER = {
        **settings.CONGRESSY_MAILER, "SLICE_SIZE": 10, "TIME_SLICE": timedelta(minutes=1), "RATE_LIMIT": limit,
    }  # fmt: skip
    batch = queue_batch(200, using="sparkpost-http")
    deliver_slice(batch)
    assert [len(request.json["recipients"]) for request in api.requests] == sizes
    assert set(batch.messages.values_list("state", flat=True)) == {State.SENT}


def test_what_a_crash_is_to_leave_to_a_person_is_written_down_once_for_each_call(
    api: ScriptedHttps, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "ON_CRASH": "hold"}
    begun: list[int] = []
    started: list[Collection[UUID]] = []
    start = outbox.start_handover

    def note(token: str, ids: Collection[UUID]) -> set[UUID]:
        started.append(ids)
        if len(started) == 1:
            # One of them is another worker's by now.
            Message.objects.filter(id=lost).update(token="another")
        return start(token, ids)

    def script(request: Request) -> Answer:
        begun.append(Message.objects.exclude(handover_started_at=None).count())
        # The server's thread has a connection of its own.
        connections.close_all()
        return accept(request)

    api.script = script
    batch = queue_batch(20, using="sparkpost-http")
    lost = batch.messages.order_by("id")[5].pk
    monkeypatch.setattr(outbox, "start_handover", note)
    deliver_slice(batch)
    assert [len(ids) for ids in started] == [20]
    assert begun == [19]
    assert len(over_http(api)) == 19
    assert Message.objects.get(pk=lost).token == "another"


def test_a_calls_mails_are_all_noted_before_the_first_of_them_is_recorded(
    api: ScriptedHttps, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[UUID] = []
    at_record: list[int] = []
    note, record = Recorder.note, Recorder.record

    def noting(recorder: Recorder, message: Message, outcome: Outcome) -> None:
        noted.append(message.pk)
        note(recorder, message, outcome)

    def recording(recorder: Recorder, message: Message, outcome: Outcome) -> timedelta | None:
        at_record.append(len(noted))
        return record(recorder, message, outcome)

    monkeypatch.setattr(Recorder, "note", noting)
    monkeypatch.setattr(Recorder, "record", recording)
    batch = queue_batch(20, using="sparkpost-http")
    deliver_slice(batch)
    assert at_record == [20] * 20


def test_one_who_is_there_twice_costs_one_more_call(api: ScriptedHttps) -> None:
    twice = [*people(20), "P3@EXAMPLE.com"]
    batch = send_bulk(twice, subject="Oi", message="Olá", using="sparkpost-http")
    deliver_slice(batch)
    assert len(api.requests) == 2
    assert len(over_http(api)) == 21


def test_a_copy_that_is_refused_is_not_the_recipient(api: ScriptedHttps) -> None:
    def script(request: Request) -> Answer:
        error = {"code": "1902", "message": "Message generation rejected", "description": "eva@example.com"}
        results = {
            "id": "7", "total_accepted_recipients": 1, "total_rejected_recipients": 1, "rcpt_to_errors": [error],
        }  # fmt: skip
        return Answer(body={"results": results})

    api.script = script
    (key,) = queue(using="sparkpost-http", sparkpost={"bcc": ["eva@example.com"]})
    deliver([key])
    assert Message.objects.get().state == State.SENT


@pytest.mark.parametrize("answer", [Answer(body={}), Answer(body=[]), Answer(204), Answer(body=b"[" * 200_000)])
def test_an_answer_that_says_nothing_of_the_mail_leaves_it_in_doubt(api: ScriptedHttps, answer: Answer) -> None:
    api.script = lambda request: answer
    ids = queue(2, using="sparkpost-http")
    with pytest.raises(TransportUnavailable):
        deliver(ids)
    assert sorted(Message.objects.values_list("state", "crashes")) == [(State.DEFERRED, 1), (State.QUEUED, 0)]


def test_a_refusal_that_is_none_of_sparkposts_gives_no_mail_up(api: ScriptedHttps) -> None:
    api.script = lambda request: Answer(400, b"<h1>Bad Request</h1>")
    batch = queue_batch(3, using="sparkpost-http")
    deliver_slice(batch)
    assert set(batch.messages.values_list("state", "crashes")) == {(State.DEFERRED, 0)}


def test_what_is_in_doubt_over_smtp_does_not_go_over_http(
    api: ScriptedHttps, smtp: LocalSparkPost, settings: Any
) -> None:
    smtp.script = lambda exchange: KEEP_AND_HANG_UP if exchange.stage is Stage.CONTENT else None
    ids = queue()
    deliver(ids)
    pool.close_connections()
    settings.EMAIL_PORT = 1
    make_due()
    other = queue()
    with pytest.raises(TransportUnavailable):
        deliver(ids)
    deliver(other)
    assert len(over_http(api)) == 1
    assert state(ids[0]) == State.QUEUED


def test_what_is_in_doubt_over_http_does_not_go_over_smtp(
    api: ScriptedHttps, smtp: LocalSparkPost, settings: Any
) -> None:
    port, settings.EMAIL_PORT = settings.EMAIL_PORT, 1
    api.script = lambda request: None
    ids = queue()
    with pytest.raises(TransportUnavailable):
        deliver(ids)
    message = Message.objects.get()
    assert (message.state, message.crashes, message.route) == (State.DEFERRED, 1, "sparkpost-http")
    settings.EMAIL_PORT = port
    api.script = accept
    make_due()
    deliver(ids)
    assert Message.objects.get().state == State.SENT
    assert len(api.requests) == 2


def test_an_error_while_one_outcome_is_recorded_loses_no_other_of_the_same_call(
    api: ScriptedHttps, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = queue_batch(6, using="sparkpost-http")

    class Interrupted(BaseException):
        """What ``except Exception`` of a signal's dispatcher does not see."""

    calls = iter([Interrupted])

    def observe(*arguments: object) -> None:
        for error in calls:
            raise error

    monkeypatch.setattr("congressy_mailer.throttling.RateLimiter.observe_replies", observe)
    deliver_slice(batch)
    assert next(calls, None) is None
    sent_to = [recipient["address"]["email"] for request in api.requests for recipient in request.json["recipients"]]
    assert sorted(sent_to) == people(6)
    assert set(Message.objects.values_list("state", flat=True)) == {State.SENT}
