"""The transport over Django's own backends and those of others; what a reply comes to is in ``test_outcomes.py``."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.mail.backends.base import BaseEmailBackend
from django.test import override_settings

from congressy_mailer.exceptions import TransportUnavailable
from congressy_mailer.replies import Outcome, Reply
from congressy_mailer.testing.local_sparkpost.replies import HANG_UP, KEEP_AND_HANG_UP, Stage
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from congressy_mailer.transports.host_backends import open_backend
from tests.support.transports import hand_over_by_django, outgoing

pytestmark = pytest.mark.email_settings


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


def test_accepted_with_the_servers_own_id(smtp: LocalSparkPost) -> None:
    (outcome,) = hand_over_by_django(outgoing("ana@example.com", "eva@example.com"))
    assert outcome.accepted == ("ana@example.com", "eva@example.com")
    (received,) = smtp.mailbox
    assert outcome.reply == Reply(250, f"2.0.0 OK {received.queue_id}")
    assert b"\r\n.\r\n..dois" in received.content


def test_one_connection_for_many_mails(smtp: LocalSparkPost) -> None:
    outcomes = hand_over_by_django(*(outgoing() for _ in range(5)))
    assert [outcome.accepted for outcome in outcomes] == [("ana@example.com",)] * 5
    assert smtp.connections == 1


def test_a_refused_login_says_what_to_check(smtp: LocalSparkPost) -> None:
    with (
        override_settings(EMAIL_HOST_PASSWORD="key-that-must-not-show"),
        pytest.raises(TransportUnavailable, match="refuses the login: 535 5.7.8 Sorry.*EMAIL_HOST_PASSWORD") as raised,
    ):
        hand_over_by_django(outgoing())
    assert "key-that-must-not-show" not in str(raised.value)


def test_a_certificate_that_nobody_vouches_for_is_refused(
    smtp: LocalSparkPost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(TransportUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        hand_over_by_django(outgoing())
    assert len(smtp.mailbox) == 0


def test_nobody_listens() -> None:
    settings: dict[str, Any] = {
        "EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
        "EMAIL_HOST": "127.0.0.1",
        "EMAIL_PORT": 1,
    }
    with override_settings(**settings), pytest.raises(TransportUnavailable, match="cannot be reached"):
        hand_over_by_django(outgoing())


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


class Foreign(BaseEmailBackend):
    """A backend of somebody else's, which connects by itself and shows no session."""

    raises: Exception = Exception()

    def send_messages(self, email_messages: Any) -> int:
        raise self.raises


def from_a_foreign_backend(error: Exception, *recipients: str) -> Outcome:
    backend = Foreign()
    backend.raises = error
    (outcome,) = hand_over_by_django(outgoing(*recipients), backend=backend)
    return outcome


@pytest.mark.parametrize(
    ("error", "kind", "in_doubt"),
    [
        (smtplib.SMTPSenderRefused(553, b"5.1.8 no", "x"), "rejected", False),
        (smtplib.SMTPSenderRefused(451, b"4.3.0 later", "x"), "deferred", False),
        (smtplib.SMTPSenderRefused(251, b"what", "x"), "deferred", False),
        (smtplib.SMTPSenderRefused(-1, b"", "x"), "deferred", False),
        (smtplib.SMTPDataError(554, b"5.7.1 spam"), "rejected", False),
        (smtplib.SMTPDataError(451, b"4.3.0 later"), "deferred", False),
        (smtplib.SMTPDataError(250, b"instead of 354, or of what?"), "deferred", True),
        (smtplib.SMTPDataError(-1, b"garbage"), "deferred", True),
        (smtplib.SMTPResponseException(500, "Line too long."), "deferred", True),
        (smtplib.SMTPServerDisconnected("Connection unexpectedly closed"), "deferred", True),
        (smtplib.SMTPRecipientsRefused({"ana@example.com": (550, b"5.1.1 nobody")}), "rejected", False),
        (smtplib.SMTPRecipientsRefused({"ana@example.com": (252, b"perhaps")}), "deferred", False),
        (smtplib.SMTPRecipientsRefused({"eva@example.com": (421, b"bye")}), "deferred", False),
        (KeyError("unexpected"), "deferred", True),
        (ValueError("NUL \x00 and half a character \ud800"), "deferred", True),
    ],
    ids=repr,
)
def test_what_a_foreign_backend_raises(error: Exception, kind: str, in_doubt: bool) -> None:
    outcome = from_a_foreign_backend(error, "ana@example.com")
    (reply,) = getattr(outcome, kind).values()
    assert reply.text.isprintable()
    assert outcome.accepted == ()
    assert outcome.in_doubt is in_doubt


@pytest.mark.parametrize(
    "error",
    [
        smtplib.SMTPConnectError(554, b"5.3.2 closed"),
        smtplib.SMTPHeloError(550, b"5.7.1 go away"),
        smtplib.SMTPAuthenticationError(454, b"4.7.0 not now"),
        smtplib.SMTPAuthenticationError(535, b"5.7.8 Sorry."),
        smtplib.SMTPDataError(530, b"5.7.0 log in first"),
    ],
    ids=repr,
)
def test_a_foreign_backend_that_cannot_even_begin_is_unavailable(error: smtplib.SMTPResponseException) -> None:
    with pytest.raises(TransportUnavailable, match=f"{error.smtp_code} "):
        from_a_foreign_backend(error, "ana@example.com")


@pytest.mark.parametrize(
    ("stage", "said", "in_doubt", "code"),
    [
        (Stage.CONTENT, "451 4.3.0 later", False, 451),
        (Stage.MAIL, HANG_UP, False, None),
        (Stage.CONTENT, KEEP_AND_HANG_UP, True, None),
    ],
)
def test_a_backend_that_fails_silently_is_not_believed(
    smtp: LocalSparkPost, stage: Stage, said: Any, in_doubt: bool, code: int | None
) -> None:
    smtp.script = lambda exchange: said if exchange.stage is stage else None
    backend = open_backend("")
    backend.fail_silently = True
    (outcome,) = hand_over_by_django(outgoing(), backend=backend)
    assert set(outcome.deferred) == {"ana@example.com"}
    assert (outcome.reply.code, outcome.in_doubt) == (code, in_doubt)
