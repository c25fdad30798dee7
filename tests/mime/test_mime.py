"""Whatever is asked for arrives, and nothing else: mails as they are written, read by other parsers."""

from __future__ import annotations

import copy
import email
import email.policy
import re
from binascii import a2b_qp
from collections.abc import Callable, Sequence
from email.header import decode_header, make_header
from email.utils import getaddresses, unquote
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone
from hypothesis import example, given, settings
from hypothesis import strategies as st

from congressy_mailer.delivery.composing import compose
from congressy_mailer.exceptions import ContentError, MailerError
from congressy_mailer.mime import attachments as attachments_module
from congressy_mailer.mime.addresses import listed_addresses, normalise_address, split_address
from congressy_mailer.mime.attachments import Attachment, LoadedAttachment, read_attachments
from congressy_mailer.mime.header_values import check_subject, normalise_headers
from congressy_mailer.mime.headers import Grammar, grammar_of
from congressy_mailer.mime.outgoing import OutgoingMail
from congressy_mailer.mime.writer import MailContent
from congressy_mailer.models import Message
from congressy_mailer.transports import envelope
from congressy_mailer.transports.base import ComposedMail
from tests.support.fuzzing import examples
from tests.support.raw_mail import RawPart, read_raw

CONGRESSY = "Congressy Eventos <mail@congressy.net>"
JOAO = "João da Silva <joao@example.com>"
CONFIRMED = MailContent("Inscrição confirmada", "Olá, João!\n", "<p>Olá, <b>João</b>!</p>\n")
BOLETO = LoadedAttachment("boleto.pdf", b"%PDF", "application/pdf", "")
LOGO = LoadedAttachment("logo.png", bytes(range(256)), "image/png", "logo")
UNSUBSCRIBE = "<https://congressy.com/sair?" + "x" * 100 + ">"


def mail_of(
    rendered: MailContent = CONFIRMED, attachments: Sequence[LoadedAttachment] = (), /, **fields: Any
) -> OutgoingMail:
    now = timezone.now()
    values = {"from_email": CONGRESSY, "to": [JOAO], "message_id": "<1@congressy.net>", **fields}
    return compose(Message(created_at=now, queued_at=now, **values), rendered, attachments)


def on_the_wire(mail: OutgoingMail) -> bytes:
    """What a server takes for the content (RFC 5321 §4.5.2)."""
    content = envelope.envelope_for(ComposedMail(uuid4(), mail)).write_out()
    assert content.endswith(b"\r\n.\r\n")
    return (b"\r\n" + content[:-3]).replace(b"\r\n.", b"\r\n")[2:]


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


def assert_as_given(mail: OutgoingMail) -> None:
    """It reads as it was asked for, to a strict reader, to both of Python's, and through what backends get."""
    content = on_the_wire(mail)
    whole = read_raw(content)
    asked = ["Subject", "From", *(name for name, given in (("To", mail.to), ("Cc", mail.cc)) if given)]
    asked += ["Reply-To"] if mail.reply_to else []
    asked += [*mail.extra_headers, "MIME-Version", "Content-Type"]
    assert [name for name in whole.names if name != "Content-Transfer-Encoding"] == asked
    for part in whole.all_parts()[1:]:
        assert set(part.names) <= _PART_FIELDS
    for policy in (email.policy.compat32, email.policy.default):
        read = email.message_from_bytes(content, policy=policy)
        assert outline(read) == raw_outline(whole)
        files = ordered_files(mail)
        for part, file in zip(files_of(read), files, strict=True):
            # Python takes brackets and quotation marks around a name for those of its parameter, also where encoded.
            assert (part.get_filename() or "") in (shown_name(file), unquote(shown_name(file)))
        assert [part.get_payload(decode=True) for part in files_of(read)] == [one.content for one in files]
    assert decoded(whole, "Subject") == mail.subject
    for name, value in mail.extra_headers.items():
        if grammar_of(name) is Grammar.ADDRESSES:
            assert people_in(content, name) == given_people(listed_addresses(value, name))
        elif grammar_of(name) is not Grammar.PHRASES:
            assert decoded(whole, name) == value
    people = {"From": [mail.from_email], "To": mail.to, "Cc": mail.cc, "Reply-To": mail.reply_to}
    for name, addresses in people.items():
        assert people_in(content, name) == given_people(addresses)
    assert mail.message().as_bytes(policy=email.policy.SMTP) == mail.wire


_PART_FIELDS = {
    "Content-Type", "Content-Transfer-Encoding", "Content-Disposition", "Content-ID", "Content-Description",
}  # fmt: skip


def outline(part: Any) -> Any:
    return [name for name, _ in part.raw_items()], [outline(one) for one in part.get_payload() if part.is_multipart()]


def raw_outline(part: RawPart) -> Any:
    return part.names, [raw_outline(one) for one in part.parts]


def files_of(part: Any) -> list[Any]:
    return [one for one in part.walk() if one.get_content_disposition() is not None]


def ordered_files(mail: OutgoingMail) -> list[LoadedAttachment]:
    """Images that the HTML shows stand with it, before the others."""
    return sorted(mail.files, key=lambda one: not (one.content_id and f"cid:{one.content_id}" in mail.content.html))


def shown_name(file: LoadedAttachment) -> str:
    return file.filename or file.content_type[1].get("name", "")


def decoded(part: RawPart, name: str) -> str:
    """A field as RFC 2047 has it read: no space between encoded words."""
    value = re.sub(r"\?= +=\?", "?==?", dict(part.fields)[name])
    return (
        re.sub(
            r"=\?utf-8\?q\?([!-<>@-~]*(?:=[0-9A-F]{2}[!-<>@-~]*)*)\?=",
            lambda word: a2b_qp(word[1], header=True).decode("utf-8", "surrogateescape"),
            value,
        )
        .encode("utf-8", "surrogateescape")
        .decode()
    )


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


_SUBJECTS = _TEXTS.map(lambda text: accepted("Inscrição", check_subject, text))
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
# Values that decode to line breaks, to headers, to a body, or to nothing that can be read.
_HOSTILE = st.sampled_from(
    [
        "=?utf-8?q?a=0D=0AX-MSYS-API:_=7B=22bcc=22:[=22eva@example.com=22]=7D?=",
        "=?utf-8?q?a=0D=0ABcc:_eva@example.com=0D=0A=0D=0A=3Cb=3EPay=3C=2Fb=3E?=.txt",
        "=?utf-8?b?DQpCY2M6IGV2YUBleGFtcGxlLmNvbQ0KDQo8Yj4=?=",
        "=?us-ascii*en?Q?=0A=0AHello?= =?utf-8?q?_there?=", "=?utf-7?q?+AA0ACg-Bcc:?=", "=?x?q?y?=.txt", "=?", "?=",
        "=?utf-8?q?a?= <=?utf-8?q?b=0D=0A?=>", "a\r\nBcc: eva@example.com", "a\r\n\r\n<b>", "\n", "\r", "\0", "a\x85b",
        "a\u2028b", "\x1b[2J", "a\x7f", "\ud800", "a;b=c", "a\"; filename=\"b.exe", "a\\", "\\\"", "%0D%0A", "a'b''c",
        "utf-8''a%0D%0Ab", "filename*0*=x", "../../etc/passwd", "\ufeffa", "a\tb", " a ", "a  b", "ç" * 200, "a" * 1200,
        "<https://x.example/?a=?utf-8?q?=0D=0A?=>", "<ção@example.com>", "Notícias <news.example.com>",
        "a, (b ç) \"ç;\" <d>",
        "--=_", "Mon, 01 Jan 2024 00:00:00 +0000\r\nX: y", "<1@x>", "text/html", "text/plain; charset==?x?=",
        "text/plain; x=\"=?utf-8?q?=0D=0A?=\"", "image/png; name=\"a b\"", "text/calendar; method=REQUEST",
        "a/b;c=d;C=e",
    ]
) | _TEXTS  # fmt: skip
_HEADERS = st.dictionaries(
    st.sampled_from(["X-A", "List-Unsubscribe", "References", "In-Reply-To", "Precedence", "X" * 70, "List-Id", "x-a"])
    | st.sampled_from(["Sender", "Date", "Resent-To", "Message-ID", "Importance", "Auto-Submitted", "Received"])
    | st.sampled_from(["X-Registration-Participant", "Keywords", "Content-Language", "Resent-Date", "Content-Location"])
    | st.sampled_from(["Disposition-Notification-To", "Authentication-Results", "Content-Description", "Comments"])
    | _HOSTILE,
    st.sampled_from(["<1@x>", "<1@x> <2@y>", "bulk", "a," * 100, "a; " * 60, "ç" * 100, UNSUBSCRIBE])
    | st.sampled_from(["Zé <ze@example.com>", "Mon, 01 Jan 2024 00:00:00 +0000", "Notícias <news.example.com>"])
    | st.datetimes()
    | _HOSTILE,
    max_size=2,
).map(lambda given: accepted({"X-A": "ação"}, normalise_headers, given))
_MIMETYPES = st.sampled_from(
    ["", "application/pdf", "image/png", "text/plain", "Text/HTML", "text/plain; charset=iso-8859-1", "TEXT/x"]
    + ['text/calendar; method=REQUEST; charset=utf-8; x_y="a; b"', 'a/b; c=""', 'a/b; c="=?utf-8?q?x?="', "x/y"]
    + ["application/x; name=" + "n" * 200, 'application/x; filename="a b"', "text/plain; charset=utf-16"]
)
_FILES = st.builds(
    Attachment,
    filename=st.sampled_from(["boleto.pdf", "", "inscrição nº 1.pdf", 'a"b\\c.txt', "漢" * 255, "a" * 255, "a;b='c'"])
    | st.text(_CHARACTERS, max_size=80)
    | _HOSTILE,
    content=st.binary(max_size=300),
    mimetype=_MIMETYPES | _HOSTILE,
    content_id=st.sampled_from(["", "", "", "logo", "a@b", "=?utf-8?q?x?=", "x" * 200]) | _HOSTILE,
    inline=st.booleans(),
    description=st.just("") | _HOSTILE,
).map(lambda given: accepted([BOLETO], read_attachments, [given], 10_000)[0])


@settings(max_examples=examples(100), deadline=None)
@given(
    subject=_SUBJECTS | _HOSTILE.map(lambda text: accepted("Inscrição", check_subject, text)),
    text=_BODIES,
    html=_BODIES | st.just('<img src="cid:logo">'),
    from_email=addresses(),
    people=st.lists(addresses(), min_size=1, max_size=6),
    reply_to=st.lists(addresses(), max_size=2),
    headers=_HEADERS,
    files=st.lists(_FILES, max_size=2),
)
def test_what_is_accepted_arrives_as_it_was_given_and_nothing_else_does(
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
    assert_as_given(mail_of(MailContent(subject, text, html), files, headers=headers, **fields))


@settings(max_examples=examples(40), deadline=None)
@given(name=_HOSTILE, value=_HOSTILE, file=st.builds(LoadedAttachment, _HOSTILE, st.binary(), _HOSTILE, _HOSTILE))
@example(name="X-Evento", value="<2@congressy.net>", file=BOLETO)
@example(name="=?utf-8?q?a?=", value="ana@example.com", file=BOLETO)
def test_what_was_never_checked_fails_its_mail_or_adds_nothing_to_it(
    name: str, value: str, file: LoadedAttachment
) -> None:
    for fields in ({"headers": {name: value}}, {"from_email": value}, {"to": [value]}, {"message_id": value}):
        try:
            mail = mail_of(MailContent(value, "Olá", ""), [file], **fields)
        except ContentError:
            continue
        whole = read_raw(on_the_wire(mail))
        # Subject, From, To, MIME-Version, Content-Type, and those that the mail names.
        assert len(whole.names) == 5 + len(mail.extra_headers)
        assert len(whole.parts) == 2


@pytest.mark.parametrize(
    ("rendered", "files", "fields"),
    [
        (CONFIRMED, [], {}),
        (MailContent("Your ticket", "Hello\n", ""), [], {"to": ["eva@example.com"]}),
        (MailContent("Ação " * 40 + "!", "Olá" * 2000, "<p>" + "é" * 2000), [], {}),
        (MailContent("Word " * 40 + "!", "x" * 998, "x" * 999), [], {}),
        (MailContent("招待状", "招待状\n" * 100, "<p>招待状</p>"), [], {"to": ["山田 <yamada@example.jp>"]}),
        (MailContent("two  spaces " + "a" * 70 + "   b", "Olá", ""), [], {}),
        (MailContent("", "Olá", ""), [], {}),
        (MailContent("Olá", "", "<p>Olá</p>"), [], {}),
        (MailContent("Olá", "", ""), [BOLETO], {}),
        (CONFIRMED, [], {"from_email": "Inscrições Congressy <mail@congressy.net>"}),
        (CONFIRMED, [], {"to": ['"Silva, João" <joao@example.com>', '"Eva (CEO) \\"E\\"" <eva@example.com>', JOAO]}),
        (CONFIRMED, [], {"to": ["Zé <ze@são-paulo.example>"], "cc": [f"Ana <a{n}@example.com>" for n in range(99)]}),
        (CONFIRMED, [], {"to": [], "bcc": ["eva@example.com"]}),
        (CONFIRMED, [], {"reply_to": ["Congressy <congressy@congressy.com>", "Suporte técnico <a@congressy.com>"]}),
        (CONFIRMED, [], {"headers": {"List-Unsubscribe": UNSUBSCRIBE, "X-Campanha": "Verão", "Precedence": "bulk"}}),
        (CONFIRMED, [], {"headers": {"message-id": "<2@congressy.net>", "X" * 76: "ç" * 90}}),
        (CONFIRMED, [], {"headers": {"Sender": "Zé <ze@example.com>", "Resent-To": "Zé <ze@x.com>, eva@x.com"}}),
        (CONFIRMED, [], {"to": ['"a b"@example.com', '"=?utf-8?q?a?=" <eva@example.com>', "ana@[IPv6:2001:db8::1]"]}),
        (CONFIRMED, [BOLETO], {}),
        (MailContent("Boleto", "Em anexo.", ""), [BOLETO, LoadedAttachment("inscrição nº 1.pdf", b"", "a/b", "")], {}),
        (CONFIRMED, [LOGO, LoadedAttachment("漢" * 255, b"x" * 200, "text/plain; charset=iso-8859-1", "")], {}),
        (CONFIRMED, [LoadedAttachment("i.ics", "ção".encode(), "text/calendar; method=REQUEST", "")], {}),
    ],
)  # fmt: skip
def test_mails_arrive_as_they_were_given(
    rendered: MailContent, files: list[LoadedAttachment], fields: dict[str, Any]
) -> None:
    assert_as_given(mail_of(rendered, files, **fields))


@pytest.mark.parametrize("subject", ["=?utf-8?q?Ol=C3=A1?=", "Ol=?", "é =?utf-8?q?x?= "[:-1], "a=?b c?=d"])
def test_a_subject_that_looks_encoded_comes_back_as_it_is(subject: str) -> None:
    assert parsed(on_the_wire(mail_of(MailContent(subject, "Olá", ""))))["Subject"] == subject


ODD = [
    '"a  b"@example.com', '"a,b>c"@example.com', '""@example.com', '"\\\\"@example.com', "ana@[IPv6:2001:db8::1]",
    '"=?utf-8?q?Ana?=" <ana@example.com>', '"Silva, \\"Zé\\"" <ze@example.com>', "Zé <ze@xn--so-paulo-rza.example>",
    '"Ana (Financeiro)" <"a b"@[192.0.2.1]>', "x" * 64 + "@example.com", "😀" * 300 + " <ana@example.com>",
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_address_is_read_as_it_is(odd: str) -> None:
    assert normalise_address(odd, "to") == odd
    headers = {"Sender": odd, "Resent-To": f"{odd}, eva@example.com"}
    mail = mail_of(from_email=odd, to=[odd, "eva@example.com"], cc=[odd], reply_to=[odd], headers=headers)
    assert_as_given(mail)
    # A backend may look at them.
    assert all(mail.message().get_all(name) for name in ("From", "To", "Cc", "Reply-To"))


def test_an_address_of_an_older_version_fails_with_its_mail() -> None:
    with pytest.raises(ContentError, match="no ASCII form"):
        mail_of(to=["ana@ex⑴.example"])


def test_mail_is_utf_8_whatever_pages_are(settings: Any) -> None:
    settings.DEFAULT_CHARSET = "iso-8859-1"
    assert parsed(on_the_wire(mail_of())).get_body().get_content_charset() == "utf-8"


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
    "rendered", [MailContent("\ud800", "a", ""), MailContent("a", "\ud800", ""), MailContent("a", "a", "\ud800")]
)
def test_what_has_no_form_is_an_error_at_once(rendered: MailContent) -> None:
    with pytest.raises(ContentError, match="cannot be composed: (Unicode|.*control characters)"):
        mail_of(rendered)


def test_an_attachment_of_many_mails_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []
    encode = attachments_module.base64_lines
    monkeypatch.setattr(attachments_module, "base64_lines", lambda content: encoded.append(content) or encode(content))
    shared = LoadedAttachment("programa.pdf", b"%PDF" * 100, "application/pdf", "", shared=True)
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
    assert f"\r\nList-Unsubscribe: {UNSUBSCRIBE}\r\n".encode() in wire


def test_nobody_knows_a_boundary_before() -> None:
    first, second = (re.findall(rb'boundary="([^"]+)"', mail_of(CONFIRMED, [LOGO]).wire) for _ in range(2))
    assert len({*first, *second}) == 4
    said = mail_of(MailContent("Boundary", f"--{first[0].decode()}--\n", "<p>Olá</p>"))
    assert_as_given(said)


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
