"""The whole way of a mail: the call, the broker, a real worker process, a mail server with TLS and login."""

from __future__ import annotations

import os
import re
import signal
import string
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.link import Link
from congressy_mailer import MailerError, send_bulk, send_mail
from congressy_mailer.models import Batch, Message, State
from congressy_mailer.testing.local_sparkpost.replies import HANG_UP, Stage
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from testbed.processes import Process
from testbed.redis_server import EmbeddedRedis
from tests.conftest import wait_for
from tests.project.celery import app
from tests.support.fuzzing import examples

pytestmark = pytest.mark.django_db(transaction=True)

StartWorker = Callable[..., Process]

# Headers that every mail has, asked for or not (RFC 5322 §3.6, RFC 2045).
_ALWAYS = {
    "from", "to", "subject", "date", "message-id", "mime-version", "content-type", "content-transfer-encoding",
    "reply-to",
}  # fmt: skip


def wait_until_final(count: int, seconds: float = 30) -> None:
    final = [state for state in State if state not in ("scheduled", "queued", "sending", "deferred")]
    wait_for(
        lambda: Message.objects.filter(state__in=final).count() >= count,
        seconds,
        f"{count} final messages (now: {list(Message.objects.values_list('state', 'reason'))})",
    )


@pytest.mark.broker
@pytest.mark.database
def test_a_mail_goes_all_the_way_with_the_settings_of_the_original(
    start_worker: StartWorker, smtp_server: LocalSparkPost
) -> None:
    worker = start_worker()
    ana = User.objects.create(username="Ana & Zé")
    message = send_mail(
        "Inscrição", to=["Ana <ana@example.com>"], template="mail/hello", context={"user": ana},
        attachments=[("voucher.pdf", b"%PDF-1.4")],
    )  # fmt: skip
    wait_until_final(1)
    message.refresh_from_db()
    (received,) = smtp_server.mailbox
    assert message.state == State.SENT
    assert received.queue_id in message.reply
    assert received.message_id == message.message_id
    assert received.recipients == ("ana@example.com",)
    parsed = received.message
    assert parsed["Reply-To"] == "congressy@congressy.com"
    html, text = parsed.get_body(("html",)), parsed.get_body(("plain",))
    assert html is not None
    assert text is not None
    assert "Olá, Ana &amp; Zé" in html.get_content()
    assert "Olá, Ana & Zé" in text.get_content()
    (voucher,) = parsed.iter_attachments()
    assert voucher.get_payload(decode=True) == b"%PDF-1.4"
    assert "mailer" in worker.output()


@pytest.mark.broker
@pytest.mark.database
def test_a_batch_goes_all_the_way_and_the_broker_hardly_notices(
    start_worker: StartWorker, smtp_server: LocalSparkPost
) -> None:
    batch = send_bulk(
        ((f"ana{number}@example.com", {"user": {"username": f"Ana {number}"}}) for number in range(500)),
        template="mail/hello", subject="Olá", attachments=[("programa.pdf", b"%PDF-1.4")],
    )  # fmt: skip
    start_worker()
    wait_for(lambda: batch.progress().done, 60, "the batch")
    assert batch.progress().sent == 500
    assert Counter(mail.recipients[0] for mail in smtp_server.mailbox) == Counter(
        f"ana{number}@example.com" for number in range(500)
    )
    replies = dict(batch.messages.values_list("message_id", "reply"))
    assert all(mail.queue_id in replies[mail.message_id] for mail in smtp_server.mailbox)
    mail = next(mail for mail in smtp_server.mailbox if mail.recipients == ("ana7@example.com",))
    text = mail.message.get_body(("plain",))
    assert text is not None
    assert "Ana 7" in text.get_content()
    (programme,) = mail.message.iter_attachments()
    assert programme.get_payload(decode=True) == b"%PDF-1.4"


def test_a_password_reset_does_not_wait_behind_a_batch(start_worker: StartWorker, smtp_server: LocalSparkPost) -> None:
    batch = send_bulk((f"ana{number}@example.com" for number in range(3000)), subject="Olá", message="x")
    start_worker()
    mailbox = smtp_server.mailbox
    sent_after = {}
    for number in range(5):
        wait_for(lambda: len(mailbox) >= 200 * (number + 1), 60, "some of the batch")  # noqa: B023
        address = f"eva{number}@example.com"
        sent_after[address] = len(mailbox)
        send_mail("Sua senha", "x", to=address)
    wait_for(lambda: sum(mail.recipients[0] in sent_after for mail in mailbox) == 5, 60, "the five")
    overtaken = [
        place - sent_after[mail.recipients[0]] for place, mail in enumerate(mailbox) if mail.recipients[0] in sent_after
    ]
    # By order, and not by the clock: what two processes send in a second and a half is many times as much.
    assert max(overtaken) < 1000
    assert len(mailbox) < 3000
    batch.cancel()
    wait_for(lambda: batch.progress().done, 60, "the end")


@pytest.mark.broker
def test_a_batch_goes_on_and_gives_way_to_a_task_of_the_hosts(
    start_worker: StartWorker, smtp_server: LocalSparkPost, tmp_path: Path
) -> None:
    """Two processes, so that the batch's ten tasks are more than the worker fetches."""
    slices = r"Batch .*: sent .*, (\d+)\.\d s"
    with Link(smtp_server.port, 0.05) as link:
        worker = start_worker(MAILER_TEST_SMTP_PORT=str(link.port))
        batch = send_bulk([f"p{number}@example.com" for number in range(9000)], subject="x", message="y")
        wait_for(lambda: batch.messages.filter(state=State.SENT).count() > 200, 60, "200 mails")
        slices_before = []
        for number in range(3):
            # Long enough for slices to be prolonged.
            base = len(smtp_server.mailbox)
            wait_for(lambda: len(smtp_server.mailbox) >= base + 250, 60, "some of the batch")  # noqa: B023
            done = tmp_path / f"done{number}"
            slices_before.append(len(re.findall(slices, worker.output())))
            # The app's pool may still have connections to the broker of another test.
            with app.connection_for_write() as connection:
                app.send_task("tests.touch", [str(done)], connection=connection)
            wait_for(done.exists, 60, "the task")
            slices_before[-1] = len(re.findall(slices, worker.output())) - slices_before[-1]
        # By order, and not by the clock: a slice of each process at the most, where six tasks or more stand before it.
        assert sorted(slices_before)[1] <= 4
        # Longer than a time slice, since nothing else waited; on a busy machine not each time.
        wait_for(lambda: any(int(took) >= 2 for took in re.findall(slices, worker.output())), 60, "a longer slice")
        assert Batch.objects.filter(pk=batch.pk, due_at__isnull=False).exists()
        batch.cancel()


def test_a_batch_whose_broker_lost_its_tasks_is_found_again(
    start_worker: StartWorker, smtp_server: LocalSparkPost, redis_server: EmbeddedRedis
) -> None:
    batch = send_bulk((f"ana{number}@example.com" for number in range(150)), subject="Olá", message="x")
    redis_server.kill()
    redis_server.start()
    start_worker(MAILER_TEST_LOST_AFTER_SECONDS="1", MAILER_TEST_SWEEP_INTERVAL_SECONDS="1")
    Batch.objects.update(due_at=timezone.now())
    wait_for(lambda: batch.progress().done, 60, "the batch")
    assert len(smtp_server.mailbox) == batch.progress().sent == 150


def test_a_batch_of_which_some_are_refused_for_now_comes_to_its_end(
    start_worker: StartWorker, smtp_server: LocalSparkPost
) -> None:
    batch = send_bulk(["delay-1@example.com", "refused@example.com", "ana@example.com"], subject="x", message="y")
    start_worker(MAILER_TEST_SWEEP_INTERVAL_SECONDS="1")
    wait_for(lambda: batch.progress().done, 60, "the batch")
    assert batch.progress().states == {State.SENT: 2, State.FAILED: 1}


def test_a_mail_of_a_rolled_back_transaction_is_never_seen(
    start_worker: StartWorker, smtp_server: LocalSparkPost
) -> None:
    start_worker()
    with pytest.raises(RuntimeError, match="no"), transaction.atomic():
        send_mail("never", "x", to="ana@example.com")
        raise RuntimeError("no")
    send_mail("after", "x", to="ana@example.com")
    wait_until_final(1)
    assert [mail.message["Subject"] for mail in smtp_server.mailbox] == ["after"]
    assert Message.objects.count() == 1


@pytest.mark.database
def test_a_killed_worker_loses_nothing(start_worker: StartWorker, smtp_server: LocalSparkPost) -> None:
    first = start_worker(MAILER_TEST_LEASE_SECONDS="3", MAILER_TEST_SWEEP_INTERVAL_SECONDS="1")
    with transaction.atomic():
        for number in range(40):
            send_mail(f"mail {number}", "y", to=f"person{number}@example.com")
    smtp_server.mailbox.wait_for(5)
    os.killpg(first.pid, signal.SIGKILL)
    start_worker(MAILER_TEST_LEASE_SECONDS="3", MAILER_TEST_SWEEP_INTERVAL_SECONDS="1")
    wait_until_final(40, 180)
    assert set(Message.objects.values_list("state", flat=True)) == {State.SENT}
    copies = smtp_server.mailbox.copies()
    assert len(copies) == 40
    # What each of its two processes had handed over in the last moment; `make chaos` measures how long that is.
    assert sum(copies.values()) - 40 <= 10


def test_sigterm_repeats_nothing_and_loses_nothing(start_worker: StartWorker, smtp_server: LocalSparkPost) -> None:
    first = start_worker()
    with transaction.atomic():
        for number in range(60):
            send_mail(f"mail {number}", "y", to=f"person{number}@example.com")
    smtp_server.mailbox.wait_for(5)
    first.stop()
    assert not Message.objects.filter(state=State.SENDING).exists()
    start_worker(MAILER_TEST_SWEEP_INTERVAL_SECONDS="1")
    wait_until_final(60, 60)
    copies = smtp_server.mailbox.copies()
    assert (len(copies), sum(copies.values())) == (60, 60)


def test_a_temporary_refusal_is_tried_again_with_backoff(
    start_worker: StartWorker, smtp_server: LocalSparkPost
) -> None:
    start_worker()
    message = send_mail("x", "y", to=["delay-1@example.com", "ana@example.com"])
    wait_for(lambda: Message.objects.filter(state=State.DEFERRED).exists(), what="a deferred message")
    message.refresh_from_db()
    assert message.remaining == ["delay-1@example.com"]
    assert "451 4.7.1 Greylisted" in message.reason
    assert message.due_at is not None
    assert message.due_at - timezone.now() > timedelta(seconds=3)
    wait_until_final(1, 40)
    message.refresh_from_db()
    assert (message.state, message.attempts) == (State.SENT, 2)
    assert set(smtp_server.mailbox.copies().values()) == {1}


def test_a_permanent_refusal_fails_and_stops_nobody_else(
    start_worker: StartWorker, smtp_server: LocalSparkPost
) -> None:
    start_worker()
    with transaction.atomic():
        refused = send_mail("x", "y", to="refused@example.com")
        send_mail("x", "y", to="ana@example.com")
    wait_until_final(2)
    refused.refresh_from_db()
    assert (refused.state, refused.attempts) == (State.FAILED, 1)
    assert "550 5.1.1 no such user" in refused.reason
    assert len(smtp_server.mailbox) == 1


def test_an_unreachable_mail_server_keeps_everything_queued_and_retries_by_itself(
    start_worker: StartWorker, smtp_server: LocalSparkPost
) -> None:
    smtp_server.stop()
    worker = start_worker()
    message = send_mail("x", "y", to="ana@example.com")
    wait_for(lambda: "cannot be reached" in worker.output(), what="the worker's complaint")
    # It complains first, and then puts the mail back.
    wait_for(lambda: Message.objects.filter(state=State.QUEUED, attempts=0).exists(), 10, "the mail back in the queue")
    smtp_server.start()
    wait_until_final(1, 40)
    message.refresh_from_db()
    assert (message.state, message.attempts) == (State.SENT, 1)


def test_a_connection_lost_in_the_middle_is_no_loss(start_worker: StartWorker, smtp_server: LocalSparkPost) -> None:
    dropped: list[str] = []

    def drop_the_first(exchange: Any) -> Any:
        if exchange.stage is Stage.DATA and not dropped:
            dropped.append(exchange.sender)
            return HANG_UP
        return None

    smtp_server.script = drop_the_first
    start_worker()
    send_mail("x", "y", to="ana@example.com")
    wait_until_final(1, 40)
    assert len(smtp_server.mailbox) == 1
    assert len(dropped) == 1


def test_a_scheduled_mail_leaves_when_it_is_due(start_worker: StartWorker, smtp_server: LocalSparkPost) -> None:
    start_worker(MAILER_TEST_SWEEP_INTERVAL_SECONDS="1")
    due = timezone.now() + timedelta(seconds=3)
    message = send_mail("x", "y", to="ana@example.com", send_at=due)
    wait_until_final(1)
    message.refresh_from_db()
    assert message.sent_at is not None
    assert message.sent_at >= due


def test_a_worker_under_q_serves_only_what_it_is_told(start_worker: StartWorker) -> None:
    other = start_worker("-Q", "celery")
    assert "This worker does not serve 'mailer' and 'mailer.bulk'" in other.output()
    message = send_mail("x", "y", to="ana@example.com")
    ours = start_worker("-Q", "mailer,mailer.bulk")
    wait_until_final(1)
    message.refresh_from_db()
    assert message.state == State.SENT
    assert "does not serve" not in ours.output()
    assert "congressy_mailer.deliver" not in re.sub(r"(?s)\[tasks\].*? ready\.", "", other.output())


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_other_pools(start_worker: StartWorker, smtp_server: LocalSparkPost, pool: str) -> None:
    start_worker("-P", pool, MAILER_TEST_SWEEP_INTERVAL_SECONDS="1")
    send_mail("x", "y", to="ana@example.com", send_at=timezone.now() + timedelta(seconds=1))
    send_mail("x", "y", to="eva@example.com")
    wait_until_final(2)
    assert len(smtp_server.mailbox) == 2


# Headers, names and addresses as somebody would write them who wants more than one mail or more than one recipient.
_PIECES = [
    "\r\n", "\n", "\r", "Bcc: eva@evil.example", "<", ">", ",", ";", ":", '"', "\\", "@", "\x00", "=?utf-8?q?x?=",
    "ção", "\u2028", " ", "\t", ".", "ana@example.com", "\r\n.\r\n", "RCPT TO:<eva@evil.example>", "😀", "x" * 90,
]  # fmt: skip
_HOSTILE = st.lists(st.sampled_from(_PIECES) | st.text(max_size=8), max_size=5).map("".join)
_LOCAL = st.text(string.ascii_letters + string.digits + "._+-", min_size=1, max_size=10)
_PLAIN = st.builds("{}@example.com".format, _LOCAL)
_ADDRESS = st.one_of(_PLAIN, _PLAIN, _PLAIN, st.builds("{} <{}@example.com>".format, _HOSTILE, _LOCAL), _HOSTILE)
# Half of the time something ordinary, so that what is hostile in the other arguments gets as far as it can.
_ORDINARY = "Inscrição confirmada"
_LINE = st.just(_ORDINARY) | _HOSTILE
# Headers that every mail has and a caller may give, in any spelling.
_NAME = st.sampled_from(["X-Test", "Message-ID", "message-id", "Date", "date", "DATE"])


def test_whatever_is_accepted_arrives_as_exactly_one_mail_with_exactly_those_recipients(
    start_worker: StartWorker, smtp_server: LocalSparkPost
) -> None:
    start_worker()
    accepted: dict[str, tuple[Message, set[str]]] = {}

    @settings(max_examples=examples(300), deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        subject=_LINE,
        text=_HOSTILE,
        to=st.lists(_ADDRESS, min_size=1, max_size=3),
        bcc=st.lists(_ADDRESS, max_size=1),
        headers=st.dictionaries(_NAME | _HOSTILE, _LINE, max_size=2),
    )
    def call(subject: str, text: str, to: list[str], bcc: list[str], headers: dict[str, str]) -> None:
        for name, value in headers.items():
            if name.lower() == "message-id" and value == _ORDINARY:
                headers[name] = f"<{uuid4().hex}@example.com>"
        try:
            message = send_mail(subject, text, to=to, bcc=bcc, headers=headers)
        except MailerError:
            return
        accepted[message.message_id] = (message, {name.lower() for name in headers})

    call()
    assert len(accepted) > 20
    wait_until_final(len(accepted), 90)
    received = {mail.message_id: mail for mail in smtp_server.mailbox}
    assert len(smtp_server.mailbox) == len(received)
    assert set(Message.objects.values_list("state", "reason")) == {(State.SENT, "")}
    assert set(received) == set(accepted)
    for message_id, (message, asked_for) in accepted.items():
        mail = received[message_id]
        wanted = {re.sub(r".*<(.+)>$", r"\1", recipient, flags=re.DOTALL) for recipient in message.recipients}
        assert set(mail.recipients) == wanted
        assert len(mail.recipients) == len(wanted)
        parsed = message_from_bytes(mail.content, policy=default)
        assert {name.lower() for name in parsed} <= _ALWAYS | asked_for
        assert len(parsed.get_all("To", [])) <= 1
        assert len(parsed.get_all("Date", [])) == len(parsed.get_all("Message-ID", [])) == 1
        assert " ".join(parsed["Subject"].split()) == " ".join(message.subject.split())


def test_no_password_is_in_the_workers_log(start_worker: StartWorker, smtp_server: LocalSparkPost) -> None:
    worker = start_worker()
    send_mail("Senha", "código 991122", to="ana@example.com", sensitive=True)
    wait_until_final(1)
    for secret in (smtp_server.password, "991122", "Senha", "ana@example.com"):
        assert secret not in worker.output()
