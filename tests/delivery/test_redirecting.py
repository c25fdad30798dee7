"""REDIRECT: a copy of production writes to nobody but those whom its settings name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core import mail
from django.core.exceptions import ImproperlyConfigured

from congressy_mailer import exceptions, send_bulk, send_mail
from congressy_mailer.backends import EmailBackend
from congressy_mailer.conf import mailer_settings
from congressy_mailer.models import Message, State
from congressy_mailer.testing import deliver_all
from congressy_mailer.testing.local_sparkpost.replies import Stage
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from tests.support.mails import deliver_slice

pytestmark = pytest.mark.django_db

DEV = "dev@congressy.com"
REDIRECT = {"to": [DEV], "allow": ["@congressy.net", "eva@example.com"], "subject": "[staging] "}
ALIASES = ["", "other"]


@pytest.fixture
def server(smtp_server: LocalSparkPost, settings: Any, published: list[str]) -> LocalSparkPost:
    """A mail server under two names, the first of which may fail over to the other."""
    options = {
        "host": "localhost", "port": smtp_server.port, "username": "SMTP_Injection",
        "password": smtp_server.password, "use_tls": True,
    }  # fmt: skip
    smtp = {"BACKEND": "django.core.mail.backends.smtp.EmailBackend", "OPTIONS": options}
    settings.CONGRESSY_MAILER = {
        **settings.CONGRESSY_MAILER, "TRANSPORTS": {"other": smtp, "default": smtp},
        "FAILOVER": ["other"], "REDIRECT": REDIRECT, "BACKEND_OPTIONS": {"using": "default"},
    }  # fmt: skip
    if hasattr(settings, "MAILERS"):
        settings.MAILERS = {"default": smtp}
    else:
        settings.EMAIL_BACKEND = "congressy_mailer.backends.EmailBackend"
    return smtp_server


@pytest.fixture(autouse=True)
def certificates(smtp_server: LocalSparkPost, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in smtp_server.environment().items():
        monkeypatch.setenv(name, value)


def ours(using: str) -> Message:
    return send_mail(
        "Olá", "Oi.", to=["Ana <ana@example.com>", "rui@congressy.net"], cc=["eva@example.com", "leo@example.com"],
        bcc=["bia@example.com"], using=using, sparkpost={"bcc": ["copy@example.com"]},
    )  # fmt: skip


def of_django(using: str) -> Message:
    one = mail.EmailMessage(
        "Olá", "Oi.", "mail@congressy.net", ["Ana <ana@example.com>", "rui@congressy.net"],
        cc=["eva@example.com", "leo@example.com"], bcc=["bia@example.com"],
        headers={"X-MSYS-API": '{"bcc": [{"email": "copy@example.com"}]}', "X-SMTPAPI": '{"to": ["copy@example.com"]}'},
    )  # fmt: skip
    EmailBackend(using=using or "default").send_messages([one])
    return Message.objects.get()


@pytest.mark.parametrize("using", ALIASES)
@pytest.mark.parametrize("send", [ours, of_django])
def test_nobody_else_gets_a_mail(
    server: LocalSparkPost, settings: Any, send: Callable[[str], Message], using: str
) -> None:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "SPARKPOST_HEADER": "always"}
    message = send(using)
    (delivered,) = deliver_all()
    assert delivered.state == State.SENT, delivered.reason
    (received,) = server.mailbox
    # Those that are allowed keep theirs, and whoever stands for the others gets one copy.
    assert set(received.recipients) == {"rui@congressy.net", "eva@example.com", DEV}
    assert len(received.recipients) == 3
    assert received.message["Subject"] == "[staging] Olá"
    assert received.message["X-Original-To"] == "ana@example.com, rui@congressy.net"
    assert received.message["X-Original-Cc"] == "eva@example.com, leo@example.com"
    assert received.message["To"] == "Ana <ana@example.com>, rui@congressy.net"
    assert received.message["Message-ID"] == message.message_id
    assert b"copy@example.com" not in received.content
    assert b"bia@example.com" not in received.content
    # The row says whom it was for, and where it went.
    assert delivered.envelope == [
        "ana@example.com", "rui@congressy.net", "eva@example.com", "leo@example.com", "bia@example.com",
    ]  # fmt: skip
    assert delivered.reply.endswith(f"(redirected to {DEV})")


def test_who_is_allowed_gets_mail_as_it_is_but_for_the_subject(server: LocalSparkPost) -> None:
    send_mail("Olá", "Oi.", to="rui@CONGRESSY.net")
    (delivered,) = deliver_all()
    (received,) = server.mailbox
    assert received.recipients == ("rui@congressy.net",)
    assert received.message["Subject"] == "[staging] Olá"
    assert received.message["X-Original-To"] is None
    assert "redirected" not in delivered.reply


def test_each_mail_of_a_batch_is_redirected(server: LocalSparkPost) -> None:
    batch = send_bulk(subject="Olá", message="Oi.", recipients=[f"a{n}@example.com" for n in range(3)])
    deliver_slice(batch)
    assert [one.recipients for one in server.mailbox] == [(DEV,)] * 3
    assert {one.message["X-Original-To"] for one in server.mailbox} == {f"a{n}@example.com" for n in range(3)}
    assert set(Message.objects.values_list("state", flat=True)) == {State.SENT}


def test_a_backend_that_takes_over_is_redirected_too(server: LocalSparkPost, settings: Any) -> None:
    transports = settings.CONGRESSY_MAILER["TRANSPORTS"]
    gone = {**transports["default"], "OPTIONS": {**transports["default"]["OPTIONS"], "port": 1}}
    settings.CONGRESSY_MAILER = {
        **settings.CONGRESSY_MAILER,
        "TRANSPORTS": {**transports, "default": gone},
    }
    if hasattr(settings, "MAILERS"):
        settings.MAILERS = {"default": gone}
    send_mail("Olá", "Oi.", to="ana@example.com")
    (delivered,) = deliver_all()
    assert (delivered.state, delivered.route) == (State.SENT, "other")
    assert [one.recipients for one in server.mailbox] == [(DEV,)]


def test_a_backend_that_looks_into_mails_sees_no_other_recipient(settings: Any, published: list[str]) -> None:
    transports = {"memory": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "TRANSPORTS": transports, "REDIRECT": {"to": [DEV]}}
    ours("memory")
    deliver_all()
    (given,) = mail.outbox
    assert (given.to, given.cc, given.bcc, given.recipients()) == ([DEV], [], [], [DEV])
    assert given.subject == "Olá"
    assert given.extra_headers["X-Original-To"] == "ana@example.com, rui@congressy.net"


@pytest.mark.parametrize(("code", "state"), [(451, State.DEFERRED), (550, State.FAILED)])
def test_what_is_said_of_the_redirected_copy_counts_for_the_recipients(
    server: LocalSparkPost, code: int, state: str
) -> None:
    server.script = lambda exchange: f"{code} 5.7.1 No." if exchange.stage is Stage.RCPT else None
    send_mail("Olá", "Oi.", to=["ana@example.com", "leo@example.com"])
    (delivered,) = deliver_all()
    assert delivered.state == state
    assert "ana@example.com" in delivered.reason
    assert "leo@example.com" in delivered.reason


def test_error_mail_is_redirected_too(server: LocalSparkPost, settings: Any) -> None:
    one = mail.EmailMessage("Broken", "A traceback.", settings.SERVER_EMAIL, ["root@example.com"])
    settings.ADMINS = [("Root", "root@example.com")]
    assert EmailBackend(using="default").send_messages([one]) == 1
    assert [one.recipients for one in server.mailbox] == [(DEV,)]
    assert not Message.objects.exists()


@pytest.mark.parametrize(
    "wrong",
    [[DEV], {}, {"to": []}, {"to": DEV}, {"to": ["x"]}, {"to": [DEV], "allow": "@x.com"}, {"to": [DEV], "cc": []}],
)
def test_a_redirect_that_cannot_be_meant_is_an_error(settings: Any, wrong: object) -> None:
    settings.CONGRESSY_MAILER = {"REDIRECT": wrong}
    with pytest.raises(ImproperlyConfigured, match="REDIRECT.* must be a dict with 'to'"):
        mailer_settings()


def test_nothing_is_sent_where_a_redirect_names_no_address(server: LocalSparkPost, settings: Any) -> None:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "REDIRECT": {"to": ["a@b@c"]}}
    send_mail("Olá", "Oi.", to="ana@example.com")
    with pytest.raises(exceptions.TransportUnavailable, match="so nothing is sent"):
        deliver_all()
    assert len(server.mailbox) == 0
