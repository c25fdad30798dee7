"""The mail backend that queues what Django sends: what is stored, what arrives, and what callers are told."""

from __future__ import annotations

import asyncio
import email.policy
import logging
import smtplib
from collections.abc import Iterator
from datetime import timedelta
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from typing import Any

import django
import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.forms import PasswordResetForm
from django.core import mail
from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.core.mail.backends.base import BaseEmailBackend
from django.db import connection, transaction
from django.test import override_settings
from django.utils import timezone, translation
from django.utils.functional import lazystr

from congressy_mailer import exceptions
from congressy_mailer import send_mail as send_ours
from congressy_mailer.backends import EmailBackend, MailNotStored
from congressy_mailer.models import Attachment, Message, Priority, State
from congressy_mailer.testing import deliver_all
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from congressy_mailer.transports import aliases
from tests.support.scripted_https import ScriptedHttps

pytestmark = [pytest.mark.django_db, pytest.mark.email_settings]

QUEUE = "congressy_mailer.backends.EmailBackend"
SMTP = "django.core.mail.backends.smtp.EmailBackend"
WORLDS = ["EMAIL_BACKEND", "MAILERS"] if django.VERSION >= (6, 1) else ["EMAIL_BACKEND"]


def put_in_force(settings: Any, world: str, target: str, options: dict[str, Any], **queue: Any) -> None:
    """Have Django send over the queue, and the queue over a backend of another kind than the suite's."""
    behind = {"BACKEND": target, "OPTIONS": options}
    if world == "MAILERS":
        # Beside it Django knows no EMAIL_*.
        for name in [name for name in dir(settings) if name.startswith("EMAIL_")]:
            delattr(settings, name)
        settings.MAILERS = {"default": {"BACKEND": QUEUE, "OPTIONS": {"using": "behind", **queue}}, "behind": behind}
        return
    settings.EMAIL_BACKEND = QUEUE
    settings.CONGRESSY_MAILER = {
        **settings.CONGRESSY_MAILER, "TRANSPORTS": {"behind": behind},
        "BACKEND_OPTIONS": {"using": "behind", **queue},
    }  # fmt: skip


@pytest.fixture(params=WORLDS)
def server(
    request: pytest.FixtureRequest, smtp_server: LocalSparkPost, settings: Any, published: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> LocalSparkPost:  # fmt: skip
    """A mail server behind the queue, in each way of configuring it."""
    for name, value in smtp_server.environment().items():
        monkeypatch.setenv(name, value)
    put_in_force(
        settings, request.param, SMTP,
        {"host": "localhost", "port": smtp_server.port, "username": "SMTP_Injection", "password": smtp_server.password,
         "use_tls": True},
    )  # fmt: skip
    return smtp_server


class Collecting(BaseEmailBackend):
    """A backend of another kind than SMTP: it looks into mails, as those of providers do."""

    mails: list[Any] = []

    def send_messages(self, email_messages: Any) -> int:
        self.mails.extend(email_messages)
        return len(email_messages)


class Patient(Collecting):
    """Has a timeout for connecting and one for reading, as clients of HTTP have."""

    timeout = (5, 60)


class Wrapping(BaseEmailBackend):
    """A backend that gives its mail to the default one, which is the queue."""

    def send_messages(self, email_messages: Any) -> int:
        return sum(self.again(one) for one in email_messages)

    def again(self, one: EmailMessage) -> int:
        return open_default().send_messages([one])


class Copying(Wrapping):
    """The same with a copy, which has a Message-ID of its own."""

    def again(self, one: EmailMessage) -> int:
        return super().again(EmailMessage(one.subject, one.body, one.from_email, one.to))


def open_default() -> Any:
    return mail.mailers.default if django.VERSION >= (6, 1) else mail.get_connection()


@pytest.fixture
def collected(settings: Any, published: list[str]) -> Iterator[list[Any]]:
    """A backend behind the queue that looks into mails, and what it was given."""
    put_in_force(settings, WORLDS[-1], f"{__name__}.Collecting", {})
    Collecting.mails.clear()
    yield Collecting.mails
    Collecting.mails.clear()


def rich_mail(**options: Any) -> EmailMultiAlternatives:
    rich = EmailMultiAlternatives(
        "Inscrição", "Olá, Ana.", "Evento <evento@example.com>", ["Ana <ana@example.com>"], cc=["eva@example.com"],
        bcc=["rui@example.com"], reply_to=["resposta@example.com"], headers={"X-Order": "7"}, **options,
    )  # fmt: skip
    rich.attach_alternative("<p>Olá, <b>Ana</b>.</p>", "text/html")
    rich.attach("nota.txt", "ção", "text/plain")
    rich.attach("boleto.pdf", b"%PDF-1", "application/pdf")
    return rich


def decoded(content: bytes) -> list[tuple[str, Any]]:
    """What a reader sees of a mail, part by part."""
    root = email.message_from_bytes(content.replace(b"\r\n", b"\n"), policy=email.policy.default)
    heads = [(name, str(value)) for name, value in root.items() if name != "Content-Type"]
    leaves = [part for part in root.walk() if not part.is_multipart()]
    contents = [part.get_content() for part in leaves]
    # Base64 keeps line breaks as they were written.
    texts = [one.replace("\r\n", "\n") if isinstance(one, str) else one for one in contents]
    return [*heads, *zip((part.get_content_type() for part in leaves), texts, strict=True)]


# What arrives


@pytest.mark.urls("django.contrib.auth.urls")
def test_a_password_reset_is_stored_and_arrives(server: LocalSparkPost) -> None:
    user = get_user_model().objects.create_user("ana", "ana@example.com", "secret")
    form = PasswordResetForm({"email": user.email})
    assert form.is_valid()
    form.save(domain_override="example.com", from_email="site@example.com")
    row = Message.objects.get()
    assert (row.state, row.to, row.sensitive, row.using) == (State.QUEUED, ["ana@example.com"], True, "")
    assert len(server.mailbox) == 0
    (delivered,) = deliver_all()
    assert delivered.state == State.SENT, delivered.reason
    (received,) = server.mailbox
    assert (received.sender, received.recipients) == ("site@example.com", ("ana@example.com",))
    assert received.message["Message-ID"] == row.message_id
    assert "/reset/" in received.message.get_content()
    # The link is nobody's any more.
    delivered.refresh_from_db()
    assert (delivered.mime, delivered.subject) == (None, "")


@pytest.mark.database
def test_what_arrives_is_what_django_writes(server: LocalSparkPost) -> None:
    rich = rich_mail()
    rich.extra_headers |= {"Message-ID": "<own@example.com>", "Date": "Mon, 02 Jan 2006 15:04:05 +0000"}
    expected = decoded(rich.message().as_bytes())
    assert rich.send() == 1
    stored = bytes(Message.objects.get().mime or b"")
    assert stored.isascii()
    deliver_all()
    (received,) = server.mailbox
    assert received.content == stored
    assert decoded(received.content) == expected
    assert received.sender == "evento@example.com"
    assert received.recipients == ("ana@example.com", "eva@example.com", "rui@example.com")
    assert b"rui@" not in received.content


class Signed(EmailMessage):
    """Signs what it says: nobody may write it anew."""

    charset = "utf-8"

    def message(self) -> Any:
        signed = MIMEMultipart("signed", protocol="application/pgp-signature", micalg="pgp-sha256")
        text = MIMEText("Olá\nFrom here on…\n", "plain")
        text.set_payload("Olá ção\nFrom here on\n".encode(self.charset))
        text.replace_header("Content-Transfer-Encoding", "8bit")
        signed.attach(text)
        signed.attach(MIMEText("-----BEGIN PGP SIGNATURE-----\n", "plain"))
        signed["Subject"], signed["From"], signed["To"] = "Signed", self.from_email, self.to[0]
        return signed


def test_a_signed_mail_is_not_written_anew(server: LocalSparkPost) -> None:
    Signed("Signed", "", "a@example.com", ["ana@example.com"]).send()
    deliver_all()
    (received,) = server.mailbox
    # Eight bits and a line that begins with From, as they were signed.
    assert "Olá ção\r\nFrom here on\r\n".encode() in received.content


def test_what_json_cannot_carry_is_refused_before_sparkpost_is_asked(
    sparkpost_api: ScriptedHttps, settings: Any, published: list[str]
) -> None:
    put_in_force(settings, WORLDS[-1], "congressy_mailer.sparkpost.backend.EmailBackend", {})

    class Latin(Signed):
        charset = "latin-1"

    Latin("Signed", "", "a@example.com", ["ana@example.com"]).send()
    (message,) = deliver_all()
    assert message.state == State.FAILED
    assert sparkpost_api.requests == []


class Elsewhere(EmailMessage):
    """Goes to others than it names."""

    def recipients(self) -> list[str]:
        return ["real@example.com"]


def test_the_envelope_is_what_recipients_says(server: LocalSparkPost) -> None:
    Elsewhere("x", "y", "bounce@example.com", ["list@example.com"], headers={"From": "Me <me@example.com>"}).send()
    row = Message.objects.get()
    assert row.recipients == ["real@example.com"]
    deliver_all()
    (received,) = server.mailbox
    assert (received.sender, received.recipients) == ("bounce@example.com", ("real@example.com",))
    assert received.message["To"] == "list@example.com"
    assert received.message["From"] == "Me <me@example.com>"


def test_a_resent_mail_is_the_same(server: LocalSparkPost) -> None:
    backend = EmailBackend(sensitive=False, using="behind")
    backend.send_messages([rich_mail()])
    (delivered,) = deliver_all()
    delivered.resend()
    deliver_all()
    first, second = server.mailbox
    assert first.content == second.content
    assert first.recipients == second.recipients


def test_a_header_for_sparkpost_is_one_with_our_own(server: LocalSparkPost, settings: Any) -> None:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "SPARKPOST_HEADER": "always"}
    header = '{"campaign_id": "spring", "metadata": {"order": "7"}, "options": {"open_tracking": true}}'
    EmailMessage("x", "y", "a@example.com", ["ana@example.com"], headers={"X-MSYS-API": header}).send()
    (delivered,) = deliver_all()
    (received,) = server.mailbox
    (value,) = received.message.get_all("X-MSYS-API")
    assert '"campaign_id": "spring"' in value
    assert '"order": "7"' in value
    assert delivered.id.hex in value
    assert '"open_tracking": true' in value


# What a backend that looks into mails is given


def test_another_backend_is_given_all_parts(collected: list[Any]) -> None:
    rich_mail().send()
    wire = bytes(Message.objects.get().mime or b"")
    deliver_all()
    (given,) = collected
    assert (given.subject, given.body, given.content_subtype) == ("Inscrição", "Olá, Ana.", "plain")
    assert [tuple(one) for one in given.alternatives] == [("<p>Olá, <b>Ana</b>.</p>", "text/html")]
    assert [part.get_filename() for part in given.attachments] == ["nota.txt", "boleto.pdf"]
    assert given.attachments[1].get_payload(decode=True) == b"%PDF-1"
    assert (given.to, given.cc, given.bcc) == (["Ana <ana@example.com>"], ["eva@example.com"], ["rui@example.com"])
    assert (given.reply_to, given.from_email) == (["resposta@example.com"], "Evento <evento@example.com>")
    # Only what its author has set: some providers refuse a Message-ID.
    assert given.extra_headers == {"X-Order": "7"}
    line_break = {"linesep": "\r\n"} if django.VERSION < (6, 0) else {"policy": email.policy.SMTP}
    assert given.message().as_bytes(**line_break) == wire


def test_a_text_that_another_backend_reads_has_line_breaks_as_pythons_messages_have_them(collected: list[Any]) -> None:
    EmailMessage("x", "one\ntwo\n", "a@example.com", ["ana@example.com"]).send()
    deliver_all()
    assert collected[0].message().get_content() == "one\ntwo\n"


def test_another_backend_is_given_mail_that_is_html_alone(collected: list[Any]) -> None:
    html = EmailMessage("x", "<p>Olá</p>", "a@example.com", ["ana@example.com"])
    html.content_subtype = "html"
    html.send()
    deliver_all()
    (given,) = collected
    assert (given.body, given.content_subtype, given.alternatives) == ("<p>Olá</p>", "html", [])


def test_a_header_that_a_backend_adds_leaves_the_other_bytes(collected: list[Any]) -> None:
    rich_mail().send()
    wire = bytes(Message.objects.get().mime or b"")
    deliver_all()
    (given,) = collected
    given.extra_headers["X-Tag"] = "welcome"
    line_break = {"linesep": "\r\n"} if django.VERSION < (6, 0) else {"policy": email.policy.SMTP}
    assert given.message().as_bytes(**line_break) == b"X-Tag: welcome\r\n" + wire


@pytest.mark.database
def test_attributes_of_anymail_arrive(settings: Any, published: list[str]) -> None:
    from anymail.message import AnymailMessage

    put_in_force(settings, WORLDS[-1], "anymail.backends.test.EmailBackend", {})
    at = timezone.now() + timedelta(hours=1)
    AnymailMessage(
        "x", "Body", "a@example.com", ["ana@example.com"], tags=["welcome"], metadata={"order": 7}, track_opens=True,
        template_id="t-1", merge_data={"ana@example.com": {"name": "Ana"}}, esp_extra={"sandbox": True}, send_at=at,
        attachments=[("a.pdf", b"%PDF", "application/pdf")],
    ).send()  # fmt: skip
    (delivered,) = deliver_all()
    assert delivered.state == State.SENT, delivered.reason
    (sent,) = mail.outbox
    given = sent.anymail_test_params
    assert given["tags"] == ["welcome"]
    assert given["metadata"] == {"order": 7}
    assert given["track_opens"] is True
    assert given["template_id"] == "t-1"
    assert given["merge_data"] == {"ana@example.com": {"name": "Ana"}}
    assert given["send_at"] == at
    assert given["text_body"] == "Body"
    assert [one.name for one in given["attachments"]] == ["a.pdf"]
    assert "track_clicks" not in given


def test_further_attributes_are_named_by_an_option(collected: list[Any], settings: Any) -> None:
    put_in_force(settings, WORLDS[-1], f"{__name__}.Collecting", {}, attributes=["account"])
    one = EmailMessage("x", "y", "a@example.com", ["ana@example.com"])
    one.account = "north"  # type: ignore[attr-defined]
    one.send()
    deliver_all()
    assert collected[0].account == "north"
    with pytest.raises(exceptions.InvalidOption, match="attributes must be a list of names"):
        EmailBackend(attributes=["wire"])


# What is stored, and what callers are told


def test_it_is_counted_as_django_counts(server: LocalSparkPost) -> None:
    backend = open_default()
    assert backend.send_messages([]) == 0
    assert backend.send_messages(None) == 0
    assert backend.send_messages([EmailMessage("x", "y", "a@example.com", [])]) == 0
    assert EmailMessage("x", "y", "a@example.com", ["ana@example.com"]).send() == 1
    several = (EmailMessage("x", "y", "a@example.com", [f"a{n}@example.com"]) for n in range(3))
    with backend as entered:
        assert entered is backend
        assert backend.send_messages(several) == 3
    assert backend.open() is None
    assert backend.close() is None
    assert Message.objects.count() == 4


@pytest.mark.database
def test_many_mails_are_one_publish_and_few_queries(
    server: LocalSparkPost, published: list[str], django_capture_on_commit_callbacks: Any,
    django_assert_max_num_queries: Any,
) -> None:  # fmt: skip
    mails = [EmailMessage("x", "y", "a@example.com", [f"a{n}@example.com"]) for n in range(100)]
    with django_capture_on_commit_callbacks(execute=True):
        assert open_default().send_messages(mails) == 100
        assert published == []
    assert published == ["deliver"]
    more = [EmailMessage("x", "y", "a@example.com", [f"b{n}@example.com"]) for n in range(100)]
    # SQLite takes so many parameters in one statement, and others more.
    with django_assert_max_num_queries(50):
        open_default().send_messages(more)


def test_one_wrong_mail_among_several_stores_none(server: LocalSparkPost) -> None:
    mails = [EmailMessage("x", "y", "a@example.com", [to]) for to in ("a@x.com", "b@x.com", "no, body@", "c@x.com")]
    with pytest.raises(ValueError, match="Invalid address"):
        EmailBackend(fail_silently=True).send_messages(mails)
    with pytest.raises(ValueError, match="newlines|line"):
        EmailMessage("x\ny", "y", "a@example.com", ["a@x.com"]).send()
    assert not Message.objects.exists()


WRONG = [
    "Last, First <a@x.com>", "a@x.com, b@x.com", "a@x.com.", "a@b@c.com", "Undisclosed:;", "to@", "@example.com",
    "a@x.com\nBcc: b@x.com", "josé@example.com",
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("field", ["to", "bcc", "from_email"])
def test_addresses_that_django_refuses_are_errors_at_the_call(collected: list[Any], wrong: str, field: str) -> None:
    values: dict[str, Any] = {"from_email": "a@example.com", "to": ["b@example.com"]}
    values[field] = wrong if field == "from_email" else [wrong]
    with pytest.raises(ValueError, match="."):
        EmailMessage("x", "y", **values).send()
    assert not Message.objects.exists()


@pytest.mark.parametrize(
    ("given", "bare"),
    [
        ("root@web1", "root@web1"),
        ("webmaster", "webmaster"),
        ('"quoted local"@example.com', '"quoted local"@example.com'),
        ("Último <ana@example.com>", "ana@example.com"),
        ('"Last, First" <ana@example.com>', "ana@example.com"),
        ("to@éxample.com", "to@xn--xample-9ua.com"),
        ("to@xn--4ca9at.com", "to@xn--4ca9at.com"),
    ],
)
def test_addresses_that_django_sends_to_are_sent_to(collected: list[Any], given: str, bare: str) -> None:
    EmailMessage("x", "y", given, [given]).send()
    row = Message.objects.get()
    assert row.envelope == [bare]
    (delivered,) = deliver_all()
    assert delivered.state == State.SENT, delivered.reason
    from congressy_mailer.transports.base import ComposedMail
    from congressy_mailer.transports.envelope import envelope_for

    envelope = envelope_for(ComposedMail(row.id, collected[0]))
    assert (envelope.problem, envelope.refused) == (None, {})
    assert envelope.sender == bare


class Failing:
    """A database that takes no messages."""

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("INSERT"):
            raise django.db.OperationalError("server has gone away")
        return execute(sql, params, many, context)


@pytest.mark.database
def test_trouble_while_storing_is_of_the_kind_that_callers_expect(server: LocalSparkPost) -> None:
    one = EmailMessage("x", "y", "a@example.com", ["ana@example.com"])
    with connection.execute_wrapper(Failing()):
        with pytest.raises(smtplib.SMTPException, match="could not be stored: .*gone away") as raised:
            one.send()
        assert isinstance(raised.value, MailNotStored)
        assert isinstance(raised.value, OSError)
        with transaction.atomic():
            assert EmailBackend(fail_silently=True).send_messages([one]) == 0
            # The caller's transaction lives.
            assert Message.objects.count() == 0
    assert EmailBackend().send_messages([one]) == 1


def test_the_callers_object_is_not_changed_and_may_be_sent_again(server: LocalSparkPost) -> None:
    one = rich_mail()
    before = {name: repr(value) for name, value in vars(one).items()}
    one.send()
    first = one.mailer_message  # type: ignore[attr-defined]
    assert isinstance(first, Message)
    one.to = ["eva@example.com"]
    one.send()
    del one.mailer_message  # type: ignore[attr-defined]
    one.to = ["Ana <ana@example.com>"]
    assert {name: repr(value) for name, value in vars(one).items() if name != "connection"} == {
        name: value for name, value in before.items() if name != "connection"
    }
    rows = Message.objects.order_by("id")
    assert [row.to for row in rows] == [["Ana <ana@example.com>"], ["eva@example.com"]]
    assert len({row.message_id for row in rows}) == 2


def test_a_mail_is_written_at_the_call_and_once(server: LocalSparkPost, monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup() -> str:
        raise AssertionError("the name of this host was looked up")

    one = EmailMessage(lazystr("Title"), lazystr("Body"), "a@example.com", [lazystr("ana@example.com")])
    # At the call alone: a worker says who it is to the mail server.
    with monkeypatch.context() as at_the_call:
        at_the_call.setattr("socket.getfqdn", lookup)
        at_the_call.setattr("django.core.mail.message.DNS_NAME", lookup)
        with translation.override("de"), timezone.override("America/Manaus"), override_settings(USE_TZ=True):
            one.send()
    one.subject = "Changed"
    one.to.append("eva@example.com")
    deliver_all()
    (received,) = server.mailbox
    assert received.message["Subject"] == "Title"
    assert received.recipients == ("ana@example.com",)


def test_options_say_how_it_is_stored(server: LocalSparkPost) -> None:
    backend = EmailBackend(
        using="behind", priority=Priority.HIGH, sensitive=False, expires_after=timedelta(hours=1), fail_silently=False
    )
    backend.send_messages([rich_mail()])
    row = Message.objects.get()
    assert (row.priority, row.sensitive, row.subject) == (Priority.HIGH, False, "Inscrição")
    assert row.expires_at is not None
    assert row.expires_at - row.created_at <= timedelta(hours=1)
    deliver_all()
    row.refresh_from_db()
    assert row.mime is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"username": "me", "password": "secret"}, "name it with using"),
        ({"priority": "high"}, "priority"),
        ({"sensitive": "no"}, "sensitive"),
        ({"expires_after": 60}, "expires_after must be a timedelta"),
        ({"using": 3}, "using must be the alias"),
    ],
)
def test_options_that_mean_nothing_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(exceptions.InvalidOption, match=message):
        EmailBackend(**options)
    assert EmailBackend(username=None, password=None, fail_silently=None).fail_silently is False  # type: ignore[arg-type]


def test_a_suppressed_recipient_gets_none_and_the_caller_is_told_nothing(server: LocalSparkPost) -> None:
    from congressy_mailer.suppressions import suppress

    suppress("ana@example.com", scope="transactional")
    assert EmailMessage("x", "y", "a@example.com", ["ana@example.com"]).send() == 1
    assert Message.objects.get().state == State.SUPPRESSED


@pytest.mark.database
def test_a_large_mail_waits_in_the_storage_of_attachments(server: LocalSparkPost) -> None:
    one = rich_mail()
    one.attach("large.bin", bytes(range(256)) * 2000, "application/octet-stream")
    one.send()
    row = Message.objects.get()
    assert row.mime is not None
    assert bytes(row.mime) == b""
    path = Attachment.objects.get().file.name
    (delivered,) = deliver_all()
    assert delivered.state == State.SENT, delivered.reason
    (received,) = server.mailbox
    (large,) = [part for part in received.message.iter_attachments() if part.get_filename() == "large.bin"]
    assert large.get_content() == bytes(range(256)) * 2000
    assert path.startswith("congressy_mailer/")


def test_one_server_has_one_name(server: LocalSparkPost) -> None:
    assert send_ours("x", "y", to="ana@example.com", using="behind").using == ""
    assert send_ours("x", "y", to="ana@example.com").using == ""
    assert aliases.delivery_alias("") == "behind"
    assert [one.state for one in deliver_all()] == [State.SENT, State.SENT]


# The server's own mail


@pytest.fixture
def people(settings: Any) -> None:
    settings.ADMINS = ["root@example.com"] if django.VERSION >= (6, 0) else [("Root", "root@example.com")]
    settings.SERVER_EMAIL = "server@example.com"


@pytest.mark.database
def test_error_mail_leaves_at_once_whatever_becomes_of_the_transaction(server: LocalSparkPost, people: None) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        mail.mail_admins("Broken", "A traceback.")
        raise ZeroDivisionError
    with connection.execute_wrapper(Failing()):
        mail.mail_admins("No database", "A traceback.")
    with transaction.atomic():
        transaction.set_rollback(True)
        mail.mail_admins("In a broken transaction", "A traceback.")
    asyncio.run(_mail_admins_in_a_coroutine())
    assert not Message.objects.exists()
    assert len(server.mailbox) == 4
    assert {one.recipients for one in server.mailbox} == {("root@example.com",)}


async def _mail_admins_in_a_coroutine() -> None:
    mail.mail_admins("In a coroutine", "A traceback.")


def test_error_mail_never_raises(settings: Any, people: None, caplog: pytest.LogCaptureFixture) -> None:
    put_in_force(settings, WORLDS[-1], SMTP, {"host": "127.0.0.1", "port": 1})
    mail.mail_admins("Broken", "A traceback.")
    assert "not sent: ConnectionRefusedError" in caplog.text
    assert "traceback" not in caplog.text


def test_error_mail_leaves_over_a_backend_with_two_timeouts(collected: list[Any], settings: Any, people: None) -> None:
    put_in_force(settings, WORLDS[-1], f"{__name__}.Patient", {})
    mail.mail_admins("Broken", "A traceback.")
    assert [one.subject for one in collected] == [f"{settings.EMAIL_SUBJECT_PREFIX}Broken"]


def test_an_error_while_delivering_makes_no_error_mail(server: LocalSparkPost, people: None) -> None:
    from django.utils.log import AdminEmailHandler

    handler = AdminEmailHandler()
    logging.getLogger("congressy_mailer").addHandler(handler)
    try:
        message = send_ours("x", "y", to="ana@example.com")
        # It can never be composed.
        Message.objects.update(from_email="not an address at all", headers={"Bad\nName": "x"})
        (delivered,) = deliver_all()
        assert delivered.id == message.id
        assert delivered.state == State.FAILED
    finally:
        logging.getLogger("congressy_mailer").removeHandler(handler)
    assert len(server.mailbox) == 0
    assert Message.objects.count() == 1


def test_mail_of_the_server_to_others_is_queued(server: LocalSparkPost, people: None) -> None:
    EmailMessage("x", "y", "server@example.com", ["root@example.com", "ana@example.com"]).send()
    assert Message.objects.count() == 1


# Circles


def test_a_backend_that_gives_mail_back_to_the_queue_is_unavailable(settings: Any, published: list[str]) -> None:
    put_in_force(settings, WORLDS[-1], f"{__name__}.Wrapping", {})
    rich_mail().send()
    with pytest.raises(exceptions.TransportUnavailable, match="gives its mail back to the queue"):
        deliver_all()
    row = Message.objects.get()
    assert (row.state, row.crashes, row.attempts) == (State.QUEUED, 0, 0)


def test_a_backend_that_queues_copies_ends_after_a_few(settings: Any, published: list[str]) -> None:
    put_in_force(settings, WORLDS[-1], f"{__name__}.Copying", {})
    rich_mail().send()
    for _ in range(2):
        deliver_all()
    with pytest.raises(exceptions.TransportUnavailable, match="gives its mail back to the queue"):
        deliver_all()
    assert Message.objects.count() == 3


@pytest.mark.parametrize("world", WORLDS)
def test_a_queue_behind_a_queue_is_no_backend(settings: Any, published: list[str], world: str) -> None:
    put_in_force(settings, world, QUEUE, {"using": "behind"})
    rich_mail().send()
    with pytest.raises(exceptions.TransportUnavailable, match="which queues it again"):
        deliver_all()


# Coroutines


@pytest.mark.django_db(transaction=True)
@pytest.mark.database
def test_mail_out_of_a_coroutine_is_stored(server: LocalSparkPost) -> None:
    async def view() -> int:
        return EmailMessage("x", "y", "a@example.com", ["ana@example.com"]).send()

    assert asyncio.run(view()) == 1
    assert Message.objects.count() == 1
    assert [one.state for one in deliver_all()] == [State.SENT]


class TestAttributesOfAnymailForSparkPost:
    @pytest.fixture(autouse=True)
    def smtp(self, settings: Any, published: list[str]) -> None:
        put_in_force(settings, WORLDS[-1], SMTP, {"host": "localhost"})

    def test_they_are_what_send_mail_takes(self) -> None:
        from anymail.message import AnymailMessage

        later = timezone.now() + timedelta(hours=1)
        AnymailMessage(
            "x", "y", "a@example.com", ["ana@example.com"], tags=["welcome"], metadata={"order": "7"},
            track_opens=True, track_clicks=False, send_at=later,
        ).send()  # fmt: skip
        message = Message.objects.get()
        assert (message.campaign, message.tags, message.metadata) == ("welcome", ["welcome"], {"order": "7"})
        assert message.sparkpost == {"options": {"open_tracking": True, "click_tracking": False}}
        assert (message.state, message.send_at) == (State.SCHEDULED, later)

    def test_they_may_be_set_on_any_mail(self) -> None:
        one = EmailMessage("x", "y", "a@example.com", ["ana@example.com"])
        one.tags, one.send_at = ["a", "b"], timezone.now().replace(tzinfo=None)  # type: ignore[attr-defined]
        one.send()
        message = Message.objects.get()
        assert (message.campaign, message.tags) == ("", ["a", "b"])
        assert message.send_at is not None

    def test_what_sparkpost_would_refuse_or_does_not_know_is_logged_and_the_mail_sent(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        one = EmailMessage("x", "y", "a@example.com", ["ana@example.com"])
        one.tags = ["secret"] * 11  # type: ignore[attr-defined]
        one.metadata, one.track_opens = {"order": "7"}, "yes"  # type: ignore[attr-defined]
        one.merge_data, one.send_at = {"ana@example.com": {}}, "tomorrow"  # type: ignore[attr-defined]
        with caplog.at_level(logging.WARNING):
            one.send()
        message = Message.objects.get()
        assert (message.tags, message.metadata, message.send_at) == ([], {"order": "7"}, None)
        assert caplog.messages == [
            "A mail has merge_data set, which django-anymail's backends know and the mail backend behind the queue "
            "does not.",
            "A mail is sent without its tags, which SparkPost would refuse.",
            "A mail is sent without its track_opens, which SparkPost would refuse.",
            "A mail is not scheduled: send_at must be a datetime, not str.",
        ]

    def test_another_providers_backend_reads_them_itself(self, settings: Any) -> None:
        put_in_force(settings, WORLDS[-1], "anymail.backends.test.EmailBackend", {})
        one = EmailMessage("x", "y", "a@example.com", ["ana@example.com"])
        one.tags = ["welcome"]  # type: ignore[attr-defined]
        one.send()
        assert Message.objects.get().tags == []
