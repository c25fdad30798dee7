"""What Django promises of its mail's attachments, asked of ``send_mail()``.

Each test is one behaviour that Django's own tests hold, said as a call; where ours is another, the test says why.
"""

from __future__ import annotations

import email
import email.policy
from email.mime.base import MIMEBase
from email.mime.image import MIMEImage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import Path
from typing import Any

import pytest
from django.core.mail import EmailAttachment

from congressy_mailer import exceptions, send_mail
from tests.support.djangos_mail import ANA, SENDER, files, read, sent, structure

pytestmark = pytest.mark.django_db


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
