"""What Django promises of its mail's recipients and headers, asked of ``send_mail()``.

Each test is one behaviour that Django's own tests hold, said as a call; where ours is another, the test says why.
"""

from __future__ import annotations

import email
import email.policy
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from django.test import override_settings
from django.utils import timezone as django_timezone
from django.utils import translation
from django.utils.functional import lazystr
from django.utils.translation import gettext_lazy

from congressy_mailer import exceptions, send_mail
from tests.support.djangos_mail import ANA, EVA, SENDER, ZE, raw_field, read, sent

pytestmark = pytest.mark.django_db


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
