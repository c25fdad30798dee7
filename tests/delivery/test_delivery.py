"""One slice of delivery, through Django's own backends."""

from __future__ import annotations

from datetime import timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.core.mail.backends.base import BaseEmailBackend
from django.db import OperationalError
from django.test import override_settings
from django.utils import timezone

from congressy_mailer import outbox, send_mail
from congressy_mailer.delivery.slice import SliceResult
from congressy_mailer.exceptions import TransportUnavailable
from congressy_mailer.models import Message, State
from congressy_mailer.testing import deliver_all
from tests.support.mails import deliver, queue, states

# Only a slice is under test: nothing is published, and no broker that is missing makes anything due.
pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("published")]


class Misbehaving(BaseEmailBackend):
    """A backend of somebody else's, with errors of its own."""

    sent: list[str] = []

    def send_messages(self, email_messages: Any) -> int:
        for message in email_messages:
            if "bad" in message.subject:
                raise KeyError("unexpected")
            self.sent.append(message.subject)
        return len(email_messages)


class Unreachable(BaseEmailBackend):
    """A backend whose server is away."""

    def open(self) -> None:
        raise ConnectionRefusedError(111, "Connection refused")


def sent_mail() -> EmailMessage:
    (message,) = mail.outbox
    parsed = message_from_bytes(message.message().as_bytes(), policy=default)
    assert isinstance(parsed, EmailMessage)
    return parsed


def test_ready_content_arrives_with_its_headers_and_attachments() -> None:
    message = send_mail(
        "Inscrição confirmada",
        "Olá, Zé & Ana",
        "Congressy <mail@congressy.net>",
        ["Ana <ana@example.com>"],
        cc="eva@example.com",
        bcc="rui@example.com",
        reply_to="org@example.com",
        html_message="<p>Olá, <b>Zé</b></p>",
        headers={"X-Order": "7"},
        attachments=[("boleto ção.pdf", b"%PDF\r\n\x00"), ("lista.csv", b"a;b\r\nc;d\n")],
    )
    (delivered,) = deliver_all()
    assert delivered.state == State.SENT
    (handed,) = mail.outbox
    assert handed.recipients() == ["ana@example.com", "eva@example.com", "rui@example.com"]
    parsed = sent_mail()
    assert parsed["Subject"] == "Inscrição confirmada"
    assert parsed["From"] == "Congressy <mail@congressy.net>"
    assert parsed["To"] == "Ana <ana@example.com>"
    assert parsed["Cc"] == "eva@example.com"
    assert parsed["Bcc"] is None
    assert parsed["Reply-To"] == "org@example.com"
    assert parsed["X-Order"] == "7"
    assert parsed["Message-ID"] == message.message_id
    assert parsed["Date"].datetime == message.queued_at.replace(microsecond=0)  # type: ignore[union-attr]
    text, html = parsed.get_body(("plain",)), parsed.get_body(("html",))
    assert text is not None
    assert html is not None
    assert text.get_content().strip() == "Olá, Zé & Ana"
    assert html.get_content().strip() == "<p>Olá, <b>Zé</b></p>"
    pdf, csv = parsed.iter_attachments()
    assert (pdf.get_filename(), pdf.get_content_type(), pdf.get_payload(decode=True)) == (
        "boleto ção.pdf", "application/pdf", b"%PDF\r\n\x00",
    )  # fmt: skip
    assert csv.get_payload(decode=True) == b"a;b\r\nc;d\n"


def test_inline_image() -> None:
    from congressy_mailer import Attachment

    send_mail("x", to="a@b.com", html_message='<img src="cid:logo">',
              attachments=[Attachment("logo.png", b"\x89PNG", content_id="logo")])  # fmt: skip
    deliver_all()
    (image,) = (part for part in sent_mail().walk() if part.get_content_type() == "image/png")
    assert image["Content-ID"] == "<logo>"
    assert image.get_content_disposition() == "inline"


def test_the_same_person_twice_gets_one_copy() -> None:
    send_mail("x", "y", to=["Ana <ana@example.com>"], cc="ana@example.com")
    deliver_all()
    assert mail.outbox[0].recipients() == ["ana@example.com"]


def test_a_model_that_is_gone_fails_its_message_alone() -> None:
    ana = User.objects.create(username="ana")
    rui = User.objects.create(username="rui")
    send_mail("x", to="ana@example.com", template="mail/hello", context={"user": ana})
    gone = send_mail("x", to="rui@example.com", template="mail/hello", context={"user": rui})
    rui.delete()
    deliver_all()
    gone.refresh_from_db()
    assert gone.state == State.FAILED
    assert "auth.User" in gone.reason
    assert len(mail.outbox) == 1


def test_a_template_that_this_worker_does_not_have_yet_is_tried_again() -> None:
    message = send_mail("x", to="ana@example.com", template="mail/hello")
    Message.objects.update(template="mail/of-the-next-release")
    result = deliver([message])
    message.refresh_from_db()
    assert message.state == State.DEFERRED
    assert "mail/of-the-next-release" in message.reason
    assert list(result.retries.values()) == [[message.pk]]


def test_an_attachment_that_was_changed_is_never_sent() -> None:
    message = send_mail("x", "y", to="ana@example.com", attachments=[("a.txt", b"original")])
    (attachment,) = message.attachments.all()
    with attachment.file.storage.open(attachment.file.name, "wb") as file:
        file.write(b"altered!")
    deliver_all()
    message.refresh_from_db()
    assert message.state == State.FAILED
    assert "SHA-256 differs" in message.reason
    assert mail.outbox == []


def test_an_attachment_that_cannot_be_read_now_is_tried_again() -> None:
    message = send_mail("x", "y", to="ana@example.com", attachments=[("a.txt", b"original")])
    (attachment,) = message.attachments.all()
    attachment.file.storage.delete(attachment.file.name)
    deliver([message])
    message.refresh_from_db()
    assert message.state == State.DEFERRED
    assert "cannot be read from the storage" in message.reason


@pytest.mark.email_settings
@override_settings(EMAIL_BACKEND=f"{__name__}.Misbehaving")
def test_one_unexpected_error_of_a_backend_does_not_stop_the_others() -> None:
    Misbehaving.sent.clear()
    ids = [send_mail(subject, "y", to="a@b.com").pk for subject in ("good 1", "bad", "good 2")]
    deliver(ids)
    assert Misbehaving.sent == ["good 1", "good 2"]
    assert states(ids) == [State.SENT, State.DEFERRED, State.SENT]
    assert "KeyError: 'unexpected'" in Message.objects.get(pk=ids[1]).reason


@pytest.mark.email_settings
@override_settings(EMAIL_BACKEND=f"{__name__}.Unreachable")
def test_an_unreachable_server_is_no_attempt_and_loses_nothing() -> None:
    ids = queue(3)
    with pytest.raises(TransportUnavailable, match="cannot be reached: ConnectionRefusedError"):
        deliver(ids)
    assert set(Message.objects.values_list("state", "attempts", "token")) == {(State.QUEUED, 0, "")}


@override_settings(CONGRESSY_MAILER={"TIME_SLICE": timedelta(microseconds=1)})
def test_what_a_time_slice_does_not_reach_is_put_back() -> None:
    ids = queue(12)
    result = deliver(ids)
    # What had been composed when the time was over is sent.
    reached = len(mail.outbox)
    assert 0 < reached < 12
    assert result.unfinished == ids[reached:]
    assert set(Message.objects.filter(state=State.QUEUED).values_list("pk", flat=True)) == set(result.unfinished)
    deliver_all()
    assert len(mail.outbox) == 12


def test_messages_that_somebody_else_holds_are_left_alone() -> None:
    message = send_mail("x", "y", to="a@b.com")
    outbox.claim([message.pk], "other:1")
    assert deliver([message]) == SliceResult()
    assert mail.outbox == []


def test_a_message_is_sent_once_however_often_its_id_comes() -> None:
    message = send_mail("x", "y", to="a@b.com")
    for _ in range(3):
        deliver([message, message])
    assert len(mail.outbox) == 1


def test_a_message_expired_meanwhile_is_not_sent() -> None:
    message = send_mail("x", "y", to="a@b.com", expires_at=timezone.now() + timedelta(hours=1))
    Message.objects.update(expires_at=timezone.now())
    deliver([message])
    message.refresh_from_db()
    assert message.state == State.EXPIRED
    assert mail.outbox == []


def test_what_is_delivered_in_a_test_is_not_read_from_a_replica() -> None:
    class WriteOnly:
        def db_for_read(self, model: type, **hints: Any) -> str | None:
            if model is Message:
                raise AssertionError("read from the replica")
            return None

    with override_settings(DATABASE_ROUTERS=[WriteOnly()]):
        message = send_mail("x", "y", to="a@b.com")
        assert [(one.pk, one.state) for one in deliver_all()] == [(message.pk, State.SENT)]


def test_a_result_that_cannot_be_recorded_is_not_sent_again_while_the_lease_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = (send_mail(subject, "y", to="a@b.com").pk for subject in ("first", "second"))

    def away(*args: Any) -> None:
        raise OperationalError("the database is away")

    monkeypatch.setattr(outbox, "record_accepted", away)
    with pytest.raises(OperationalError):
        deliver([first, second])
    assert [message.subject for message in mail.outbox] == ["first"]
    assert states([first, second]) == [State.SENDING, State.QUEUED]
    # The one that was not begun need not wait; the one that the server has must.
    assert outbox.sweep(timezone.now()) == [second]
