"""Mails that are written at once are those that Django would write."""

from __future__ import annotations

import copy
import email
import email.policy
import re
from collections.abc import Callable, Sequence
from email.header import decode_header, make_header
from email.utils import getaddresses
from typing import Any
from uuid import uuid4

import pytest
from django.core.mail import EmailMultiAlternatives
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st

from congressy_mailer.delivery.composing import compose
from congressy_mailer.exceptions import ContentError, MailerError
from congressy_mailer.mime import attachments as attachments_module
from congressy_mailer.mime.addresses import (
    check_header_text,
    listed_addresses,
    normalise_address,
    normalise_headers,
    split_address,
)
from congressy_mailer.mime.attachments import Attachment, LoadedAttachment, read_attachments
from congressy_mailer.mime.outgoing import OutgoingMail
from congressy_mailer.mime.writer import MailContent
from congressy_mailer.models import Message
from congressy_mailer.transports import envelope
from congressy_mailer.transports.base import ComposedMail
from tests.support.fuzzing import examples

CONGRESSY = "Congressy Eventos <mail@congressy.net>"
JOAO = "João da Silva <joao@example.com>"
CONFIRMED = MailContent("Inscrição confirmada", "Olá, João!\n", "<p>Olá, <b>João</b>!</p>\n")
BOLETO = LoadedAttachment("boleto.pdf", b"%PDF", "application/pdf", "")
LOGO = LoadedAttachment("logo.png", bytes(range(256)), "image/png", "logo")
UNSUBSCRIBE = "<https://congressy.com/sair?" + "x" * 100 + ">"

_ADDRESS_FIELDS = {"from", "to", "cc", "reply-to"}


def mail_of(
    rendered: MailContent = CONFIRMED, attachments: Sequence[LoadedAttachment] = (), /, **fields: Any
) -> OutgoingMail:
    now = timezone.now()
    values = {"from_email": CONGRESSY, "to": [JOAO], "message_id": "<1@congressy.net>", **fields}
    return compose(Message(created_at=now, queued_at=now, **values), rendered, attachments)


def on_the_wire(mail: OutgoingMail) -> bytes:
    """What a server takes for the content (RFC 5321 §4.5.2)."""
    content = envelope.envelope_for(ComposedMail(uuid4(), mail)).write_out(eight_bit=True)
    assert content.endswith(b"\r\n.\r\n")
    return (b"\r\n" + content[:-3]).replace(b"\r\n.", b"\r\n")[2:]


def by_django(mail: OutgoingMail) -> OutgoingMail:
    """The same mail without what was written at once."""
    other = copy.copy(mail)
    other.wire = None
    return other


def parsed(content: bytes) -> Any:
    return email.message_from_bytes(content, policy=email.policy.default)


def raw_fields(content: bytes) -> dict[str, str]:
    headers = email.message_from_bytes(content, policy=email.policy.compat32)
    return {name: value for name, value in headers.items() if not name.lower().startswith("content-")}


def people_in(content: bytes, name: str) -> list[tuple[str, str]]:
    """Names and addresses of a field. The newer parser keeps spaces between encoded words, against RFC 2047 §6.2."""
    value = raw_fields(content).get(name, "").replace("\r\n", "")
    people = given_people(listed_addresses(value, name)) if value else []
    if not any(set('"[') & set(bare) for _, bare in people):
        # Some versions of the older parser lose quoted local parts and address literals.
        found = getaddresses([value]) if value else []
        assert [(str(make_header(decode_header(named))), bare) for named, bare in found] == people
    return people


def given_people(addresses: Sequence[str]) -> list[tuple[str, str]]:
    return [split_address(one) for one in addresses]


def parts_of(part: Any) -> Any:
    """The tree of parts with all that tells a mail program what to do with them."""
    kind = part.get_content_type()
    if part.is_multipart():
        return kind, [parts_of(one) for one in part.iter_parts()]
    disposition = part.get_content_disposition()
    content = part.get_payload(decode=True)
    if disposition is None:
        # Line breaks of any kind are one, and the last one is there or not.
        content = re.sub(b"\r\n?", b"\n", content).removesuffix(b"\n")
    parameters = dict(part["Content-Type"].params)
    return kind, parameters, disposition, part.get_filename(), str(part["Content-ID"]).strip(), content


def assert_fit_for_the_wire(content: bytes) -> None:
    assert content.isascii() and b"\0" not in content
    assert content.count(b"\r\n") == content.count(b"\r") == content.count(b"\n")
    assert max(map(len, content.split(b"\r\n"))) <= 998


def assert_as_django_writes_it(mail: OutgoingMail) -> None:
    ours, theirs = on_the_wire(mail), on_the_wire(by_django(mail))
    assert parts_of(parsed(ours)) == parts_of(parsed(theirs))
    ours_raw, theirs_raw = raw_fields(ours), raw_fields(theirs)
    assert ours_raw.keys() == theirs_raw.keys()
    for name in ours_raw:
        # Python's email has flaws in folding: it adds spaces, and encodes the comma between addresses. What is folded
        # is compared with what was given.
        if "\n" not in ours_raw[name] + theirs_raw[name]:
            if name.lower() in _ADDRESS_FIELDS:
                assert people_in(ours, name) == people_in(theirs, name)
            else:
                assert parsed(ours)[name] == parsed(theirs)[name]


def assert_as_given(mail: OutgoingMail) -> None:
    content = on_the_wire(mail)
    assert parsed(content)["Subject"] == mail.subject
    assert {name: parsed(content)[name] for name in mail.extra_headers} == mail.extra_headers
    people = {"From": [mail.from_email], "To": mail.to, "Cc": mail.cc, "Reply-To": mail.reply_to}
    for name, addresses in people.items():
        assert people_in(content, name) == given_people(addresses)


# What the writers and readers of mails have had trouble with.
_CHARACTERS = st.one_of(
    st.sampled_from("abcXYZ019 ,;:.<>()[]\"'\\@=?_-~%&*!#"),
    st.sampled_from("ãçéÍõ–€😀\u00a0\u0301漢字لا\u200d\ufeff"),
    st.characters(exclude_categories=["Cs"]),
)
_WORDS = st.sampled_from(
    [
        "Inscrição",
        "confirmada",
        "boleto",
        "João",
        "da",
        "Silva,",
        "nº",
        "(1)",
        '"',
        "a" * 80,
        "ç" * 60,
        "漢字",
        "e-mail",
    ]
)
_TEXTS = st.one_of(st.lists(_WORDS, min_size=1, max_size=20).map(" ".join), st.text(_CHARACTERS, max_size=40))


def accepted(otherwise: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    """What our validation makes of it, or something else in its place."""
    try:
        return function(*arguments)
    except (MailerError, UnicodeError):
        return otherwise


@st.composite
def addresses(draw: st.DrawFn) -> str:
    bare = draw(st.sampled_from(["joao", "a.b+c", "o'neil", "x" * 64] * 3 + ['"a  b"', '""', '"a>,b"', r'"\\\""']))
    bare += "@" + draw(st.sampled_from(["example.com", "EXAMPLE.com", "são-paulo.example", "x" * 60 + ".br", "[::1]"]))
    name = draw(
        st.one_of(
            st.just(""), st.sampled_from(["João da Silva", "Silva, João", 'O "Zé"', "Ana", "=?utf-8?q?a?="]), _TEXTS
        )
    )
    if name and draw(st.booleans()):
        name = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(accepted(JOAO, normalise_address, f"{name} <{bare}>" if name else bare, "to"))


_SUBJECTS = _TEXTS.map(lambda text: accepted("Inscrição", check_header_text, text, "subject", "Subject"))
_BODIES = st.lists(
    st.one_of(
        _TEXTS,
        st.sampled_from(
            ["\n", "\r\n", "\r", ".", "\n.\n", "\nFrom x", " \n", "\t\n", "\f", "\x0b", "\x1c", "\x85", "\u2028", "\0"]
            + ["--", "=", "=_", "=20", "x" * 997, "x" * 998, "x" * 999, "ç" * 500, "漢字" * 100, "<p>Olá</p>\n" * 30]
        ),
    ),
    max_size=12,
).map("".join)
_HEADERS = st.dictionaries(
    st.sampled_from(["X-A", "X-MSYS-API", "List-Unsubscribe", "References", "In-Reply-To", "Precedence", "X" * 70] * 3)
    | st.sampled_from(["Sender", "Date", "Resent-To", "Message-ID", "Importance", "Auto-Submitted"]),
    st.sampled_from(["<1@x>", "<1@x> <2@y>", "bulk", "a," * 100, "a; " * 60, "ç" * 100, UNSUBSCRIBE])
    | st.sampled_from(["Zé <ze@example.com>", "Mon, 01 Jan 2024 00:00:00 +0000"])
    | _TEXTS,
    max_size=3,
).map(lambda given: accepted({"X-A": "ação"}, normalise_headers, given))
_FILES = st.builds(
    Attachment,
    filename=st.sampled_from(
        ["boleto.pdf", "", "inscrição nº 1.pdf", 'a"b\\c.txt', "漢" * 255, "a" * 255, " x ", "a;b='c'"]
    )
    | st.text(_CHARACTERS, max_size=80),
    content=st.binary(max_size=300),
    mimetype=st.sampled_from(
        ["", "application/pdf", "image/png", "text/plain", "Text/HTML", "text/plain; charset=iso-8859-1", "TEXT/x"]
        + ['text/calendar; method=REQUEST; charset=utf-8; x_y="a; b"', 'a/b; c=""', 'a/b; c="=?utf-8?q?x?="', "x/y"]
        + ["application/x; name=" + "n" * 200, 'application/x; filename="a b"']
    ),
    content_id=st.sampled_from(["", "", "", "logo", "a@b", "=?utf-8?q?x?=", "x" * 200]),
).map(lambda given: accepted([BOLETO], read_attachments, [given], 10_000)[0])


@settings(max_examples=examples(400), deadline=None)
@given(
    subject=_SUBJECTS,
    text=_BODIES,
    html=_BODIES,
    from_email=addresses(),
    people=st.lists(addresses(), min_size=1, max_size=6),
    reply_to=st.lists(addresses(), max_size=2),
    headers=_HEADERS,
    files=st.lists(_FILES, max_size=2),
)
def test_what_is_written_at_once_is_what_django_writes(
    subject: str,
    text: str,
    html: str,
    from_email: str,
    people: list[str],
    reply_to: list[str],
    headers: dict[str, str],
    files: list[LoadedAttachment],
) -> None:
    fields = {"from_email": from_email, "to": people[:3], "cc": people[3:5], "bcc": people[5:], "reply_to": reply_to}
    try:
        mail = mail_of(MailContent(subject, text, html), files, headers=headers, **fields)
    except ContentError:
        return
    if mail.wire is not None:
        assert_fit_for_the_wire(on_the_wire(mail))
        assert_as_given(mail)
        # Some versions of Python's email end the header in front of a second word that is longer than a line.
        if max(len(word) for one in (from_email, *people, *reply_to) for word in one.split()) <= 70:
            assert_as_django_writes_it(mail)


@pytest.mark.parametrize(
    ("rendered", "files", "fields"),
    [
        (CONFIRMED, [], {}),
        (MailContent("Your ticket", "Hello\n", ""), [], {"to": ["eva@example.com"]}),
        (MailContent("Ação " * 40 + "!", "Olá" * 2000, "<p>" + "é" * 2000), [], {}),
        (MailContent("Word " * 40 + "!", "x" * 998, "x" * 999), [], {}),
        (MailContent("招待状", "招待状\n" * 100, "<p>招待状</p>"), [], {"to": ["山田 <yamada@example.jp>"]}),
        (CONFIRMED, [], {"from_email": "Inscrições Congressy <mail@congressy.net>"}),
        (CONFIRMED, [], {"to": ['"Silva, João" <joao@example.com>', '"Eva (CEO) \\"E\\"" <eva@example.com>', JOAO]}),
        (CONFIRMED, [], {"to": ["Zé <ze@são-paulo.example>"], "cc": [f"Ana <a{n}@example.com>" for n in range(99)]}),
        (CONFIRMED, [], {"to": [], "bcc": ["eva@example.com"]}),
        (CONFIRMED, [], {"reply_to": ["Congressy <congressy@congressy.com>", "Suporte técnico <a@congressy.com>"]}),
        (CONFIRMED, [], {"headers": {"List-Unsubscribe": UNSUBSCRIBE, "X-Campanha": "Verão", "Precedence": "bulk"}}),
        (CONFIRMED, [], {"headers": {"message-id": "<2@congressy.net>"}}),
        (CONFIRMED, [], {"headers": {"Sender": "Zé <ze@example.com>", "Resent-To": "Zé <ze@x.com>, eva@x.com"}}),
        (CONFIRMED, [], {"to": ['"a b"@example.com', '"=?utf-8?q?a?=" <eva@example.com>', "ana@[IPv6:2001:db8::1]"]}),
        (CONFIRMED, [BOLETO], {}),
        (MailContent("Boleto", "Em anexo.", ""), [BOLETO, LoadedAttachment("inscrição nº 1.pdf", b"", "a/b", "")], {}),
        (CONFIRMED, [LOGO, LoadedAttachment("漢" * 255, b"x" * 200, "text/plain; charset=iso-8859-1", "")], {}),
        (CONFIRMED, [LoadedAttachment("i.ics", "ção".encode(), "text/calendar; method=REQUEST", "")], {}),
    ],
)  # fmt: skip
def test_common_mails_are_written_at_once(
    monkeypatch: pytest.MonkeyPatch, rendered: MailContent, files: list[LoadedAttachment], fields: dict[str, Any]
) -> None:
    mail = mail_of(rendered, files, **fields)
    with monkeypatch.context() as patch:
        patch.setattr(EmailMultiAlternatives, "message", None)
        assert_fit_for_the_wire(on_the_wire(mail_of(rendered, files, **fields)))
    assert_as_django_writes_it(mail)
    assert_as_given(mail)


@pytest.mark.parametrize(
    ("rendered", "fields"),
    [
        (MailContent("Olá", "", "<p>Olá</p>"), {}),
        (MailContent("", "Olá", ""), {}),
        (MailContent("two  spaces", "Olá", ""), {}),
        (MailContent(" Olá ", "Olá", ""), {}),
        (CONFIRMED, {"headers": {"Date": "yesterday"}}),
        (CONFIRMED, {"headers": {"X" * 30: "ç"}}),
    ],
)
def test_django_writes_what_could_be_read_in_two_ways(rendered: MailContent, fields: dict[str, Any]) -> None:
    mail = mail_of(rendered, **fields)
    assert mail.wire is None
    content = parsed(on_the_wire(mail))
    assert "Olá" in content.get_body(("plain", "html")).get_content()
    assert content["From"] == CONGRESSY


@pytest.mark.parametrize("subject", ["=?utf-8?q?Ol=C3=A1?=", "Ol=?", "é =?utf-8?q?x?= "[:-1]])
def test_a_subject_that_looks_encoded_comes_back_as_it_is(subject: str) -> None:
    mail = mail_of(MailContent(subject, "Olá", ""))
    assert mail.wire is not None
    assert parsed(on_the_wire(mail))["Subject"] == subject
    # The same where Django writes it, because of something else.
    mail = mail_of(MailContent(subject, "Olá", ""), headers={"Date": "yesterday"})
    assert mail.wire is None
    assert parsed(on_the_wire(mail))["Subject"] == subject


ODD = [
    '"a  b"@example.com', '"a,b>c"@example.com', '""@example.com', '"\\\\"@example.com', "ana@[IPv6:2001:db8::1]",
    '"=?utf-8?q?Ana?=" <ana@example.com>', '"Silva, \\"Zé\\"" <ze@example.com>', "Zé <ze@xn--so-paulo-rza.example>",
    '"Ana (Financeiro)" <"a b"@[192.0.2.1]>', "x" * 64 + "@example.com", "😀" * 300 + " <ana@example.com>",
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_address_is_read_as_it_is_whoever_writes_the_mail(odd: str) -> None:
    assert normalise_address(odd, "to") == odd
    headers = {"Sender": odd, "Resent-To": f"{odd}, eva@example.com"}
    fields = {"from_email": odd, "to": [odd, "eva@example.com"], "cc": [odd], "reply_to": [odd], "headers": headers}
    written_here, by_django = mail_of(**fields), mail_of(MailContent("", "Olá", ""), **fields)
    assert written_here.wire is not None and by_django.wire is None
    for mail in (written_here, by_django):
        content = on_the_wire(mail)
        for name in ("From", "Cc", "Reply-To", "Sender"):
            assert people_in(content, name) == [split_address(odd)]
        for name in ("To", "Resent-To"):
            assert people_in(content, name) == [split_address(odd), ("", "eva@example.com")]
        head = content.partition(b"\r\n\r\n")[0]
        assert head.isascii() and max(map(len, head.split(b"\r\n"))) <= 998
        # A backend may look at them.
        assert all(mail.message().get_all(name) for name in ("From", "To", "Cc", "Reply-To"))
        assert mail.message().as_bytes()


def test_an_address_of_an_older_version_fails_with_its_mail() -> None:
    for rendered in (CONFIRMED, MailContent("", "Olá", "")):
        with pytest.raises(ContentError, match="no ASCII form"):
            mail_of(rendered, to=["ana@ex⑴.example"])


def test_another_encoding_is_django_s(settings: Any) -> None:
    settings.DEFAULT_CHARSET = "iso-8859-1"
    mail = mail_of()
    assert mail.wire is None
    assert parsed(on_the_wire(mail)).get_body().get_content_charset() == "iso-8859-1"


_INJECTION = "a\r\nBcc: eva@example.com"


@pytest.mark.parametrize("break_", ["\r\n", "\n", "\r"])
@pytest.mark.parametrize(
    ("subject", "fields"),
    [
        (_INJECTION, {}),
        ("Olá " + _INJECTION, {}),
        ("Olá", {"from_email": f"{_INJECTION} <mail@congressy.net>"}),
        ("Olá", {"to": [f"ana@example.com{_INJECTION}"]}),
        ("Olá", {"to": [f"{_INJECTION} <ana@example.com>"]}),
        ("Olá", {"to": [f'"é{_INJECTION}" <ana@example.com>']}),
        ("Olá", {"reply_to": [f'"{_INJECTION}" <ana@example.com>']}),
        ("Olá", {"headers": {"X-A": _INJECTION}}),
        ("Olá", {"headers": {"X-A": f"é{_INJECTION}"}}),
        ("Olá", {"message_id": f"<{_INJECTION}@x>"}),
    ],
)
def test_no_line_break_gets_into_a_header(subject: str, fields: dict[str, Any], break_: str) -> None:
    def broken(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: broken(one) for name, one in value.items()}
        return [broken(one) for one in value] if isinstance(value, list) else value.replace("\r\n", break_)

    with pytest.raises(ContentError):
        mail_of(MailContent(broken(subject), "Olá", ""), **broken(fields))


@pytest.mark.parametrize(
    "attachment",
    [
        LoadedAttachment(_INJECTION, b"", "text/plain", ""),
        LoadedAttachment(f"é{_INJECTION}", b"", "text/plain", ""),
        LoadedAttachment("a", b"", f"text/plain; a={_INJECTION}", ""),
        LoadedAttachment("a", b"", "message/rfc822", ""),
        LoadedAttachment("a", b"", "text/plain", _INJECTION),
        LoadedAttachment("a\ud800", b"", "text/plain", ""),
    ],
)
def test_an_attachment_that_was_never_checked_is_not_written_at_once(attachment: LoadedAttachment) -> None:
    try:
        mail = mail_of(CONFIRMED, [attachment])
    except ContentError:
        return
    assert mail.wire is None


@pytest.mark.parametrize(
    "rendered", [MailContent("\ud800", "a", ""), MailContent("a", "\ud800", ""), MailContent("a", "a", "\ud800")]
)
def test_what_has_no_form_is_an_error_at_once(rendered: MailContent) -> None:
    with pytest.raises(ContentError, match="cannot be composed: Unicode"):
        mail_of(rendered)


def test_an_attachment_of_many_mails_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []
    encode = attachments_module.base64_lines
    monkeypatch.setattr(attachments_module, "base64_lines", lambda content: encoded.append(content) or encode(content))
    shared = LoadedAttachment("programa.pdf", b"%PDF" * 100, "application/pdf", "")
    for mail in (mail_of(CONFIRMED, [shared]), mail_of(CONFIRMED, [shared])):
        (part,) = parsed(on_the_wire(mail)).iter_attachments()
        assert part.get_content() == shared.content
    assert encoded == [shared.content]


def test_encoded_words_are_short_and_whole() -> None:
    """RFC 2047 §2 and §5: at most 75 octets, 76 in their line, and each with all of its characters."""
    name = "Associação Brasileira de Educação Médica Continuada 😀" * 3
    mail = mail_of(
        MailContent("Inscrição 😀 " * 30 + "!", "x", ""), to=[f"{name} <a@example.com>"], headers={"X-A": "ç" * 300}
    )
    assert mail.wire is not None
    lines = mail.wire.decode().split("\r\n")
    words = [word for line in lines for word in line.split() if word.startswith("=?")]
    assert len(words) > 30
    assert max(map(len, words)) <= 75 and max(map(len, lines)) <= 76
    for word in words:
        ((octets, charset),) = decode_header(word)
        assert isinstance(octets, bytes) and charset == "utf-8"
        octets.decode()


def test_a_long_word_is_left_as_it_is() -> None:
    """What takes addresses of the web from a header knows no encoded words there (RFC 2369 §2)."""
    wire = mail_of(headers={"List-Unsubscribe": UNSUBSCRIBE}).wire
    assert wire is not None and f"\r\nList-Unsubscribe: {UNSUBSCRIBE}\r\n".encode() in wire


def test_nobody_knows_a_boundary_before() -> None:
    first, second = (re.findall(rb'boundary="([^"]+)"', mail_of(CONFIRMED, [LOGO]).wire or b"") for _ in range(2))
    assert len({*first, *second}) == 4
    said = mail_of(MailContent("Boundary", f"--{first[0].decode()}--\n", "<p>Olá</p>"))
    assert_as_django_writes_it(said)


def test_backends_find_the_attachments() -> None:
    mail = mail_of(CONFIRMED, [LOGO])
    copied = copy.copy(mail)
    for one in (mail, copied):
        one.attach("a.txt", "a", "text/plain")
        logo, text = one.attachments
        assert logo.get_filename() == "logo.png"
        assert text[0] == "a.txt"
        assert [part.get_filename() for part in parsed(one.message().as_bytes()).iter_attachments()] == [
            "logo.png",
            "a.txt",
        ]
