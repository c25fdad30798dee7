"""Mail of Django over the queue: what a server gets, and what a backend is given that looks into mails."""

from __future__ import annotations

import email
import email.policy
from email.encoders import encode_base64
from email.mime.base import MIMEBase
from typing import Any

import django
import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.forms import PasswordResetForm
from django.core.mail import EmailAttachment, EmailMessage, EmailMultiAlternatives

from congressy_mailer import exceptions
from congressy_mailer.backends import EmailBackend
from congressy_mailer.mime.outgoing import django_part
from congressy_mailer.models import Message, State
from congressy_mailer.testing import deliver_all
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from congressy_mailer.transports.stored_mail import stored_mail
from tests.support.drop_in import WORLDS, Collecting, Signed, put_in_force, rich_mail
from tests.support.scripted_https import ScriptedHttps

pytestmark = [pytest.mark.django_db, pytest.mark.email_settings]


def decoded(content: bytes) -> list[tuple[str, Any]]:
    """What a reader sees of a mail, part by part."""
    root = email.message_from_bytes(content.replace(b"\r\n", b"\n"), policy=email.policy.default)
    heads = [(name, str(value)) for name, value in root.items() if name != "Content-Type"]
    leaves = [part for part in root.walk() if not part.is_multipart()]
    contents = [part.get_content() for part in leaves]
    # Base64 keeps line breaks as they were written.
    texts = [one.replace("\r\n", "\n") if isinstance(one, str) else one for one in contents]
    return [*heads, *zip((part.get_content_type() for part in leaves), texts, strict=True)]


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
    assert given.attachments == rich_mail().attachments
    assert (given.to, given.cc, given.bcc) == (["Ana <ana@example.com>"], ["eva@example.com"], ["rui@example.com"])
    assert (given.reply_to, given.from_email) == (["resposta@example.com"], "Evento <evento@example.com>")
    # Only what its author has set: some providers refuse a Message-ID.
    assert given.extra_headers == {"X-Order": "7"}
    line_break = {"linesep": "\r\n"} if django.VERSION < (6, 0) else {"policy": email.policy.SMTP}
    assert given.message().as_bytes(**line_break) == wire


def test_another_backend_is_given_attachments_as_django_has_them(collected: list[Any]) -> None:
    one = EmailMessage("x", "y", "a@example.com", ["ana@example.com"])
    for attachment in (
        ("boleto.pdf", b"%PDF-1\r\n\x00", "application/pdf"),
        ("inscrição; dia 1.txt", "Olá,\n\nAna", "text/plain"),
        ("lista.csv", "a;ção".encode(), "text/csv"),
        ("latin.csv", b"a;\xe7\xe3o", "text/csv"),
        ("evento.ics", "BEGIN:VCALENDAR", "text/calendar"),
        ("sem-tipo", b"\x00\x01", None),
        (None, b"\x89PNG", "image/png"),
        ("nada.bin", b"", "application/octet-stream"),
    ):
        one.attach(*attachment)
    one.send()
    deliver_all()
    assert collected[0].attachments == one.attachments
    assert [type(attachment) for attachment in collected[0].attachments] == [EmailAttachment] * 8
    # As tests of applications read them.
    assert collected[0].attachments[0][1] == b"%PDF-1\r\n\x00"


def test_another_backend_is_given_parts_as_parts(collected: list[Any]) -> None:
    image = django_part(b"Content-Type: image/png\r\nContent-ID: <logo>\r\nMIME-Version: 1.0\r\n\r\nx")
    shown = django_part(b'Content-Type: image/png\r\nContent-Disposition: inline; filename="a.png"\r\n\r\nx')
    dated = django_part(b'Content-Type: a/b\r\nContent-Disposition: attachment; filename="a"; size=1\r\n\r\nx')
    one = EmailMessage("x", "y", "a@example.com", ["ana@example.com"], attachments=[image, shown, dated])
    one.send()
    deliver_all()
    given = collected[0].attachments
    assert [part.get_content_type() for part in given] == ["image/png", "image/png", "a/b"]
    assert given[0]["Content-ID"] == "<logo>"
    assert given[1].get_filename() == "a.png"


def test_another_backend_is_given_a_mail_within_the_mail_as_its_bytes(collected: list[Any]) -> None:
    """django-anymail cannot send one that is a part."""
    one = EmailMessage("x", "y", "a@example.com", ["ana@example.com"])
    one.attach("inner.eml", EmailMessage("inner", "Olá", "a@example.com", ["ana@example.com"]), "message/rfc822")
    one.send()
    deliver_all()
    ((name, content, mimetype),) = collected[0].attachments
    assert (name, mimetype) == ("inner.eml", "message/rfc822")
    inner = email.message_from_bytes(content, policy=email.policy.default)
    assert (inner["Subject"], inner.get_content().rstrip()) == ("inner", "Olá")


def file_part(mimetype: str, content: bytes, **parameters: str) -> Any:
    """A part as applications make it of any file."""
    kind, _, subtype = mimetype.partition("/")
    part = MIMEBase(kind, subtype, **parameters)
    part.set_payload(content)
    encode_base64(part)
    part.add_header("Content-Disposition", "attachment", filename="lista.csv")
    return django_part(part.as_bytes())


@pytest.mark.parametrize("parameters", [{}, {"charset": "utf-8"}, {"charset": "x-unknown"}])
def test_another_backend_is_given_each_byte_of_a_text_in_another_encoding(
    collected: list[Any], parameters: dict[str, str]
) -> None:
    content = "a;ção\r\n".encode("latin-1")
    EmailMessage(
        "x", "y", "a@example.com", ["ana@example.com"], attachments=[file_part("text/csv", content, **parameters)]
    ).send()
    deliver_all()
    (part,) = collected[0].attachments
    assert (part.get_content_type(), part.get_filename()) == ("text/csv", "lista.csv")
    assert part.get_payload(decode=True) == content
    collected[0].subject = "Outro"
    files = [part for part in collected[0].message().walk() if part.get_filename()]
    assert [part.get_payload(decode=True) for part in files] == [content]


def test_another_backend_is_given_an_authors_own_part_as_it_is(collected: list[Any]) -> None:
    modern = django_part(b"Content-Type: a/b\r\nContent-Transfer-Encoding: 7bit\r\n\r\nx")
    own = file_part("text/csv", b"a;b\r\n", charset="utf-8"), file_part("application/pdf", b"%PDF"), modern
    EmailMessage("x", "y", "a@example.com", ["ana@example.com"], attachments=own).send()
    deliver_all()
    if django.VERSION < (6, 0):
        # It writes both kinds alike.
        given = [(one.mimetype, one.content) for one in collected[0].attachments[:2]]
        assert given == [("text/csv", "a;b\n"), ("application/pdf", b"%PDF")]
        return
    given = [(part.get_content_type(), part.get_payload(decode=True)) for part in collected[0].attachments]
    assert given == [("text/csv", b"a;b\r\n"), ("application/pdf", b"%PDF"), ("a/b", b"x")]
    # Some backends ask the two kinds for their content in two ways.
    assert [isinstance(part, MIMEBase) for part in collected[0].attachments] == [True, True, False]


def test_another_backend_is_given_parameters_of_a_media_type(collected: list[Any]) -> None:
    one = EmailMessage("x", "y", "a@example.com", ["ana@example.com"])
    one.attach("nota.xml", "<a>ção</a>".encode("latin-1"), "application/xml; charset=iso-8859-1")
    one.attach("nota.bin", b"x", 'application/x-nota; title="Nota 1; fim"')
    one.send()
    deliver_all()
    assert collected[0].attachments == one.attachments
    collected[0].subject = "Outro"
    written = collected[0].message().get_payload()
    assert written[1].get_param("charset") == "iso-8859-1"
    assert written[2].get_param("title") == "Nota 1; fim"


def test_a_mail_that_a_backend_changes_keeps_its_attachments(collected: list[Any]) -> None:
    one = rich_mail()
    one.send()
    deliver_all()
    collected[0].subject = "Outro"
    changed = collected[0].message()
    assert changed["Subject"] == "Outro"
    files = [(part.get_filename(), part.get_payload(decode=True)) for part in changed.walk() if part.get_filename()]
    assert files == [("nota.txt", "ção".encode()), ("boleto.pdf", b"%PDF-1")]


@pytest.mark.usefixtures("collected")
def test_what_one_backend_changes_another_one_is_not_given() -> None:
    rich_mail().send()
    row = Message.objects.get()
    mail = stored_mail(row, bytes(row.mime or b""), {})
    changed = mail.for_backend()
    changed.attachments.append(("termos.txt", "x", "text/plain"))
    changed.attach_alternative("x", "text/x-amp-html")
    changed.reply_to.append("outra@example.com")
    assert "termos.txt" in changed.message().as_string()
    given = mail.for_backend()
    assert given.attachments == rich_mail().attachments
    assert given.alternatives == rich_mail().alternatives
    assert given.reply_to == rich_mail().reply_to
    assert given.wire == bytes(row.mime or b"")


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


def test_another_backend_is_given_mail_whose_html_is_its_only_alternative(collected: list[Any]) -> None:
    one = EmailMultiAlternatives("x", "", "a@example.com", ["ana@example.com"])
    one.attach_alternative("<p>Olá</p>", "text/html")
    one.attach("nota.txt", "ção", "text/plain")
    one.send()
    deliver_all()
    (given,) = collected
    assert (given.body, given.content_subtype) == ("", "plain")
    assert (given.alternatives, given.attachments) == (one.alternatives, one.attachments)
    given.subject = "Outro"
    html, _ = (part for part in given.message().walk() if part.get_content_maintype() == "text")
    assert html.get_content().rstrip() == "<p>Olá</p>"


def test_a_header_that_a_backend_adds_leaves_the_other_bytes(collected: list[Any]) -> None:
    rich_mail().send()
    wire = bytes(Message.objects.get().mime or b"")
    deliver_all()
    (given,) = collected
    given.extra_headers["X-Tag"] = "welcome"
    line_break = {"linesep": "\r\n"} if django.VERSION < (6, 0) else {"policy": email.policy.SMTP}
    assert given.message().as_bytes(**line_break) == b"X-Tag: welcome\r\n" + wire


def test_further_attributes_are_named_by_an_option(collected: list[Any], settings: Any) -> None:
    put_in_force(settings, WORLDS[-1], f"{Collecting.__module__}.Collecting", {}, attributes=["account"])
    one = EmailMessage("x", "y", "a@example.com", ["ana@example.com"])
    one.account = "north"  # type: ignore[attr-defined]
    one.send()
    deliver_all()
    assert collected[0].account == "north"
    with pytest.raises(exceptions.InvalidOption, match="attributes must be a list of names"):
        EmailBackend(attributes=["wire"])
