"""What Django's SMTP backend meets at a server, and what outcome that is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from django.test import override_settings
from django.utils import timezone

from congressy_mailer.content.mime import OutgoingMail, compose
from congressy_mailer.content.templates import Rendered
from congressy_mailer.exceptions import TransportUnavailable
from congressy_mailer.models import Message
from congressy_mailer.retry import Reply
from congressy_mailer.transports.base import Composed, Outcome
from congressy_mailer.transports.django import DjangoTransport, open_backend
from tests.scripted_smtp import DROP, ScriptedSMTP


@pytest.fixture
def smtp() -> Iterator[ScriptedSMTP]:
    with (
        ScriptedSMTP() as server,
        override_settings(
            EMAIL_BACKEND="django.core.mail.backends.smtp.EmailBackend",
            EMAIL_HOST="127.0.0.1",
            EMAIL_PORT=server.port,
            EMAIL_HOST_USER="",
            EMAIL_HOST_PASSWORD="",
            EMAIL_USE_TLS=False,
        ),
    ):
        yield server


def mail(*recipients: str) -> OutgoingMail:
    now = timezone.now()
    message = Message(
        from_email="mail@congressy.net", to=list(recipients), message_id=f"<{uuid4()}@x>", created_at=now, queued_at=now
    )
    return compose(message, Rendered("Olá", "Texto\n.\n..dois", ""), [])


def deliver(*mails: OutgoingMail) -> list[Outcome]:
    transport = DjangoTransport(open_backend(""))
    try:
        return list(transport.deliver([Composed(uuid4(), one) for one in mails]))
    finally:
        transport.close()


def answering(**replies: str) -> Callable[[str], str | None]:
    return lambda command: replies.get("DOT" if command == "." else command.split(" ")[0].upper())


def test_accepted_with_the_servers_own_id(smtp: ScriptedSMTP) -> None:
    (outcome,) = deliver(mail("ana@example.com", "eva@example.com"))
    assert outcome.accepted == ("ana@example.com", "eva@example.com")
    assert outcome.reply == Reply(250, "2.0.0 OK 95/6F-30607-EA5D4555")
    assert b"\r\n.\r\n..dois" in smtp.contents[0]


def test_one_connection_for_many_mails(smtp: ScriptedSMTP) -> None:
    outcomes = deliver(*(mail("ana@example.com") for _ in range(5)))
    assert [outcome.accepted for outcome in outcomes] == [("ana@example.com",)] * 5
    assert len(smtp.sessions) == 1


def test_each_recipient_has_its_own_answer(smtp: ScriptedSMTP) -> None:
    smtp.answer = lambda command: (
        "550 5.1.1 nobody" if "rui@" in command else "451 4.7.1 later" if "eva@" in command else None
    )
    (outcome,) = deliver(mail("ana@example.com", "eva@example.com", "rui@example.com"))
    assert outcome.accepted == ("ana@example.com",)
    assert outcome.deferred == {"eva@example.com": Reply(451, "4.7.1 later")}
    assert outcome.rejected == {"rui@example.com": Reply(550, "5.1.1 nobody")}


def test_all_recipients_refused(smtp: ScriptedSMTP) -> None:
    smtp.answer = answering(RCPT="550 5.1.1 nobody")
    first, second = deliver(mail("ana@example.com"), mail("eva@example.com"))
    assert first.rejected == {"ana@example.com": Reply(550, "5.1.1 nobody")}
    assert second.rejected == {"eva@example.com": Reply(550, "5.1.1 nobody")}
    assert smtp.contents == []


@pytest.mark.parametrize(
    ("replies", "kind", "in_doubt"),
    [
        ({"MAIL": "451 4.3.0 later"}, "deferred", False),
        ({"MAIL": "553 5.1.8 bad sender"}, "rejected", False),
        ({"DATA": "452 4.3.1 full"}, "deferred", False),
        ({"DATA": "554 5.5.1 no"}, "rejected", False),
        ({"DOT": "421 4.3.3 smtpapi unable to generate unique transmission id"}, "deferred", False),
        ({"DOT": "550 5.6.0 JSON parsing error in X-MSYS-API"}, "rejected", False),
        ({"MAIL": DROP}, "deferred", False),
        ({"RCPT": DROP}, "deferred", False),
        ({"DATA": DROP}, "deferred", True),
        ({"DOT": DROP}, "deferred", True),
        ({"DOT": "what"}, "deferred", False),
    ],
)
def test_the_whole_mail_is_answered(smtp: ScriptedSMTP, replies: dict[str, str], kind: str, in_doubt: bool) -> None:
    smtp.answer = answering(**replies)
    (outcome,) = deliver(mail("ana@example.com"))
    assert set(getattr(outcome, kind)) == {"ana@example.com"}
    assert outcome.accepted == ()
    assert outcome.in_doubt is in_doubt


def test_after_an_error_the_next_mail_gets_a_new_connection(smtp: ScriptedSMTP) -> None:
    answers = iter([DROP])
    smtp.answer = lambda command: next(answers, None) if command == "." else None
    first, second = deliver(mail("ana@example.com"), mail("eva@example.com"))
    assert set(first.deferred) == {"ana@example.com"}
    assert second.accepted == ("eva@example.com",)
    assert len(smtp.sessions) == 2


@pytest.mark.parametrize(
    "replies",
    [
        {"CONNECT": "421 4.3.2 closing"},
        {"CONNECT": DROP},
        {"EHLO": DROP},
        {"MAIL": "530 5.7.0 Authentication required"},
        {"MAIL": "550 5.7.1 Unconfigured Sending Domain <congressy.net>"},
        {"DOT": "550 5.7.1 Unconfigured Sending Domain <congressy.net>"},
    ],
)
def test_a_fault_of_the_server_or_the_account_is_no_mails_fault(smtp: ScriptedSMTP, replies: dict[str, str]) -> None:
    smtp.answer = answering(**replies)
    with pytest.raises(TransportUnavailable):
        deliver(mail("ana@example.com"))


def test_a_refused_login_says_what_to_check(smtp: ScriptedSMTP) -> None:
    smtp.answer = lambda command: (
        "250-scripted\r\n250 AUTH LOGIN" if command.upper().startswith("EHLO") else "535 5.7.8 Sorry." if "AUTH" in command else None
    )
    with (
        override_settings(EMAIL_HOST_USER="SMTP_Injection", EMAIL_HOST_PASSWORD="key-that-must-not-show"),
        pytest.raises(TransportUnavailable, match="refuses the login: 535 5.7.8 Sorry.*EMAIL_HOST_PASSWORD") as raised,
    ):
        deliver(mail("ana@example.com"))
    assert "key-that-must-not-show" not in str(raised.value)


def test_nobody_listens() -> None:
    settings: dict[str, Any] = {
        "EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
        "EMAIL_HOST": "127.0.0.1",
        "EMAIL_PORT": 1,
    }
    with override_settings(**settings), pytest.raises(TransportUnavailable, match="cannot be reached"):
        deliver(mail("ana@example.com"))


def test_a_silent_server_does_not_hold_a_worker_for_ever(smtp: ScriptedSMTP) -> None:
    assert getattr(open_backend(""), "timeout") == 60  # noqa: B009
    with override_settings(EMAIL_TIMEOUT=7):
        assert getattr(open_backend(""), "timeout") == 7  # noqa: B009


def test_an_unknown_alias_is_unavailable() -> None:
    with pytest.raises(TransportUnavailable, match="'nowhere' cannot be made"):
        open_backend("nowhere")


def test_transports_of_our_own_setting() -> None:
    locmem = {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}
    with override_settings(CONGRESSY_MAILER={"TRANSPORTS": {"memory": locmem}}):
        assert type(open_backend("memory")).__module__ == "django.core.mail.backends.locmem"
