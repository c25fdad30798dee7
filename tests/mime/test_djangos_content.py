"""What Django promises of its mail's text, its alternatives and its call, asked of ``send_mail()``.

Each test is one behaviour that Django's own tests hold, said as a call; where ours is another, the test says why.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import override_settings

from congressy_mailer import exceptions, send_mail
from congressy_mailer.mime.outgoing import OutgoingMail
from congressy_mailer.transports.base import ComposedMail
from congressy_mailer.transports.envelope import envelope_for
from tests.support.djangos_mail import ANA, EVA, SENDER, read, sent, structure

pytestmark = pytest.mark.django_db


# Content


def test_no_text_is_an_empty_text() -> None:
    got = read(sent("s", None))
    assert (got.get_content(), got.get_content_type()) == ("", "text/plain")


def test_html_stands_beside_the_text() -> None:
    got = read(sent(html_message="<p>Olá</p>"))
    assert structure(got) == ["alternative", "text/plain", "text/html"]
    assert got.get_body(("html",)).get_content() == "<p>Olá</p>"
    assert got.get_body(("plain",)).get_content() == "Texto"


def test_html_alone_gets_a_text() -> None:
    """Django sends it alone."""
    got = read(sent("s", "", html_message="<p>Olá</p>"))
    assert structure(got) == ["alternative", "text/plain", "text/html"]
    assert got.get_body(("plain",)).get_content().strip() == "Olá"


def test_alternatives_of_other_types() -> None:
    got = read(sent(alternatives=[("BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n", "text/calendar; method=REQUEST")]))
    assert structure(got) == ["alternative", "text/plain", "text/calendar"]
    invitation = list(got.iter_parts())[1]
    assert invitation["Content-Type"].params["method"] == "REQUEST"
    assert invitation.get_content() == "BEGIN:VCALENDAR\nEND:VCALENDAR\n"


def test_alternatives_stand_in_the_order_in_which_they_are_better() -> None:
    """Django keeps the order of the calls. Here HTML is an argument of its own, so its place follows from the types."""
    given = [("BEGIN:VCALENDAR", "text/calendar"), ("<html ⚡4email>", "text/x-amp-html")]
    got = read(sent(html_message="<p>Olá</p>", alternatives=given))
    assert structure(got) == ["alternative", "text/plain", "text/x-amp-html", "text/html", "text/calendar"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("text", "must be a list"),
        ([("a", "b", "c")], r"alternatives\[0\] must be \(text, media type\)"),
        ([("a", None)], "is not a media type"),
        ([(b"a", "text/calendar")], "must be text, not bytes"),
        ([("a", "text/html")], "give text/html as html_message="),
        ([("a", "text/plain")], "give text/plain as message="),
        ([("a", "application/pdf")], "give it as an attachment"),
        ([("a", "text/calendar; charset=iso-8859-1")], "written in UTF-8"),
        ([("a\x00", "text/calendar")], "no mail can carry"),
        ([(" ", "text/calendar")], "is empty"),
        ([("ç" * 100_001, "text/calendar")], "the most is 200,000"),
    ],
)
def test_alternatives_that_are_refused(given: Any, message: str) -> None:
    """Django takes bytes and any type, and finds out when the mail is built."""
    with pytest.raises(exceptions.InvalidOption, match=message):
        send_mail("s", "b", SENDER, ANA, alternatives=given)


def test_a_backend_sees_what_there_is() -> None:
    mail = sent("Olá", "Texto", cc=EVA, html_message="<p>Olá</p>", alternatives=[("BEGIN", "text/calendar")])
    assert (mail.subject, mail.body, mail.from_email, mail.to, mail.cc) == ("Olá", "Texto", SENDER, [ANA], [EVA])
    assert [tuple(one) for one in mail.alternatives] == [("<p>Olá</p>", "text/html"), ("BEGIN", "text/calendar")]
    assert mail.body_contains("Texto") is False  # It is in the text, and not in the other two.


def test_mail_is_utf_8() -> None:
    """Django writes it as ``EmailMessage.encoding`` or ``DEFAULT_CHARSET`` says; every reader knows UTF-8."""
    with override_settings(DEFAULT_CHARSET="iso-8859-1"):
        got = read(sent("s", "Inscrição"))
    assert (got.get_content_charset(), got.get_content()) == ("utf-8", "Inscrição")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Only ASCII.\n", "7bit"),
        ("ç" * 10 + " mostly ASCII letters, and so on, until there are few others " * 3, "quoted-printable"),
        ("日本語のメール" * 20, "base64"),
        ("a" * 998, "7bit"),
        ("a" * 999, "quoted-printable"),
    ],
)
def test_the_body_is_as_readable_as_it_can_be(text: str, encoding: str) -> None:
    """Django sends some of it in eight bits; ASCII goes everywhere and is not written anew on the way."""
    got = read(sent("s", text))
    assert got["Content-Transfer-Encoding"] == encoding
    assert got.get_content().rstrip("\n") == text.rstrip("\n")


@pytest.mark.parametrize("text", ["From now on\n", "a\nFrom b\n", ".\n..\n", "a\r\nb\rc\n"])
def test_lines_arrive_as_they_are(text: str) -> None:
    mail = sent("s", text)
    assert read(mail).get_content() == text.replace("\r\n", "\n").replace("\r", "\n")
    sent_over = envelope_for(ComposedMail(send_mail("s", "b", to=ANA).pk, mail)).write_out()
    assert (
        sent_over.replace(b"\r\n..", b"\r\n.")
        == mail.wire + (b"" if mail.wire.endswith(b"\r\n") else b"\r\n") + b".\r\n"
    )


# The call


def test_everything_but_the_recipient_may_be_left_out(caplog: pytest.LogCaptureFixture) -> None:
    got = read(sent("", ""))
    assert (got["Subject"], got.get_content()) == ("", "")
    assert "A mail has no subject" in caplog.text


def test_the_first_four_arguments_stand_where_django_has_them() -> None:
    message = send_mail("Subject", "Content", SENDER, [ANA], fail_silently=False, html_message="<p>Content</p>")
    assert (message.subject, message.text, message.from_email, message.to) == ("Subject", "Content", SENDER, [ANA])
    assert message.html == "<p>Content</p>"


@pytest.mark.parametrize("call", [{"auth_user": "u"}, {"auth_password": "p"}, {"connection": None}])
def test_what_belongs_to_a_connection_is_no_argument(call: dict[str, Any]) -> None:
    """Django opens a connection in the call. A worker has its own, by the name in ``using=``."""
    with pytest.raises(TypeError, match=next(iter(call))):
        send_mail("s", "b", SENDER, [ANA], **call)


def test_failing_silently_hides_no_mistake() -> None:
    """Django is silent about the server; that is never the caller's here. A wrong argument is, as it is with Django."""
    with pytest.raises(exceptions.InvalidHeader):
        send_mail("a\nb", "b", SENDER, [ANA], fail_silently=True)


def test_an_unknown_backend_is_an_error() -> None:
    with pytest.raises(exceptions.InvalidOption, match="is not a mail backend"):
        send_mail("s", "b", SENDER, [ANA], using="nowhere")


CHANGES: list[Callable[[OutgoingMail], object]] = [
    lambda mail: mail.attach("b.txt", "Olá", "text/plain"),
    lambda mail: mail.attach_alternative("BEGIN:VCALENDAR", "text/calendar"),
    lambda mail: setattr(mail, "subject", "=?utf-8?q?a=0D=0Ab?="),
    lambda mail: setattr(mail, "body", mail.body + "Rodapé"),
    lambda mail: mail.extra_headers.update({"X-Um": "ção"}),
    lambda mail: mail.cc.append(EVA),
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_backend_changes_is_written(change: Callable[[OutgoingMail], object]) -> None:
    mail = sent(html_message='<img src="cid:logo">', attachments=[("a.pdf", b"%PDF")])
    before = mail.message().as_bytes()
    change(mail)
    after = read(mail) if mail.message() else None
    assert after.as_bytes() != before
    assert "Bcc" not in after and after["From"] == SENDER
    assert "a.pdf" in [part.get_filename() for part in after.walk()]
