"""What is stored of a mail, by what a mail server has answered."""

from __future__ import annotations

import re

import pytest
from django.utils import timezone

from congressy_mailer import send_mail
from congressy_mailer.exceptions import TransportUnavailable
from congressy_mailer.models import Message, State, TransportStatus
from congressy_mailer.outbox.backoff import FLOOR
from congressy_mailer.testing.local_sparkpost.replies import HANG_UP, KEEP_AND_HANG_UP, Raw
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from congressy_mailer.transports import pool
from tests.support.mails import deliver, queue
from tests.support.server_answers import (
    ACCOUNT,
    ANA,
    EVA,
    JSON_ERROR,
    NO_TRANSMISSION_ID,
    RUI,
    UNCONFIGURED,
    Answer,
    Step,
    of_recipients,
    once,
)

pytestmark = pytest.mark.email_settings

LOST = "[^:]+: .*([Cc]onnection|closed).*"
NO_REPLY = "[^:]+: .*[Nn]ot an? (SMTP )?reply.*"
IN_DOUBT = re.escape(" (in doubt: the server may have taken it)")


@pytest.fixture
def outbox_server(server: LocalSparkPost, published: list[str]) -> LocalSparkPost:
    """A server to which no connection is open, and only a slice is under test: nothing is published."""
    pool.close_connections()
    server.stop()
    server.start()
    return server


@pytest.mark.database
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("step", "answer", "state", "attempts", "reason"),
    [
        (Step.CONTENT, None, State.SENT, 1, ""),
        (Step.CONTENT, Raw(b"250 \x00 OK \xff\r\n"), State.SENT, 1, ""),
        (Step.RCPT, "451 4.7.1 later", State.DEFERRED, 1, f"{ANA}: 451 4.7.1 later"),
        (Step.CONTENT, NO_TRANSMISSION_ID, State.DEFERRED, 1, re.escape(f"{ANA}: {NO_TRANSMISSION_ID}")),
        (Step.MAIL, HANG_UP, State.DEFERRED, 1, LOST),
        (Step.DATA, "HTTP/1.1 400 Bad Request", State.DEFERRED, 1, NO_REPLY + "HTTP/1.1 400 Bad Request.*"),
        (Step.CONTENT, KEEP_AND_HANG_UP, State.DEFERRED, 1, LOST + IN_DOUBT),
        (Step.CONTENT, Raw(b"550 5.7.1 Unc"), State.DEFERRED, 1, f"({LOST}|{NO_REPLY}){IN_DOUBT}"),
        (Step.RCPT, "550 5.1.1 nobody", State.FAILED, 1, f"{ANA}: 550 5.1.1 nobody"),
        (Step.CONTENT, JSON_ERROR, State.FAILED, 1, f"{ANA}: {JSON_ERROR}"),
        (Step.MAIL, UNCONFIGURED, State.QUEUED, 0, ""),
        (Step.CONTENT, UNCONFIGURED, State.QUEUED, 0, ""),
    ],
    ids=str,
)
def test_in_the_outbox(
    outbox_server: LocalSparkPost, step: Step, answer: Answer, state: State, attempts: int, reason: str
) -> None:
    outbox_server.script = once(outbox_server, step, answer)
    before = timezone.now()
    message = send_mail("x", "y", to=ANA)
    deliver([message])
    message.refresh_from_db()
    assert (message.state, message.attempts, message.token) == (state, attempts, "")
    assert re.fullmatch(reason, message.reason)
    if state in (State.DEFERRED, State.QUEUED):
        assert message.due_at is not None
        assert message.due_at >= before + FLOOR
    else:
        assert message.due_at is None
    known = list(TransportStatus.objects.values_list("sender_domain", "reason"))
    assert known == ([("congressy.net", UNCONFIGURED)] if state is State.QUEUED else [])


@pytest.mark.database
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("step", "answer", "reason"),
    [
        (Step.CONNECT, "554 5.3.2 closed", "The mail server cannot be used: 554 5.3.2 closed"),
        (Step.CONNECT, Raw(b"554 \x00 closed \xff\r\n"), "The mail server cannot be used: 554 closed \ufffd"),
        (
            Step.CONNECT,
            HANG_UP,
            "The mail server cannot be reached: SMTPServerDisconnected: Connection unexpectedly closed",
        ),
        (Step.STARTTLS, "454 4.7.0 not now", "The mail server cannot be used: 454 4.7.0 not now"),
        (
            Step.AUTH,
            "535 5.7.8 Sorry.",
            "The mail server refuses the login: 535 5.7.8 Sorry.. Check EMAIL_HOST_USER and EMAIL_HOST_PASSWORD "
            '(for SparkPost: SMTP_Injection and an API key with "Send via SMTP").',
        ),
        (Step.MAIL, ACCOUNT[0], f"The mail server refuses this account: {ACCOUNT[0]}"),
        (Step.CONTENT, ACCOUNT[3], f"The mail server refuses this account: {ACCOUNT[3]}"),
    ],
    ids=str,
)
def test_in_the_outbox_nothing_counts_as_an_attempt_while_the_server_is_unavailable(
    outbox_server: LocalSparkPost, step: Step, answer: Answer, reason: str
) -> None:
    outbox_server.script = once(outbox_server, step, answer)
    before = timezone.now()
    first, second = (key for to in (ANA, EVA) for key in queue(to=to))
    with pytest.raises(TransportUnavailable) as raised:
        deliver([first, second])
    assert raised.value.retry_in is not None
    assert raised.value.retry_in >= FLOOR
    assert len(outbox_server.mailbox) == 0
    for message in Message.objects.all():
        assert (message.state, message.attempts, message.reason, message.token) == (State.QUEUED, 0, "", "")
        assert message.due_at is not None
        assert message.due_at >= before + FLOOR
    (status,) = TransportStatus.objects.all()
    assert (status.sender_domain, status.reason) == ("", reason)


@pytest.mark.database
@pytest.mark.django_db
def test_in_the_outbox_only_who_was_deferred_is_sent_to_again(outbox_server: LocalSparkPost) -> None:
    outbox_server.script = of_recipients(outbox_server, eva="452 4.5.3 too many", rui="550 5.1.1 nobody")
    message = send_mail("x", "y", to=[ANA, EVA, RUI])
    deliver([message])
    message.refresh_from_db()
    assert (message.state, message.remaining) == (State.DEFERRED, [EVA])
    outbox_server.script = None
    Message.objects.update(due_at=timezone.now())
    deliver([message])
    message.refresh_from_db()
    assert (message.state, message.attempts) == (State.SENT, 2)
    assert [one.recipients for one in outbox_server.mailbox] == [(ANA,), (EVA,)]
