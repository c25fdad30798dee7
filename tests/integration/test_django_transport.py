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
from demo.local_sparkpost import HANG_UP, KEEP_AND_HANG_UP, Exchange, LocalSparkPost, Stage


@pytest.fixture
def smtp(smtp_server: LocalSparkPost, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalSparkPost]:
    """A server that this process is configured for."""
    for name, value in smtp_server.environment().items():
        monkeypatch.setenv(name, value)
    with override_settings(
        EMAIL_BACKEND="django.core.mail.backends.smtp.EmailBackend",
        EMAIL_PORT=smtp_server.port,
        EMAIL_HOST_PASSWORD=smtp_server.password,
    ):
        yield smtp_server


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


def at(stage: Stage, answer: Any) -> Callable[[Exchange], Any]:
    """A script that says this at one stage, and nothing unusual anywhere else."""
    return lambda exchange: answer if exchange.stage is stage else None


def test_accepted_with_the_servers_own_id(smtp: LocalSparkPost) -> None:
    (outcome,) = deliver(mail("ana@example.com", "eva@example.com"))
    assert outcome.accepted == ("ana@example.com", "eva@example.com")
    (received,) = smtp.mailbox
    assert outcome.reply == Reply(250, f"2.0.0 OK {received.queue_id}")
    assert b"\r\n.\r\n..dois" in received.content


def test_one_connection_for_many_mails(smtp: LocalSparkPost) -> None:
    outcomes = deliver(*(mail("ana@example.com") for _ in range(5)))
    assert [outcome.accepted for outcome in outcomes] == [("ana@example.com",)] * 5
    assert smtp.connections == 1


def test_each_recipient_has_its_own_answer(smtp: LocalSparkPost) -> None:
    answers = {"eva@example.com": "451 4.7.1 later", "rui@example.com": "550 5.1.1 nobody"}
    smtp.script = lambda exchange: answers.get(exchange.recipient) if exchange.stage is Stage.RCPT else None
    (outcome,) = deliver(mail("ana@example.com", "eva@example.com", "rui@example.com"))
    assert outcome.accepted == ("ana@example.com",)
    assert outcome.deferred == {"eva@example.com": Reply(451, "4.7.1 later")}
    assert outcome.rejected == {"rui@example.com": Reply(550, "5.1.1 nobody")}


def test_all_recipients_refused(smtp: LocalSparkPost) -> None:
    smtp.script = at(Stage.RCPT, "550 5.1.1 nobody")
    first, second = deliver(mail("ana@example.com"), mail("eva@example.com"))
    assert first.rejected == {"ana@example.com": Reply(550, "5.1.1 nobody")}
    assert second.rejected == {"eva@example.com": Reply(550, "5.1.1 nobody")}
    assert len(smtp.mailbox) == 0


@pytest.mark.parametrize(
    ("stage", "answer", "kind", "in_doubt"),
    [
        (Stage.MAIL, "451 4.3.0 later", "deferred", False),
        (Stage.MAIL, "553 5.1.8 bad sender", "rejected", False),
        (Stage.DATA, "452 4.3.1 full", "deferred", False),
        (Stage.DATA, "554 5.5.1 no", "rejected", False),
        (Stage.CONTENT, "421 4.3.3 [internal] smtpapi unable to generate unique transmission id", "deferred", False),
        (Stage.CONTENT, "550 5.6.0 JSON parsing error in X-MSYS-API", "rejected", False),
        (Stage.MAIL, HANG_UP, "deferred", False),
        (Stage.RCPT, HANG_UP, "deferred", False),
        (Stage.DATA, HANG_UP, "deferred", False),
        (Stage.CONTENT, HANG_UP, "deferred", True),
        (Stage.CONTENT, KEEP_AND_HANG_UP, "deferred", True),
    ],
)
def test_the_whole_mail_is_answered(smtp: LocalSparkPost, stage: Stage, answer: Any, kind: str, in_doubt: bool) -> None:
    smtp.script = at(stage, answer)
    (outcome,) = deliver(mail("ana@example.com"))
    assert set(getattr(outcome, kind)) == {"ana@example.com"}
    assert outcome.accepted == ()
    assert outcome.in_doubt is in_doubt


def test_after_an_error_the_next_mail_gets_a_new_connection(smtp: LocalSparkPost) -> None:
    answers = iter([HANG_UP])
    smtp.script = lambda exchange: next(answers, None) if exchange.stage is Stage.CONTENT else None
    first, second = deliver(mail("ana@example.com"), mail("eva@example.com"))
    assert set(first.deferred) == {"ana@example.com"}
    assert second.accepted == ("eva@example.com",)
    assert smtp.connections == 2


@pytest.mark.parametrize(
    ("stage", "answer"),
    [
        (Stage.CONNECT, "421 4.3.2 closing"),
        (Stage.CONNECT, HANG_UP),
        (Stage.HELLO, HANG_UP),
        (Stage.STARTTLS, "454 4.7.0 TLS not available"),
        (Stage.STARTTLS, HANG_UP),
        (Stage.AUTH, "454 4.7.0 temporary authentication failure"),
        (Stage.AUTH, HANG_UP),
        (Stage.MAIL, "530 5.7.0 Authentication required"),
    ],
)
def test_a_fault_of_the_server_or_the_account_is_no_mails_fault(
    smtp: LocalSparkPost, stage: Stage, answer: Any
) -> None:
    smtp.script = at(stage, answer)
    with pytest.raises(TransportUnavailable):
        deliver(mail("ana@example.com"))


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.CONTENT])
def test_a_domain_that_is_not_set_up_is_the_senders_fault_and_no_mails(smtp: LocalSparkPost, stage: Stage) -> None:
    smtp.script = at(stage, "550 5.7.1 Unconfigured Sending Domain <congressy.net>")
    (outcome,) = deliver(mail("ana@example.com"))
    assert outcome.sender_refused
    assert (outcome.accepted, outcome.deferred, outcome.rejected) == ((), {}, {})
    assert outcome.reply.code == 550


def test_a_refused_login_says_what_to_check(smtp: LocalSparkPost) -> None:
    with (
        override_settings(EMAIL_HOST_PASSWORD="key-that-must-not-show"),
        pytest.raises(TransportUnavailable, match="refuses the login: 535 5.7.8 Sorry.*EMAIL_HOST_PASSWORD") as raised,
    ):
        deliver(mail("ana@example.com"))
    assert "key-that-must-not-show" not in str(raised.value)


def test_a_certificate_that_nobody_vouches_for_is_refused(
    smtp: LocalSparkPost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(TransportUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        deliver(mail("ana@example.com"))
    assert len(smtp.mailbox) == 0


def test_nobody_listens() -> None:
    settings: dict[str, Any] = {
        "EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
        "EMAIL_HOST": "127.0.0.1",
        "EMAIL_PORT": 1,
    }
    with override_settings(**settings), pytest.raises(TransportUnavailable, match="cannot be reached"):
        deliver(mail("ana@example.com"))


def test_a_silent_server_does_not_hold_a_worker_for_ever(smtp: LocalSparkPost) -> None:
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
