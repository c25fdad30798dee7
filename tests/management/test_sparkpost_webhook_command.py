"""``manage.py mailer sparkpost webhook``, against a SparkPost that answers as it is told; and what is checked."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client, override_settings
from django.urls import clear_url_caches
from django.utils import timezone, translation

from congressy_mailer import send_mail
from congressy_mailer.checks import web
from congressy_mailer.models import WebhookBatch
from congressy_mailer.sparkpost.events import parse_events
from congressy_mailer.tracking.recording import track
from tests.support.scripted_https import Answer, ScriptedHttps
from tests.support.sparkpost_events import event

SECRET = "a-long-password-of-the-webhook"


@pytest.fixture
def api(sparkpost_api: ScriptedHttps, settings: Any) -> ScriptedHttps:
    settings.CONGRESSY_MAILER = {
        **settings.CONGRESSY_MAILER,
        "WEBHOOK_SECRETS": [f"basic sparkpost:{SECRET}", "bearer the-old-one"],
        "SITE_URL": "https://www.congressy.com",
    }
    sparkpost_api.script = lambda request: Answer(body={"results": {"id": "12affc24", "links": []}})
    return sparkpost_api


def run(*arguments: str) -> str:
    out = io.StringIO()
    with translation.override("en"):
        call_command("mailer", "sparkpost", "webhook", *arguments, stdout=out)
    return out.getvalue()


def test_it_is_created_with_the_first_secret_and_posts_to_the_site(api: ScriptedHttps) -> None:
    said = run("create")
    (request,) = api.requests
    assert (request.method, request.path) == ("POST", "/api/v1/webhooks")
    assert request.json["target"] == "https://www.congressy.com/mailer/sparkpost/events/"
    assert request.json["auth_type"] == "basic"
    assert request.json["auth_credentials"] == {"username": "sparkpost", "password": SECRET}
    assert {"bounce", "out_of_band", "spam_complaint", "click", "link_unsubscribe"} <= set(request.json["events"])
    assert "12affc24" in said
    assert SECRET not in said


@pytest.mark.parametrize(
    ("secret", "headers"),
    [
        ("bearer abc", {"Authorization": "Bearer abc"}),
        ("token abc", {"X-MessageSystems-Webhook-Token": "abc"}),
    ],
)
def test_other_secrets_are_headers(api: ScriptedHttps, settings: Any, secret: str, headers: dict[str, str]) -> None:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "WEBHOOK_SECRETS": [secret]}
    run("update", "12affc24")
    (request,) = api.requests
    assert (request.method, request.path) == ("PUT", "/api/v1/webhooks/12affc24")
    assert request.json == {"auth_type": "none", "custom_headers": headers}


@pytest.mark.parametrize(
    "url", ["http://a.example/", "https://a.example:8443/", "a.example", "https://[", "https://:443"]
)
def test_where_sparkpost_would_not_post_needs_to_be_said_twice(api: ScriptedHttps, url: str) -> None:
    with pytest.raises(CommandError, match="port 443"):
        run("create", url)
    assert not api.requests
    run("create", url, "--any-url")
    assert api.requests[0].json["target"] == url


def test_listing_testing_and_deleting(api: ScriptedHttps) -> None:
    webhook = {
        "id": "12affc24", "name": "mine", "target": "https://a.example/", "auth_type": "basic",
        "auth_credentials": {"username": "sparkpost", "password": SECRET}, "last_failure": "2026-01-01",
    }  # fmt: skip
    api.script = lambda request: Answer(body={"results": [webhook]})
    assert run("list") == "12affc24  https://a.example/  mine  basic  last failure: 2026-01-01\n"
    api.script = lambda request: Answer(body={"results": {"response": {"status": 200, "body": ""}}})
    assert "answered that it took it" in run("test", "../x")
    assert api.requests[-1].path == "/api/v1/webhooks/..%2Fx/validate"
    api.script = lambda request: Answer(body={"results": {"response": {"status": 401}}})
    with pytest.raises(CommandError, match="401"):
        run("test", "12affc24")
    api.script = lambda request: Answer(204, b"")
    assert "deleted" in run("delete", "12affc24")
    assert api.requests[-1].method == "DELETE"


def test_what_sparkpost_says_is_told_without_secrets(api: ScriptedHttps, settings: Any) -> None:
    api.script = lambda request: Answer(400, {"errors": [{"message": "target is in use", "code": "1000"}]})
    with pytest.raises(CommandError, match="target is in use") as raised:
        run("create")
    assert SECRET not in str(raised.value)
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "WEBHOOK_SECRETS": []}
    with pytest.raises(CommandError, match="WEBHOOK_SECRETS"):
        run("create")
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "SITE_URL": None}
    with pytest.raises(CommandError, match="SITE_URL"):
        run("create")
    settings.CONGRESSY_MAILER = {}
    with pytest.raises(CommandError, match="SPARKPOST_API_KEY"):
        run("list")


def found(check: Any) -> list[str]:
    return [str(one.id) for one in check(None)]


def test_checks_of_the_webhook() -> None:
    assert found(web.check_webhook) == []
    with override_settings(CONGRESSY_MAILER={"SPARKPOST_API_KEY": "key"}):
        assert found(web.check_webhook) == ["congressy_mailer.W006"]
    with override_settings(CONGRESSY_MAILER={"WEBHOOK_SECRETS": ["bearer 12345"], "SPARKPOST_API_KEY": "key"}):
        assert found(web.check_webhook) == []
        assert found(web.check_webhook_secrets) == ["congressy_mailer.W007"]
        with override_settings(ROOT_URLCONF="django.contrib.auth.urls"):
            clear_url_caches()
            assert found(web.check_webhook) == ["congressy_mailer.E019"]
        clear_url_caches()
    with override_settings(CONGRESSY_MAILER={"WEBHOOK_SECRETS": [f"basic a:{SECRET}", f"token {SECRET}"]}):
        assert found(web.check_webhook_secrets) == []


@pytest.mark.django_db
def test_the_admin_shows_what_became_of_a_mail_and_what_was_set_aside(published: list[str]) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("admin"))
    message = send_mail("Oi", "Oi", to=["ana@example.com"])
    assert message is not None
    track(parse_events([event("bounce", message, 1, bounce_class="10", raw_reason="no such user")], timezone.now()))
    page = client.get(f"/admin/congressy_mailer/message/{message.pk}/change/").content.decode()
    assert "no such user" in page
    listed = "/admin/congressy_mailer/message/?status="
    assert str(message.pk) in client.get(f"{listed}bounced").content.decode()
    assert str(message.pk) not in client.get(f"{listed}complained").content.decode()
    for problem in ("", "It cannot be read."):
        WebhookBatch.objects.create(
            key=f"b{problem}", received_at=timezone.now(), problem=problem, body=b"confidential"
        )
    batches = client.get("/admin/congressy_mailer/webhookbatch/?problem=yes").content.decode()
    assert "It cannot be read." in batches
    aside = WebhookBatch.objects.exclude(problem="").get()
    detail = client.get(f"/admin/congressy_mailer/webhookbatch/{aside.pk}/change/").content.decode()
    assert "It cannot be read." in detail
    assert "confidential" not in detail
