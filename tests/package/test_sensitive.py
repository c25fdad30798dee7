"""What a sensitive mail says is shown nowhere: not to the admin, not in logs, not in errors, whatever goes wrong."""

from __future__ import annotations

import asyncio
import logging
import smtplib
import sys
import traceback
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, ClassVar

import pytest
from django.core.mail.backends.base import BaseEmailBackend
from django.db import OperationalError
from django.test import Client, RequestFactory
from django.urls import reverse
from django.utils.functional import lazy
from django.views.debug import ExceptionReporter

from congressy_mailer import MailerError, asend_mail, send_mail
from congressy_mailer.content.templates import build_content
from congressy_mailer.delivery.composing import compose
from congressy_mailer.exceptions import (
    AttachmentTooLarge,
    AttachmentUnreadable,
    ContextNotSerializable,
    InvalidHeader,
    InvalidOption,
    TransportUnavailable,
)
from congressy_mailer.models import Attachment, Event, Message, State, TransportStatus
from testbed.processes import Process
from tests.conftest import wait_for
from tests.support.mails import deliver, queue_message

pytestmark = [pytest.mark.django_db, pytest.mark.email_settings]

#: Stands in everything that a mail can say.
SECRET = "kx771" + "144zq"
FILE = (f"{SECRET}.txt", f"{SECRET} inside".encode())
READY: dict[str, Any] = {
    "subject": f"Code {SECRET}",
    "message": f"Your code is {SECRET}.",
    "html_message": f"<p>Your code is {SECRET}.</p>",
    "headers": {"X-Code": SECRET},
    "attachments": [FILE],
}


class Chatty(BaseEmailBackend):
    """A backend whose errors repeat the mail."""

    error: ClassVar[Callable[[str], Exception]] = staticmethod(RuntimeError)

    def send_messages(self, email_messages: Sequence[Any]) -> int:
        for mail in email_messages:
            raise type(self).error(f"refused: {mail.subject} {mail.body}")
        return 0


@pytest.fixture(autouse=True)
def everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


def mail(**options: Any) -> Message:
    """A mail in the queue, sensitive where the options do not say otherwise."""
    return queue_message(**{"sensitive": True, **options})


def with_code(template: str, **options: Any) -> Message:
    return mail(subject="Code", template=f"confidential/{template}", context={"code": SECRET}, **options)


def delivered(message: Message) -> Message:
    deliver([message])
    message.refresh_from_db()
    return message


def pages(support: Client, message: Message) -> str:
    addresses = [
        reverse("admin:congressy_mailer_message_changelist"),
        reverse("admin:congressy_mailer_message_change", args=[message.pk]),
    ]
    return "".join(support.get(address).content.decode() for address in addresses)


def said(message: Message) -> str:
    """Everything that is stored of what happened to a message."""
    events = Event.objects.filter(message=message).values_list("detail", flat=True)
    return "\n".join([message.reason, message.reply, *events])


def test_the_admin_shows_who_gets_it_and_nothing_of_what_it_says(support: Client) -> None:
    for message in (mail(**READY), with_code("code")):
        shown = pages(support, message)
        assert SECRET not in shown
        assert "ana@example.com" in shown
    # The same, when it is no secret.
    message = mail(**READY, sensitive=False)
    for text in (f"Code {SECRET}", FILE[0]):
        assert text in pages(support, message)
    content = support.get(reverse("admin:congressy_mailer_message_content", args=[message.pk])).content.decode()
    for text in (f"Code {SECRET}", "X-Code", SECRET, FILE[0]):
        assert text in content


def test_nothing_that_is_written_with_repr_says_it() -> None:
    message = mail(**READY)
    attachment = Attachment.objects.get()
    event = Event.objects.create(message=message, type=Event.Type.FAILED, at=message.created_at)
    outgoing = compose(message, build_content(message.subject, message.text, message.html), [])
    assert SECRET in outgoing.body
    for one in (message, attachment, event, outgoing):
        assert SECRET not in f"{one!r} {one}"


def broken_lazily() -> str:
    raise ValueError(f"no page for {SECRET}")


@pytest.mark.parametrize(
    ("error", "named", "options"),
    [
        (ContextNotSerializable, 'context["codes"][1]', {"context": {"codes": ["1", {SECRET, object}]}}),
        (ContextNotSerializable, 'context["code"]', {"context": {"code": SECRET.encode()}}),
        (ContextNotSerializable, 'context["code"]', {"context": {"code": f"{SECRET}\0"}}),
        (ContextNotSerializable, 'context["link"]', {"context": {"link": lazy(broken_lazily, str)()}}),
        (ContextNotSerializable, "names of variables", {"context": {(SECRET,): 1}}),
        (InvalidHeader, "The subject", {"subject": f"{SECRET}\n"}),
        (InvalidHeader, "headers", {"headers": {"X-Code": f"{SECRET}\r\nBcc: eva@example.com"}}),
        (InvalidHeader, "headers", {"headers": {"Message-ID": SECRET}}),
        (InvalidOption, "message", {"message": f"{SECRET}\0"}),
        (InvalidOption, "html_message", {"html_message": f"{SECRET}\0"}),
        (AttachmentUnreadable, "attachments", {"attachments": [f"/no/such/{SECRET}.pdf"]}),
        (AttachmentUnreadable, "attachments", {"attachments": [(f"{SECRET}\n", b"1")]}),
        (AttachmentUnreadable, "attachments", {"attachments": [("a", b"1", SECRET)]}),
        (AttachmentTooLarge, "attachments", {"attachments": [(SECRET, b"1" * 14_000_001)]}),
    ],
)
def test_an_error_at_the_call_names_the_place_and_not_the_value(
    error: type[MailerError], named: str, options: dict[str, Any]
) -> None:
    if "context" in options:
        options = {"subject": "Code", "template": "confidential/code", **options}
    with pytest.raises(error) as raised:
        mail(**options)
    # With all that Python would print of what led to it.
    chain: list[BaseException] = [raised.value]
    while (before := chain[-1].__cause__) is not None or (
        not chain[-1].__suppress_context__ and (before := chain[-1].__context__) is not None
    ):
        chain.append(before)
    printed = "".join(line for one in chain for line in traceback.format_exception_only(one))
    assert SECRET not in printed
    assert named in str(raised.value)
    assert not Message.objects.exists()


def test_what_is_wrong_with_other_mail_is_said_in_full() -> None:
    with pytest.raises(InvalidHeader, match=SECRET):
        mail(subject=f"{SECRET}\n", sensitive=False)
    with pytest.raises(ContextNotSerializable, match=SECRET):
        with_lazy = {"link": lazy(broken_lazily, str)()}
        mail(subject="x", template="confidential/code", context=with_lazy, sensitive=False)


def fail_in_a_template(sensitive: bool) -> Message:
    return delivered(with_code("link", sensitive=sensitive))


def miss_an_included_template(sensitive: bool) -> Message:
    return delivered(with_code("part", sensitive=sensitive))


def damage_the_context(sensitive: bool) -> Message:
    message = with_code("code", sensitive=sensitive)
    Message.objects.update(context={"code": {"$type": "date", "value": SECRET}})
    return delivered(message)


def lose_an_attachment(sensitive: bool) -> Message:
    message = mail(**READY, sensitive=sensitive)
    attachment = Attachment.objects.get()
    attachment.file.storage.delete(str(attachment.file.name))
    return delivered(message)


def change_an_attachment(sensitive: bool) -> Message:
    message = mail(**READY, sensitive=sensitive)
    attachment = Attachment.objects.get()
    with attachment.file.storage.open(str(attachment.file.name), "wb") as file:
        file.write(b"altered")
    return delivered(message)


def break_the_composing(sensitive: bool) -> Message:
    def broken(*arguments: Any) -> Any:
        raise RuntimeError(f"out of {SECRET}")

    message = mail(**READY, sensitive=sensitive)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("congressy_mailer.delivery.composing.compose", broken)
        return delivered(message)


@pytest.mark.parametrize(
    ("go_wrong", "state", "kind"),
    [
        (fail_in_a_template, State.FAILED, "NoReverseMatch in django.urls.resolvers, line "),
        (miss_an_included_template, State.DEFERRED, "TemplateDoesNotExist in django.template."),
        (damage_the_context, State.FAILED, "ValueError in congressy_mailer.content.values, line "),
        (lose_an_attachment, State.DEFERRED, "FileNotFoundError in django.core.files.storage.filesystem, line "),
        (change_an_attachment, State.FAILED, "ContentError in congressy_mailer.delivery.composing, line "),
        (break_the_composing, State.DEFERRED, "RuntimeError in tests.package.test_sensitive, line "),
    ],
)
def test_an_error_in_the_worker_is_kept_without_its_words(
    support: Client, caplog: pytest.LogCaptureFixture, go_wrong: Callable[[bool], Message], state: State, kind: str
) -> None:
    open_mail = go_wrong(False)
    # It would be seen.
    assert SECRET in f"{said(open_mail)} {caplog.text}"
    caplog.clear()
    Message.objects.all().delete()
    message = go_wrong(True)
    assert message.state == state
    assert kind in message.reason
    assert kind in said(message)
    assert str(message.pk) in caplog.text
    for text in (said(message), caplog.text, pages(support, message)):
        assert SECRET not in text


def data_error(code: int, enhanced: str) -> Callable[[str], Exception]:
    return lambda words: smtplib.SMTPDataError(code, f"{enhanced}{words}".encode())


def recipient_error(words: str) -> Exception:
    return smtplib.SMTPRecipientsRefused({"ana@example.com": (550, f"5.1.1 {words}".encode())})


@pytest.mark.parametrize(
    ("error", "state", "kept"),
    [
        (RuntimeError, State.DEFERRED, "ana@example.com: RuntimeError (what else"),
        (smtplib.SMTPServerDisconnected, State.DEFERRED, "ana@example.com: SMTPServerDisconnected (what else"),
        (data_error(550, "5.7.1 "), State.FAILED, "ana@example.com: 550 5.7.1 (what else"),
        (data_error(552, ""), State.FAILED, "ana@example.com: 552 (what else"),
        (data_error(451, "4.7.1 "), State.DEFERRED, "ana@example.com: 451 4.7.1 (what else"),
        (recipient_error, State.FAILED, "ana@example.com: 550 5.1.1 (what else"),
    ],
)
def test_what_a_server_says_is_kept_as_its_codes(
    support: Client, settings: Any, caplog: pytest.LogCaptureFixture, error: Any, state: State, kept: str
) -> None:
    settings.EMAIL_BACKEND = f"{__name__}.Chatty"
    Chatty.error = staticmethod(error)
    assert SECRET in said(delivered(mail(**READY, sensitive=False)))
    Message.objects.all().delete()
    caplog.clear()
    message = delivered(mail(**READY))
    assert message.state == state
    assert message.reason.startswith(kept)
    for text in (said(message), caplog.text, pages(support, message)):
        assert SECRET not in text


def test_a_server_that_refuses_the_account_is_quoted_by_its_codes(
    support: Client, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.EMAIL_BACKEND = f"{__name__}.Chatty"
    Chatty.error = staticmethod(data_error(530, "5.7.0 "))
    with pytest.raises(TransportUnavailable, match=SECRET):
        deliver([mail(**READY, sensitive=False)])
    assert SECRET in TransportStatus.objects.get().reason
    Message.objects.all().delete()
    TransportStatus.objects.all().delete()
    caplog.clear()
    message = mail(**READY)
    with pytest.raises(TransportUnavailable, match=r"refuses this account: 530 5\.7\.0 \(what else") as raised:
        deliver([message])
    told = "".join(traceback.format_exception(raised.value))
    for text in (TransportStatus.objects.get().reason, caplog.text, told, pages(support, message)):
        assert SECRET not in text
    message.refresh_from_db()
    assert (message.state, message.attempts) == (State.QUEUED, 0)


def test_the_servers_id_of_a_mail_that_it_took_is_kept() -> None:
    message = delivered(mail(**READY))
    assert (message.state, message.reply) == (State.SENT, "250 accepted by the mail backend")
    assert (message.subject, message.text, message.html, message.headers) == ("", "", "", {})


def test_a_mail_that_is_given_up_is_quiet_too(settings: Any) -> None:
    settings.EMAIL_BACKEND = f"{__name__}.Chatty"
    Chatty.error = staticmethod(RuntimeError)
    message = mail(**READY)
    Message.objects.update(first_attempt_at=message.created_at.replace(year=2020))
    delivered(message)
    assert message.state == State.FAILED
    assert message.reason.startswith("Given up after 2 days")
    assert SECRET not in said(message)


def reported(error: tuple[type[BaseException], BaseException, TracebackType]) -> str:
    """What Django mails to the admins of an error, but for the frames of this test."""
    reporter = ExceptionReporter(RequestFactory().get("/"), *error)
    frames = [frame for frame in reporter.get_traceback_frames() if frame["filename"] != __file__]
    assert any("congressy_mailer" in frame["filename"] for frame in frames)
    return "\n".join(f"{name}={value}" for frame in frames for name, value in frame["vars"])


def caught(call: Callable[[], object]) -> tuple[type[BaseException], BaseException, TracebackType]:
    try:
        call()
    except Exception:
        kind, error, frames = sys.exc_info()
        assert kind is not None
        assert error is not None
        assert frames is not None
        return kind, error, frames
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("sensitive", [True, False])
@pytest.mark.parametrize("send", [send_mail, lambda **options: asyncio.run(asend_mail(**options))])
def test_a_report_of_an_error_at_the_call_does_not_show_it(send: Any, sensitive: bool) -> None:
    options = {**READY, "reply_to": "not an address", "to": "ana@example.com", "sensitive": sensitive}
    report = reported(caught(lambda: send(**options)))
    assert "********************" in report
    assert SECRET not in report
    options = {"subject": SECRET, "template": "confidential/code", "context": {"code": SECRET, "x": object()}}
    report = reported(caught(lambda: send(to="ana@example.com", sensitive=sensitive, **options)))
    assert SECRET not in report


def test_a_report_of_an_error_in_the_worker_does_not_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*arguments: Any) -> Any:
        raise OperationalError("the database is away")

    monkeypatch.setattr("congressy_mailer.delivery.composing.compose", away)
    monkeypatch.setattr("congressy_mailer.outbox.is_away", lambda: True)
    message = with_code("code")
    report = reported(caught(lambda: deliver([message])))
    assert "********************" in report
    assert SECRET not in report


@pytest.mark.django_db(transaction=True)
def test_a_real_worker_that_logs_everything_does_not_log_it(
    start_worker: Callable[..., Process],
) -> None:
    worker = start_worker("-l", "DEBUG")
    good, missing, _ = mail(**READY), with_code("part"), with_code("link")
    wait_for(lambda: Message.objects.filter(attempts=1).count() == 3, what="an attempt")
    wait_for(lambda: Message.objects.filter(state=State.FAILED).exists(), what="the failure")
    good.refresh_from_db()
    assert good.state == State.SENT
    output = worker.output()
    assert "DEBUG" in output
    assert str(missing.pk) in output
    assert SECRET not in output
    assert "ana@example.com" not in output
