"""Values of headers: what each field may hold, and how it is written."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core.mail import EmailMessage
from django.utils.functional import lazystr

from congressy_mailer.exceptions import InvalidHeader, MailerError
from congressy_mailer.mime.attachments import LoadedAttachment
from congressy_mailer.mime.header_values import check_subject, normalise_headers
from congressy_mailer.mime.headers import further_field
from congressy_mailer.mime.outgoing import as_bytes
from congressy_mailer.mime.verification import check_as_built, checked_body, checked_head
from congressy_mailer.mime.writer import MailContent, write


def written(name: str, value: Any) -> str:
    (stored,) = normalise_headers({name: value}).values()
    return further_field(name, stored).partition(":")[2].replace("\r\n", "").strip(" ")


def test_headers() -> None:
    assert normalise_headers({"X-Order": 7, "Message-ID": "<a@b.com>"}) == {"X-Order": "7", "Message-ID": "<a@b.com>"}
    assert normalise_headers(None) == {}
    assert normalise_headers({"X-A": "a" * 993})
    assert normalise_headers({"References": " ".join(f"<{number}@example.com>" for number in range(300))})
    assert normalise_headers({"X-A": lazystr("ção" * 900)}) == {"X-A": "ção" * 900}


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"X-A": "1\r\nBcc: eva@example.com"}, "must not hold line breaks"),
        ({"X-A": "1\u2028Bcc: x"}, "must not hold line breaks"),
        ({"X-A\nBcc": "1"}, "is not the name of a mail header"),
        ({"X A": "1"}, "is not the name of a mail header"),
        ({"": "1"}, "is not the name of a mail header"),
        ({"Açaí": "1"}, "is not the name of a mail header"),
        ({"X:": "1"}, "is not the name of a mail header"),
        ({3: "1"}, "is not the name of a mail header"),
        ({"bcc": "eva@example.com"}, "give bcc as bcc=, not as a header"),
        ({"From": "eva@example.com"}, "give From as from_email="),
        ({"Subject": "x"}, "give Subject as subject="),
        ({"Content-Type": "text/html"}, "follows from the content"),
        ({"X-A": "1", "x-a": "2"}, "x-a is given twice"),
        ({"X-A": " "}, "is empty"),
        ({"X-A": None}, "is empty"),
        ({"X-A": b"1"}, "must be text, not bytes"),
        ({"X-A": "a" * 994}, "too long for a line"),
        ({"X-A": "a" + " " * 990 + "b" * 4}, "too long for a line"),
        ([("X-A", "1")], "headers must be a dict of values by name, not list"),
        ({"Message-ID": "no"}, "must look like <unique@example.com>"),
    ],
)
def test_headers_that_are_refused(headers: Any, message: str) -> None:
    with pytest.raises(InvalidHeader, match=message):
        normalise_headers(headers)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("List-Id", "Notícias <news.example.com>", "=?utf-8?q?Not=C3=ADcias?= <news.example.com>"),
        ("list-id", '"Notícias, do dia" <n.example>', "=?utf-8?q?Not=C3=ADcias=2C_do_dia?= <n.example>"),
        ("List-Id", '"News, daily" <news.example.com>', '"News, daily" <news.example.com>'),
        ("List-Id", "=?utf-8?q?Not=C3=ADcias?= <n.example>", "=?utf-8?q?Not=C3=ADcias?= <n.example>"),
        ("List-Id", "=?iso-8859-1?Q?Not=EDcias=2C?= <n.example>", "=?utf-8?q?Not=C3=ADcias=2C?= <n.example>"),
        ("List-Help", "<https://x.example/?a=?b> (ajuda é)", "<https://x.example/?a=?b> (=?utf-8?q?ajuda_=C3=A9?=)"),
        (
            "List-Unsubscribe",
            "<mailto:a@x.example>, <https://x.example/?=>",
            "<mailto:a@x.example>, <https://x.example/?=>",
        ),
        ("Keywords", "café, chá", "=?utf-8?q?caf=C3=A9?= , =?utf-8?q?ch=C3=A1?="),
        ("References", "<1@x>  <2@y>", "<1@x>  <2@y>"),
        ("X-Original-From", "João <j@x.example>", "=?utf-8?q?Jo=C3=A3o?= <j@x.example>"),
        ("X-Title", "João <3 Maria", "=?utf-8?q?Jo=C3=A3o_=3C3_Maria?="),
        ("X-JSON", '{"a":  "=?"}', '{"a":  "=?"}'),
        ("X-A", "=?utf-8?q?x=0D=0AY:_z?=", "=?utf-8?q?=3D=3Futf-8=3Fq=3Fx=3D0D=3D0AY=3A=5Fz=3F=3D?="),
        ("X-A", "\ufeffa\tb", "a b"),
        ("Mail-Followup-To", "Zé <ze@x.example>", "=?utf-8?q?Z=C3=A9?= <ze@x.example>"),
        ("Content-Description", "Olá", "=?utf-8?q?Ol=C3=A1?="),
        ("Expires", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "Fri, 02 Jan 2026 03:04:05 +0000"),
        ("X-When", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "Fri, 02 Jan 2026 03:04:05 +0000"),
        ("Date", datetime(1910, 1, 1, tzinfo=ZoneInfo("America/Sao_Paulo")), "Sat, 01 Jan 1910 03:06:28 +0000"),
        (
            "Date",
            datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=5, minutes=45))),
            "Fri, 02 Jan 2026 00:00:00 +0545",
        ),
        ("Resent-Date", "2 jan 2026 03:04 gmt", "Fri, 02 Jan 2026 03:04:00 +0000"),
        ("Date", "Fri, 2 Jan 2026 03:04:05 -0000 (UTC)", "Fri, 02 Jan 2026 03:04:05 -0000"),
        ("Date", "Fri, 02 Jan 2026 03:04:05 EST", "Fri, 02 Jan 2026 03:04:05 -0500"),
    ],
)
def test_a_value_is_written_by_the_grammar_of_its_field(name: str, value: Any, expected: str) -> None:
    assert written(name, value) == expected


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("Date", "yesterday", "must be a datetime, or a date such as"),
        ("Date", "2026-01-02 03:04:05", "must be a datetime"),
        ("Date", date(2026, 1, 2), "must be a datetime"),
        ("Date", "Mon, 02 Jan 2026 03:04:05 +0000", "must be a datetime"),
        ("Date", "Fri, 31 Feb 2026 03:04:05 +0000", "must be a datetime"),
        ("Date", "Fri, 02 Jan 2026 03:04:05 +9999", "must be a datetime"),
        ("Date", "Fri, 02 Jan 2026 ٠٣:04:05 +0000", "must be a datetime"),
        ("Expires", "0", "must be a datetime"),
        ("Date", datetime(1899, 1, 1, tzinfo=UTC), "no mail is older than 1900"),
        ("Message-ID", "<a b@x>", "must look like"),
        ("Resent-Message-ID", "a@x", "must look like"),
        ("Message-ID", "<=?utf-8?q?a?=@x>", "encoded word"),
        ("References", "<ç@x>", "must be ASCII"),
        ("In-Reply-To", "=?utf-8?q?=0D=0A?=", "encoded word"),
        ("List-Unsubscribe", "<https://x.example/ç>", "must be ASCII between < and >"),
        ("List-Unsubscribe", "ç <https://x.example/?a=?utf-8?q?b?=>", "encoded word"),
        ("List-Id", "Notícias <n.example", "not closed"),
        ("List-Id", "=?utf-8?q?a=0D=0Ab?= <n.example>", "line break"),
        ("List-Id", "=?klingon?q?a?= <n.example>", "cannot be decoded"),
        ("Authentication-Results", "ç", "must be ASCII"),
        ("Content-Language", "português", "must be ASCII"),
        ("Return-Path", "<a@x.example>", "last server"),
        ("X-A", "\ufeff", "is empty"),
    ],
)
def test_a_value_that_its_field_cannot_hold_is_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidHeader, match=message):
        normalise_headers({name: value})


@pytest.mark.parametrize("name", ["List-Id", "Keywords", "References", "X-A", "Date", "Sender"])
def test_no_value_takes_long_to_be_refused_or_written(name: str) -> None:
    for text in ("(" * 50_000, '"' * 50_001, "<" * 50_000, "ç(" * 25_000, "=?" * 25_000, "\\" * 50_000, "a, " * 20_000):
        try:
            assert normalise_headers({name: text})
        except MailerError:
            continue


def test_a_subject_has_no_blanks_and_marks_at_its_ends() -> None:
    assert check_subject("\ufeff Olá\t") == "Olá"


@pytest.mark.parametrize(
    "fields",
    [
        ["A: b\r\nC: d\r\n"],
        ["A: b\r\n\r\n"],
        ["A: b"],
        ["A: b\n"],
        ["A: b\r\n", "a: c\r\n"],
        ["A: ç\r\n"],
        ["A: \x00\r\n"],
        ["A: b\r\n \r\n"],
        ["A b: c\r\n"],
        [f"A: {'b' * 1000}\r\n"],
        [" A: b\r\n"],
        ["A: b\r\n\tc\r\n"],
    ],
)
def test_a_head_that_is_not_what_was_asked_for_is_not_written(fields: list[str]) -> None:
    with pytest.raises(ValueError, match="the head of the mail"):
        checked_head(fields)


@pytest.mark.parametrize("content", [b"a\nb", b"a\rb", b"\0", b"\xc3", b"a" * 999, b"a\r\n\rb"])
def test_a_body_that_servers_refuse_is_not_written(content: bytes) -> None:
    with pytest.raises(ValueError, match="a part of the mail"):
        checked_body(content)


def test_a_mail_that_django_has_built_is_looked_at_once_more() -> None:
    """Over the backend for SparkPost any mail of Django's may come."""
    mail = EmailMessage("Olá", "Texto", "a@x.example", ["b@x.example"], attachments=[("a.txt", "a", "text/plain")])
    assert as_bytes(mail).isascii()
    message = mail.message()
    check_as_built(message.as_bytes(), message)
    for injected in (b"Bcc: eva@x.example\n", b"\n<b>"):
        with pytest.raises(ValueError, match="other header fields or parts"):
            check_as_built(injected + message.as_bytes(), message)


HOSTILE = "=?utf-8?q?a=0D=0AContent-Type:_text=2Fhtml=0D=0A=0D=0A=3Cb=3EPay_here=3C=2Fb=3E?=.txt"


def test_a_file_name_that_looks_encoded_never_becomes_a_field_of_a_mail_by_django() -> None:
    mail = EmailMessage("Olá", "Texto", "a@x.example", ["b@x.example"], attachments=[(HOSTILE, "a", "text/plain")])
    try:
        content = as_bytes(mail)
    except InvalidHeader:
        return
    assert b"Pay here" not in content and content.count(b"\r\n\r\n") == 3


def test_parameters_that_look_encoded_are_encoded() -> None:
    file = LoadedAttachment(HOSTILE, b"a", 'text/plain; x="=?utf-8?q?a?="; charset=utf-8', "")
    content = write(
        MailContent("a", "b", ""), from_email="a@x.example", to=(), cc=(), reply_to=(), headers={}, attachments=[file]
    )
    assert b"=?" not in content
    assert b"\r\n x*=utf-8''%3D%3Futf-8%3Fq%3Fa%3F%3D" in content
