"""SparkPost's webhook: who is let in, and which posts are stored."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client, override_settings
from django.utils import timezone

from congressy_mailer import tasks
from congressy_mailer.models import Event, Message, Suppression, WebhookBatch
from congressy_mailer.tracking import inbox
from tests.conftest import run_concurrently, wait_for
from tests.support.mails import queue_message
from tests.support.sparkpost_events import batch_body, event
from tests.support.webhook import BEARER, SECRETS, URL, basic, post, process_all

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("webhook_secrets")]


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
    message = queue_message()
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
    message = queue_message()
    assert post(batch_body(event("bounce", message, 1, bounce_class="10"))) == 200
    wait_for(lambda: Message.objects.get(pk=message.pk).delivery == "bounced")
    wait_for(lambda: WebhookBatch.objects.get().due_at is None)
    assert Suppression.objects.filter(address="ana@example.com").count() == 2


@pytest.mark.django_db(transaction=True)
def test_with_the_broker_down_it_is_stored_and_the_sweep_finds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[Any, ...]] = []
    monkeypatch.setattr("congressy_mailer.broker.sending.send", lambda *arguments, **options: False)
    message = queue_message()
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


RELAYED = {"msys": {"relay_message": {"rcpt_to": "in@example.com", "content": {"subject": "Oi"}, "webhook_id": "1"}}}


def test_inbound_mail_at_the_address_of_events_is_refused_and_names_the_address(
    published: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    response = Client().post(URL, json.dumps([RELAYED]), content_type="application/json", **BEARER)
    assert response.status_code == 400
    assert response.content.decode() == (
        f"This is inbound mail, and {URL} takes events: give the relay webhook a target of its own."
    )
    assert response.content.decode() in caplog.text
    assert not WebhookBatch.objects.exists()
    # Without credentials nobody is told anything.
    response = Client().post(URL, json.dumps([RELAYED]), content_type="application/json")
    assert (response.status_code, response.content) == (401, b"")


def test_inbound_mail_among_events_loses_no_event(published: list[str], caplog: pytest.LogCaptureFixture) -> None:
    message = queue_message()
    assert post(batch_body(RELAYED, event("delivery", message))) == 200
    process_all()
    message.refresh_from_db()
    assert message.delivery == "delivered"
    assert "give the relay webhook a target of its own" in caplog.text
