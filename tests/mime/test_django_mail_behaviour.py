"""What Django promises of its mail, asked of ``send_mail()``: what its users rely on without having read it anywhere.

Each test is one behaviour that Django's own tests hold, said as a call; where ours is another, the test says why.
"""

from __future__ import annotations

import email
import email.policy
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from email.mime.base import MIMEBase
from email.mime.image import MIMEImage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import Path
from typing import Any

import pytest
from django.core.mail import EmailAttachment
from django.test import override_settings
from django.utils import timezone as django_timezone
from django.utils import translation
from django.utils.functional import lazystr
from django.utils.translation import gettext_lazy

from congressy_mailer import exceptions, send_mail
from congressy_mailer.mime.outgoing import OutgoingMail
from congressy_mailer.transports.base import ComposedMail
from congressy_mailer.transports.envelope import envelope_for
from tests.support.mails import composed_as_stored
from tests.support.raw_mail import read_raw

pytestmark = pytest.mark.django_db

SENDER = "Congressy <mail@congressy.net>"
ANA, EVA, ZE = "ana@example.com", "eva@example.com", "ze@example.com"


def sent(subject: Any = "Programa", message: Any = "Texto", *arguments: Any, **options: Any) -> OutgoingMail:
    """What a worker would hand over for this call."""
    if not arguments:
        options = {"from_email": SENDER, **options}
        options.setdefault("to", [ANA])
    return composed_as_stored(send_mail(subject, message, *arguments, **options))


def read(mail: OutgoingMail) -> Any:
    """What arrives, read by Python; it is what a strict reader takes too, and what a backend is given."""
    read_raw(mail.wire)
    assert mail.message().as_bytes(policy=email.policy.SMTP) == mail.wire
    return email.message_from_bytes(mail.wire.replace(b"\r\n", b"\n"), policy=email.policy.default)


def raw_field(mail: OutgoingMail, name: str) -> str | None:
    return dict(read_raw(mail.wire).fields).get(name)


def structure(part: Any) -> Any:
    """Media types of a mail: a list is a multipart with what is in it."""
    if part.is_multipart():
        return [part.get_content_subtype(), *map(structure, part.iter_parts())]
    return part.get_content_type()


def files(mail: OutgoingMail) -> list[Any]:
    return [part for part in read(mail).walk() if part.get_content_disposition() == "attachment"]


# Recipients and the envelope


def test_a_plain_mail() -> None:
    mail = sent("Subject", "Content\n", "from@example.com", ["to@example.com"])
    got = read(mail)
    assert (got["Subject"], got["From"], got["To"]) == ("Subject", "from@example.com", "to@example.com")
    assert (got.get_content(), got.get_content_type()) == ("Content\n", "text/plain")


def test_several_recipients_stand_in_one_field() -> None:
    mail = sent(to=[ANA, EVA])
    assert raw_field(mail, "To") == f"{ANA}, {EVA}"
    assert mail.recipients() == [ANA, EVA]


def test_there_is_no_to_without_a_recipient_in_it() -> None:
    mail = sent(to=[], bcc=[ANA])
    assert "To" not in read(mail)
    assert mail.recipients() == [ANA]


def test_an_empty_recipient_is_an_error() -> None:
    """Django leaves it out. Here it is mostly a field that nobody has filled in, and the call is where that shows."""
    for empty in ("", None):
        with pytest.raises(exceptions.InvalidAddress, match=r"to\[1\] is empty"):
            send_mail("s", "b", SENDER, [ANA, empty])  # type: ignore[list-item]


def test_a_mail_to_nobody_is_an_error() -> None:
    """Django sends nothing and says 0, which nobody reads."""
    with pytest.raises(exceptions.NoRecipient):
        send_mail("s", "b", SENDER, [])


def test_copies_are_named_and_get_the_mail() -> None:
    mail = sent(cc=[EVA, ZE])
    assert raw_field(mail, "Cc") == f"{EVA}, {ZE}"
    assert mail.recipients() == [ANA, EVA, ZE]
    assert "Cc" not in read(sent())


def test_blind_copies_are_named_nowhere_and_get_the_mail() -> None:
    mail = sent(bcc=[EVA])
    assert "Bcc" not in read(mail)
    assert EVA.encode() not in mail.wire
    assert mail.recipients() == [ANA, EVA]


def test_replies_go_to_several() -> None:
    assert raw_field(sent(reply_to=[EVA, ZE]), "Reply-To") == f"{EVA}, {ZE}"
    assert raw_field(sent(reply_to=[]), "Reply-To") is None


@pytest.mark.parametrize("name", ["to", "cc", "bcc", "reply_to"])
def test_recipients_may_be_a_tuple(name: str) -> None:
    assert EVA in str(getattr(send_mail("s", "b", SENDER, **{"to": ANA, name: (EVA,)}), name))


@pytest.mark.parametrize("name", ["to", "cc", "bcc", "reply_to"])
def test_one_text_is_one_address(name: str) -> None:
    """Django refuses it, since its letters would be taken for addresses. Here it can mean one thing only."""
    assert getattr(send_mail("s", "b", SENDER, **{"to": ANA, name: EVA}), name) == [EVA]


@pytest.mark.parametrize("name", ["From", "To", "cc", "BCC", "reply-to", "Subject"])
def test_what_has_an_argument_is_no_header(name: str) -> None:
    """Django lets some of them replace what the argument says, in the header only. One place says it here."""
    with pytest.raises(exceptions.InvalidHeader, match="not as a header"):
        send_mail("s", "b", SENDER, ANA, headers={name: EVA})


# Addresses


@pytest.mark.parametrize(
    ("given", "name", "bare"),
    [
        (ANA, "", ANA),
        (f"<{ANA}>", "", ANA),
        (f"Ana Souza <{ANA}>", "Ana Souza", ANA),
        (f'"Ana Souza" <{ANA}>', "Ana Souza", ANA),
        (f'"Souza, Ana" <{ANA}>', "Souza, Ana", ANA),
        (f'"eva@example.com" <{ANA}>', "eva@example.com", ANA),
        ("ana@café.example", "", "ana@xn--caf-dma.example"),
        ("Ana <ana@café.example>", "Ana", "ana@xn--caf-dma.example"),
        ("ana@xn--strae-oqa.example", "", "ana@xn--strae-oqa.example"),
        (f"João Antônio <{ANA}>", "João Antônio", ANA),
        ('"ana@home"@example.com', "", '"ana@home"@example.com'),
        ('Ana <"ana@home"@example.com>', "Ana", '"ana@home"@example.com'),
        (f"{'Conceição e Silva ' * 6}<{ANA}>", ("Conceição e Silva " * 6).strip(), ANA),
        (f"{'Souza e Silva ' * 6}<ana@café.example>", ("Souza e Silva " * 6).strip(), "ana@xn--caf-dma.example"),
    ],
)
def test_addresses_as_they_are_given_and_read(given: str, name: str, bare: str) -> None:
    mail = sent(to=[given], cc=[given], from_email=given, reply_to=[given])
    for field in ("To", "Cc", "From", "Reply-To"):
        (address,) = read(mail)[field].addresses
        # Python's parser adds spaces between encoded words, against RFC 2047 §6.2.
        assert "".join(address.display_name.split()) == "".join(name.split())
        assert address.addr_spec == bare
    assert mail.envelope == [bare]


@pytest.mark.parametrize("name", ["from_email", "to", "cc", "bcc", "reply_to", "Sender", "Resent-From", "Resent-Cc"])
@pytest.mark.parametrize("broken", ["Ana\nEva <a@example.com>", '"Ana\r\nX: y" <a@example.com>', "a\r@example.com"])
def test_no_address_holds_a_line_break(name: str, broken: str) -> None:
    value = {"headers": {name: broken}} if name[0].isupper() else {name: broken}
    with pytest.raises((exceptions.InvalidAddress, exceptions.InvalidHeader), match="line break"):
        send_mail("s", "b", **{"from_email": SENDER, "to": ANA, **value})


def test_an_address_without_a_domain_is_refused() -> None:
    """Django hands ``root`` over as it is, for a server on the same host. The server here is another's."""
    with pytest.raises(exceptions.InvalidAddress, match="not a mail address"):
        send_mail("s", "b", SENDER, ["root"])


@pytest.mark.parametrize("name", ["from_email", "to", "cc", "bcc", "reply_to"])
def test_addresses_may_be_lazy(name: str) -> None:
    given = lazystr(f"Zé <{ZE}>")
    assert f"Zé <{ZE}>" in str(getattr(send_mail("s", "b", **{"from_email": SENDER, "to": ANA, name: given}), name))


def test_the_sender_may_have_a_name_in_any_letters() -> None:
    assert raw_field(sent(from_email="Inscrições <mail@congressy.net>"), "From") == (
        "=?utf-8?q?Inscri=C3=A7=C3=B5es?= <mail@congressy.net>"
    )


@override_settings(CONGRESSY_EMAIL_SENDER=None, DEFAULT_FROM_EMAIL="Padrão <padrao@example.com>")
def test_without_a_sender_it_is_the_default() -> None:
    assert send_mail("s", "b", None, [ANA]).from_email == "Padrão <padrao@example.com>"


# Headers


@pytest.mark.parametrize("text", ["a\nb", "a\r\nBcc: eva@example.com", "a\rb"])
def test_no_header_holds_a_line_break(text: str) -> None:
    for options in ({"subject": text}, {"headers": {"X-A": text}}, {"subject": lazystr(text)}):
        with pytest.raises(exceptions.InvalidHeader, match="line breaks"):
            send_mail(**{"subject": "s", "message": "b", "from_email": SENDER, "to": ANA, **options})


def test_a_long_subject_is_folded_between_words() -> None:
    subject = "The opening session begins at nine, and its programme is long enough for a second line"
    mail = sent(subject)
    assert all(len(line) <= 78 for line in mail.wire.split(b"\r\n"))
    assert read(mail)["Subject"] == subject


def test_date_and_message_id_may_be_given() -> None:
    headers = {"date": "Fri, 09 Nov 2001 01:08:47 -0000", "Message-ID": "<own@example.com>"}
    mail = sent(headers=headers)
    got = read(mail)
    assert (got.get_all("Date"), got.get_all("Message-ID")) == (
        ["Fri, 09 Nov 2001 01:08:47 -0000"],
        ["<own@example.com>"],
    )


@pytest.mark.parametrize(
    ("moment", "written"),
    [
        (datetime(2001, 11, 9, 1, 8, 47, tzinfo=UTC), "Fri, 09 Nov 2001 01:08:47 +0000"),
        (
            datetime(2026, 2, 1, 12, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
            "Sun, 01 Feb 2026 12:00:00 -0330",
        ),
        (datetime(2026, 2, 1, 12), "Sun, 01 Feb 2026 12:00:00 -0300"),  # noqa: DTZ001
    ],
)
def test_a_date_may_be_a_datetime(moment: datetime, written: str) -> None:
    with django_timezone.override("America/Sao_Paulo"):
        assert raw_field(sent(headers={"Date": moment}), "Date") == written


@pytest.mark.parametrize(("local", "offset"), [(False, timedelta(0)), (True, timedelta(hours=-3))])
@override_settings(TIME_ZONE="America/Sao_Paulo")
def test_the_date_is_utc_or_local(local: bool, offset: timedelta) -> None:
    with override_settings(EMAIL_USE_LOCALTIME=local):
        date = read(sent())["Date"].datetime
    assert date.utcoffset() == offset
    assert abs(date - datetime.now(UTC)) < timedelta(minutes=5)


def test_headers_may_be_lazy_and_of_other_types() -> None:
    with translation.override("pt-br"):
        got = read(sent(lazystr("Olá"), lazystr("Texto"), headers={"X-A": gettext_lazy("Yes"), "X-B": 7}))
    assert (got["Subject"], got.get_content(), got["X-A"], got["X-B"]) == ("Olá", "Texto", "Sim", "7")


def test_headers_may_be_in_any_letters() -> None:
    mail = sent("Inscrição nº 1", headers={"Sender": f"Zé <{ZE}>", "Comments": "Olá, João"})
    assert raw_field(mail, "Subject") == "=?utf-8?q?Inscri=C3=A7=C3=A3o_n=C2=BA_1?="
    assert raw_field(mail, "Sender") == f"=?utf-8?q?Z=C3=A9?= <{ZE}>"
    assert read(mail)["Comments"] == "Olá, João"


def test_a_message_may_be_asked_for_twice() -> None:
    mail = sent(attachments=[("a.txt", "a")])
    assert mail.message().as_bytes() == mail.message().as_bytes()


@pytest.mark.parametrize("given", ["faß.example", "日本.example"])
def test_the_message_id_is_ascii(given: str) -> None:
    assert (raw_field(sent(from_email=f"a@{given}"), "Message-ID") or "").isascii()


def test_the_mail_is_one_of_pythons() -> None:
    message = sent().message()
    assert isinstance(message, email.message.EmailMessage)
    assert message["Subject"] == "Programa"


@pytest.mark.parametrize("policy", [email.policy.default, email.policy.SMTP, email.policy.SMTPUTF8])
def test_a_backend_may_ask_for_a_policy(policy: Any) -> None:
    """Its line breaks are obeyed. Its encoding is not: the bytes are ASCII, which every server takes."""
    content = sent("Inscrição", "ação").message(policy=policy).as_bytes()
    assert content.isascii()
    assert (b"\r\n" in content) == (policy.linesep == "\r\n")


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


# Attachments


@pytest.mark.parametrize(
    "given",
    [
        ("a.txt", "Olá", "text/plain"),
        ("a.txt", "Olá"),
        ("a.txt", "Olá".encode(), "text/plain"),
        EmailAttachment("a.txt", "Olá", "text/plain"),
        ["a.txt", "Olá".encode()],
    ],
)
def test_attachments_as_django_has_them(given: Any) -> None:
    got = sent(attachments=[given])
    assert structure(read(got)) == ["mixed", "text/plain", "text/plain"]
    (file,) = files(got)
    assert (file.get_filename(), file.get_content(), file.get_content_charset()) == ("a.txt", "Olá", "utf-8")


def test_files_stand_beside_text_and_html() -> None:
    mail = sent(html_message="<p>Olá</p>", attachments=[("a.pdf", b"%PDF", "application/pdf"), ("b.png", b"\x89PNG")])
    expected = ["mixed", ["alternative", "text/plain", "text/html"], "application/pdf", "image/png"]
    assert structure(read(mail)) == expected


def test_a_file_alone_needs_no_text() -> None:
    assert structure(read(sent("s", "", attachments=[("a.pdf", b"%PDF")]))) == ["mixed", "application/pdf"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("lista.csv", "text/csv"),
        ("boleto.pdf", "application/pdf"),
        ("foto.JPG", "image/jpeg"),
        ("sem-tipo", "application/octet-stream"),
        ("lista.csv.gz", "application/gzip"),
        ("tudo.tar.gz", "application/gzip"),
        ("tudo.tbz2", "application/x-bzip2"),
        ("lista.txt.br", "application/octet-stream"),
    ],
)
def test_the_type_of_a_file_follows_from_its_name(tmp_path: Path, name: str, kind: str) -> None:
    """What is compressed is of the type of that; Django takes ``lista.csv.gz`` for text that it cannot read."""
    (tmp_path / name).write_bytes(b"a;b")
    for given in (tmp_path / name, (name, b"a;b")):
        (file,) = files(sent(attachments=[given]))
        assert (file.get_content_type(), file.get_filename()) == (kind, name)


@pytest.mark.parametrize(
    "given",
    [
        ("a.txt", b"\xff\xfe\x00"),
        ("a.csv", "não".encode("latin-1")),
        ("a.html", b"\x80", "text/html; charset=us-ascii"),
        ("a.txt", b"\xff", "Text/Plain"),
    ],
)
def test_what_is_no_text_is_not_called_text(given: Any) -> None:
    (file,) = files(sent(attachments=[given]))
    assert file.get_content_type() == "application/octet-stream"
    assert file.get_content() == given[1]


def test_text_in_another_encoding_says_so() -> None:
    (file,) = files(sent(attachments=[("a.txt", "não".encode("latin-1"), "text/plain; charset=iso-8859-1")]))
    assert (file.get_content_type(), file.get_content()) == ("text/plain", "não")


@pytest.mark.parametrize(
    "name",
    [
        "Programação.pdf",
        "招待状.pdf",
        'a"b.pdf',
        "a\\b.pdf",
        "a;b='c'.pdf",
        "%0D%0A.pdf",
        "=?utf-8?q?a=0D=0Ab?=.pdf",
        "ç" * 250,
    ],
)
def test_file_names_in_any_letters(name: str) -> None:
    (file,) = files(sent(attachments=[(name, b"%PDF", "application/pdf")]))
    assert file.get_filename() == name
    assert file["Content-Type"].params["name"].isascii()


def test_a_mail_is_attached_as_octets() -> None:
    """Django attaches it as ``message/rfc822``, whose lines nobody may encode (RFC 2046 §5.2.1)."""
    with pytest.raises(exceptions.AttachmentUnreadable, match="Attach a mail as 'application/octet-stream'"):
        send_mail("s", "b", SENDER, ANA, attachments=[("a.eml", b"Subject: x\r\n\r\nx", "message/rfc822")])
    (file,) = files(sent(attachments=[("a.eml", b"Subject: x\r\n\r\nx")]))
    assert (file.get_content_type(), file.get_content()) == ("application/octet-stream", b"Subject: x\r\n\r\nx")


def mime_parts() -> list[Any]:
    modern = email.message.MIMEPart()
    modern.set_content(b"%PDF", "application", "pdf", filename="Programação.pdf", disposition="attachment")
    modern["Content-Description"] = "O programa do sábado"
    legacy = MIMEBase("application", "pdf")
    legacy.set_payload("%PDF")
    legacy.add_header("Content-Disposition", "attachment", filename=("utf-8", "", "Programação.pdf"))
    legacy["Content-Description"] = "=?utf-8?q?O_programa_do_s=C3=A1bado?="
    return [modern, legacy]


@pytest.mark.parametrize("number", [0, 1])
def test_a_mime_part_keeps_what_it_says_of_itself(number: int) -> None:
    (file,) = files(sent(attachments=[mime_parts()[number]]))
    assert (file.get_filename(), file.get_content()) == ("Programação.pdf", b"%PDF")
    assert file["Content-Description"] == "O programa do sábado"


def test_an_image_that_the_html_shows_stands_with_it() -> None:
    """Django puts it beside the HTML, where several programs offer it as a file."""
    image = MIMEImage(b"\x89PNG", "png")
    image.add_header("Content-ID", "<logo@congressy>")
    html = '<img src="CID:logo%40congressy">'
    mail = sent(html_message=html, attachments=[image, ("a.pdf", b"%PDF")])
    related = ["related", "text/html", "image/png"]
    assert structure(read(mail)) == ["mixed", ["alternative", "text/plain", related], "application/pdf"]
    shown = [part for part in read(mail).walk() if part["Content-ID"]]
    assert [(one["Content-ID"], one.get_content_disposition()) for one in shown] == [("<logo@congressy>", "inline")]


def test_an_image_that_the_html_does_not_show_is_a_file() -> None:
    image = MIMEImage(b"\x89PNG", "png")
    image.add_header("Content-ID", "<logo>")
    for html in ("", "<p>cid:logotipo</p>"):
        assert "related" not in str(structure(read(sent(html_message=html, attachments=[image]))))


def test_a_part_stays_inline() -> None:
    part = MIMEText("Olá", "plain", "utf-8")
    part.add_header("Content-Disposition", "inline", filename="a.txt")
    *_, file = read(sent(attachments=[part])).iter_parts()
    assert (file.get_content_disposition(), file.get_filename(), file.get_content()) == ("inline", "a.txt", "Olá")


def test_a_part_with_parts_is_refused() -> None:
    """Django takes it as it is; it could not be stored as one file."""
    with pytest.raises(exceptions.AttachmentUnreadable, match="attach each file by itself"):
        send_mail("s", "b", SENDER, ANA, attachments=[MIMEMultipart()])


@pytest.mark.parametrize("given", [("a.txt",), ("a.txt", None), 7, None])
def test_an_attachment_without_content_is_refused(given: Any) -> None:
    with pytest.raises(exceptions.AttachmentUnreadable):
        send_mail("s", "b", SENDER, ANA, attachments=[given])


@pytest.mark.parametrize("name", [None, ""])
def test_a_file_may_have_no_name(name: str | None) -> None:
    (file,) = files(sent(attachments=[(name, b"%PDF", "application/pdf")]))
    assert (file.get_filename(), file.get_content()) == (None, b"%PDF")


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
