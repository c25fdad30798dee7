"""Where SparkPost posts its events: who is let in, what is stored, and when it is processed."""

from __future__ import annotations

import base64
import json
import logging
import sqlite3
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client, override_settings
from django.utils import timezone
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from congressy_mailer import outbox, send_mail, tasks
from congressy_mailer.models import Event, Message, Suppression, WebhookBatch
from congressy_mailer.tracking import inbox, processing, webhook
from tests.conftest import run_concurrently, wait_for
from tests.support.fuzzing import examples
from tests.support.sparkpost_events import batch_body, event

pytestmark = [pytest.mark.django_db]

URL = "/mailer/sparkpost/events/"
SECRETS = ["basic sparkpost:s3cret:with-colon", "bearer a-token", "token an-old-token"]
BEARER = {"HTTP_AUTHORIZATION": "Bearer a-token"}


@pytest.fixture(autouse=True)
def configured(settings: Any) -> None:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "WEBHOOK_SECRETS": SECRETS}
    webhook._next_log_at.clear()


def post(body: bytes, headers: dict[str, str] = BEARER, url: str = URL, **more: str) -> int:
    given: dict[str, Any] = {**headers, **more}
    response = Client(raise_request_exception=False).post(url, body, content_type="application/json", **given)
    return response.status_code


def basic(login: str) -> dict[str, str]:
    return {"HTTP_AUTHORIZATION": f"Basic {base64.b64encode(login.encode()).decode()}"}


def mail() -> Message:
    message = send_mail("Inscrição", "Oi", to=["ana@example.com"])
    assert isinstance(message, Message)
    return message


def process_all() -> None:
    WebhookBatch.objects.exclude(due_at=None).update(due_at=timezone.now())
    for ticket in inbox.due_batches():
        processing.process(ticket)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (BEARER, 200),
        ({"HTTP_AUTHORIZATION": "bearer  a-token "}, 200),
        (basic("sparkpost:s3cret:with-colon"), 200),
        ({"HTTP_X_MESSAGESYSTEMS_WEBHOOK_TOKEN": "an-old-token"}, 200),
        ({"HTTP_AUTHORIZATION": "Basic !", "HTTP_X_MESSAGESYSTEMS_WEBHOOK_TOKEN": "an-old-token"}, 200),
        ({}, 401),
        ({"HTTP_AUTHORIZATION": "Bearer a-toke"}, 401),
        ({"HTTP_AUTHORIZATION": "Bearer a-tokens"}, 401),
        ({"HTTP_AUTHORIZATION": "Bearer "}, 401),
        ({"HTTP_AUTHORIZATION": "a-token"}, 401),
        ({"HTTP_AUTHORIZATION": "Bearer an-old-token"}, 401),
        ({"HTTP_AUTHORIZATION": "Digest a-token"}, 401),
        ({"HTTP_X_MESSAGESYSTEMS_WEBHOOK_TOKEN": "a-token"}, 401),
        (basic("sparkpost:s3cret"), 401),
        (basic("sparkpost"), 401),
        ({"HTTP_AUTHORIZATION": "Basic sparkpost:s3cret:with-colon"}, 401),
    ],
)
def test_who_is_let_in(headers: dict[str, str], status: int, published: list[str]) -> None:
    assert post(batch_body(event("delivery")), headers) == status
    assert WebhookBatch.objects.count() == (status == 200)


def test_without_secrets_everybody_is_refused_and_one_line_says_so(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.CONGRESSY_MAILER = {}
    with caplog.at_level(logging.WARNING, "congressy_mailer"):
        assert [post(batch_body(event("delivery"))) for _ in range(5)] == [403] * 5
    (line,) = [record for record in caplog.records if record.name.startswith("congressy_mailer")]
    assert "WEBHOOK_SECRETS" in line.getMessage()
    assert not WebhookBatch.objects.exists()


def test_wrong_credentials_are_in_no_log_line(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(5):
        assert post(b"[]", {"HTTP_AUTHORIZATION": "Bearer mistyped-secret"}) == 401
    (line,) = [record for record in caplog.records if record.name.startswith("congressy_mailer")]
    assert "wrong credentials" in line.getMessage()
    assert "mistyped" not in caplog.text
    assert not any(secret.partition(" ")[2] in caplog.text for secret in SECRETS)


def test_it_wants_to_be_posted_to_and_redirects_nobody(published: list[str]) -> None:
    assert Client().get(URL).status_code == 405
    with override_settings(APPEND_SLASH=True, MIDDLEWARE=["django.middleware.common.CommonMiddleware"]):
        assert post(batch_body(event("delivery")), url=URL.rstrip("/")) == 200
    assert Client(enforce_csrf_checks=True).post(URL, b"[]", content_type="text/plain", **BEARER).status_code == 200  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "body", [b"[]", b'[{"msys": {}}]', b' [ {"msys": {} } ,{}]', b'[{"msys": {"message_event": {}}}]']
)
def test_a_ping_is_answered_and_not_stored(body: bytes, published: list[str]) -> None:
    assert post(body) == 200
    assert not WebhookBatch.objects.exists()
    assert published == []


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"null", b"17", b'"x"', b"{}", b"[1]", b"[[]]", b'[{"msys": {}}, null]', b"\xff\xfe\xfd", b"\x00",
        b"[" * 100_000, b'[{"a":' * 50_000, b"[" + b"9" * 5000 + b"]",
    ],
)  # fmt: skip
def test_what_is_no_batch_gets_one_line_without_what_it_says(body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    assert post(body) == 400
    (line,) = [record for record in caplog.records if record.name.startswith("congressy_mailer")]
    assert line.getMessage().startswith("A post to the webhook for SparkPost's events is answered 400. The body is")
    assert not WebhookBatch.objects.exists()


def test_what_is_too_large_is_refused_and_django_sets_no_smaller_limit(settings: Any, published: list[str]) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100
    body = batch_body(*(event("delivery") for _ in range(1000)))
    settings.CONGRESSY_MAILER = {"WEBHOOK_SECRETS": SECRETS, "WEBHOOK_MAX_BYTES": len(body)}
    assert post(body) == 200
    assert post(body + b" ") == 413
    assert post(body, CONTENT_LENGTH=str(len(body) - 1)) == 400
    assert post(body, CONTENT_LENGTH="1" * 5000) in (400, 413)
    assert WebhookBatch.objects.get().events == 1000


def test_a_compressed_body_is_refused() -> None:
    assert post(b"[]", HTTP_CONTENT_ENCODING="gzip") == 415


def test_the_same_batch_is_stored_and_published_once(
    published: list[str], django_capture_on_commit_callbacks: Any
) -> None:
    first, second = batch_body(event("delivery")), batch_body(event("open"))
    with django_capture_on_commit_callbacks(execute=True):
        for _ in range(3):
            assert post(first, HTTP_X_MESSAGESYSTEMS_BATCH_ID="b-1") == 200
        assert WebhookBatch.objects.count() == 1
        # Somebody has made a mistake with its id: nothing is lost by that.
        assert post(second, HTTP_X_MESSAGESYSTEMS_BATCH_ID="b-1") == 200
        # Without an id it is what it says.
        assert [post(first), post(first)] == [200, 200]
    assert WebhookBatch.objects.count() == 3
    assert published == ["process_webhooks"] * 3


@pytest.mark.database
@pytest.mark.django_db(transaction=True)
def test_the_same_batch_twice_at_the_same_moment_is_stored_once(published: list[str]) -> None:
    body = batch_body(event("delivery"))
    assert run_concurrently(lambda number: post(body)) == [200] * 4
    assert WebhookBatch.objects.count() == 1
    assert published == ["process_webhooks"]


@pytest.mark.database
def test_from_the_post_to_the_status(published: list[str]) -> None:
    message = mail()
    assert post(batch_body(event("delivery", message, 1), event("open", message, 2))) == 200
    (stored,) = WebhookBatch.objects.all()
    assert json.loads(inbox.body_of(stored))[0]["msys"]["message_event"]["type"] == "delivery"
    process_all()
    message.refresh_from_db()
    stored.refresh_from_db()
    assert message.delivery == "opened"
    assert (stored.body, stored.due_at, stored.problem, stored.events) == (None, None, "", 2)
    # It comes again: known, and nothing is stored.
    assert post(batch_body(event("delivery", message, 1))) == 200


@pytest.mark.django_db(transaction=True)
def test_a_real_worker_processes_it(start_worker: Callable[..., Any]) -> None:
    start_worker()
    message = mail()
    assert post(batch_body(event("bounce", message, 1, bounce_class="10"))) == 200
    wait_for(lambda: Message.objects.get(pk=message.pk).delivery == "bounced")
    wait_for(lambda: WebhookBatch.objects.get().due_at is None)
    assert Suppression.objects.filter(address="ana@example.com").count() == 2


@pytest.mark.django_db(transaction=True)
def test_with_the_broker_down_it_is_stored_and_the_sweep_finds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[Any, ...]] = []
    monkeypatch.setattr("congressy_mailer.broker.sending.send", lambda *arguments, **options: False)
    message = mail()
    assert post(batch_body(event("delivery", message))) == 200
    assert WebhookBatch.objects.get().due_at <= timezone.now()

    def send(*arguments: Any, **options: Any) -> bool:
        sent.append(arguments)
        return True

    monkeypatch.setattr("congressy_mailer.broker.sending.send", send)
    tasks.sweep(timezone.now().timestamp())
    (ticket,) = [arguments[1:] for arguments in sent if arguments[0] == "congressy_mailer.process_webhooks"]
    # What was published before counts no more.
    tasks.process_webhooks(ticket[0], (timezone.now() - timedelta(hours=1)).isoformat())
    assert not Event.objects.filter(type="delivered").exists()
    tasks.process_webhooks(*ticket)
    assert Event.objects.filter(type="delivered").count() == 1
    tasks.process_webhooks(*ticket)


@pytest.mark.database
@pytest.mark.django_db(transaction=True)
def test_of_several_tasks_for_a_batch_one_takes_it(published: list[str]) -> None:
    post(batch_body(event("delivery")))
    batch = WebhookBatch.objects.get()
    assert batch.due_at is not None
    ticket = (batch.id, batch.due_at)
    taken = [one for one in run_concurrently(lambda number: inbox.claim(ticket)) if one is not None]
    assert len(taken) == 1
    assert inbox.extend_lease(taken[0])
    WebhookBatch.objects.update(due_at=timezone.now())
    assert not inbox.extend_lease(taken[0])


def test_an_event_that_cannot_be_written_down_leaves_the_others_alone(
    published: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    message = mail()
    track = processing.track

    def poisonous(events: Any) -> int:
        if any(one.key == "666" for one in events):
            raise ValueError("about ana@example.com")
        return track(events)

    monkeypatch.setattr(processing, "track", poisonous)
    told = [
        event("open", message, at, event_id=str(number)) for number, at in zip(range(660, 670), range(10), strict=True)
    ]
    post(batch_body(*told))
    post(batch_body(event("delivery", message)))
    process_all()
    assert Event.objects.filter(type="opened").count() == 9
    assert Event.objects.filter(type="delivered").count() == 1
    aside = WebhookBatch.objects.exclude(problem="").get()
    assert aside.problem.startswith("Event 666 cannot be written down: ValueError in ")
    assert aside.due_at is None
    assert len(json.loads(inbox.body_of(aside))) == 10
    assert "is set aside" in caplog.text
    assert "ana@example.com" not in caplog.text + aside.problem


def test_a_batch_that_kills_its_workers_is_set_aside(published: list[str]) -> None:
    post(batch_body(event("delivery")))
    for _ in range(3):
        WebhookBatch.objects.update(due_at=timezone.now())
        assert inbox.claim(inbox.due_batches()[0]) is not None
    process_all()
    assert "3 workers have died" in WebhookBatch.objects.get().problem
    assert not Event.objects.exists()


def test_with_the_database_away_it_waits(published: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    post(batch_body(event("delivery")))
    track = processing.track

    def away(events: Any) -> int:
        raise OperationalError("away") from sqlite3.OperationalError("away")

    monkeypatch.setattr(processing, "track", away)
    for _ in range(5):
        with pytest.raises(OperationalError):
            process_all()
    assert WebhookBatch.objects.get().problem == ""
    monkeypatch.setattr(processing, "track", track)
    process_all()
    assert Event.objects.count() == 1


def test_a_large_batch_is_written_down_in_pieces_that_others_see(published: list[str]) -> None:
    message = mail()
    post(batch_body(*(event("open", message, at) for at in range(1203))))
    process_all()
    assert message.events.filter(type="opened").count() == 1203
    assert WebhookBatch.objects.get().due_at is None


@pytest.mark.database
def test_batches_and_events_of_others_are_purged(settings: Any, published: list[str]) -> None:
    for number, type in enumerate(["delivery", "open", "click"]):
        post(batch_body(event(type, event_id=f"1{number}")))
    done, waiting, recent = WebhookBatch.objects.order_by("received_at")
    for batch in (done, recent):
        assert batch.due_at is not None
        processing.process((batch.id, batch.due_at))
    long_ago = timezone.now() - timedelta(days=8)
    WebhookBatch.objects.exclude(id=recent.id).update(received_at=long_ago)
    Event.objects.filter(key="10").update(at=timezone.now() - timedelta(days=366))
    Event.objects.filter(key="12").update(at=timezone.now() - timedelta(days=364))
    while outbox.purge():
        pass
    # What still waits for a worker stays, however old it is.
    assert {one.id for one in WebhookBatch.objects.all()} == {waiting.id, recent.id}
    assert [one.key for one in Event.objects.all()] == ["12"]


# Whatever anybody posts

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=15,
)
_NAMES = [
    "type", "event_id", "timestamp", "rcpt_to", "raw_rcpt_to", "rcpt_meta", "rcpt_tags", "bounce_class", "raw_reason",
    "reason", "target_link_url", "campaign_id", "fbtype",
]  # fmt: skip
_VALUES = _JSON | st.sampled_from(
    ["bounce", "open", "spam_complaint", "10", 10, 25.0, "1e400", "nan", "-1", "99999999999999999999",
     "2026-01-01T00:00Z",
     "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "\0", "\ud800", "²", "a@b", "(" * 300 + "@", '"\\@x',
     {"mailer_id": "0" * 32}, {"mailer_id": []}, 10**400, True]
)  # fmt: skip
_EVENTS = st.lists(
    st.fixed_dictionaries(
        {"msys": st.dictionaries(st.text(max_size=5), st.dictionaries(st.sampled_from(_NAMES), _VALUES), max_size=2)}
    ),
    max_size=4,
)
_fuzz = settings(max_examples=examples(150), deadline=None, suppress_health_check=list(HealthCheck))


@_fuzz
@given(body=st.binary(max_size=300) | _JSON.map(lambda value: json.dumps(value).encode()))
def test_no_body_is_a_fault_of_the_server(published: list[str], body: bytes) -> None:
    assert post(body) in (200, 400)
    process_all()
    assert not WebhookBatch.objects.exclude(problem="").exists()


@pytest.mark.database
@_fuzz
@given(batch=_EVENTS)
def test_no_event_stops_a_batch(published: list[str], batch: list[Any]) -> None:
    assert post(json.dumps(batch).encode()) == 200
    process_all()
    assert not WebhookBatch.objects.exclude(problem="").exclude(due_at=None).exists()
    assert not WebhookBatch.objects.exclude(body=None).exists()


_VISIBLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=60)


@_fuzz
@given(authorization=_VISIBLE, token=_VISIBLE, scheme=st.sampled_from(["", "Basic ", "Bearer ", "bearer", "TOKEN "]))
def test_nobody_gets_in_by_chance(published: list[str], authorization: str, token: str, scheme: str) -> None:
    headers = {"HTTP_AUTHORIZATION": scheme + authorization, "HTTP_X_MESSAGESYSTEMS_WEBHOOK_TOKEN": token}
    assert post(batch_body(event("delivery")), headers) == 401


@_fuzz
@given(key=_VISIBLE, encoding=st.sampled_from(["", "identity", " Identity "]), length=st.text(max_size=5))
def test_no_header_is_a_fault_of_the_server(published: list[str], key: str, encoding: str, length: str) -> None:
    headers = {**BEARER, "HTTP_X_MESSAGESYSTEMS_BATCH_ID": key, "HTTP_CONTENT_ENCODING": encoding}
    body = batch_body(event("delivery"))
    assert post(body, headers) == 200
    # The test client calls it an error where more is announced than comes; a server waits, and gives up.
    assume(_number(length) <= len(body))
    assert post(body, headers, CONTENT_LENGTH=length) in (200, 400)


def _number(length: str) -> int:
    try:
        return int(length)
    except ValueError:
        return 0
