"""Any text as an address: what is accepted can be sent, all else is refused, and neither takes long."""

from __future__ import annotations

import re
import time
from email.utils import formataddr, getaddresses
from ipaddress import IPv6Address
from unittest.mock import patch

import pytest
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from hypothesis import example, given, settings
from hypothesis import strategies as st

from congressy_mailer.exceptions import InvalidAddress
from congressy_mailer.mime import addresses
from congressy_mailer.mime.addresses import (
    bare_address,
    common_bare_address,
    comparable_address,
    domain_of,
    listed_addresses,
    normalise_address,
    normalise_addresses,
    split_address,
    split_common_address,
)
from congressy_mailer.mime.headers import address_field
from congressy_mailer.mime.syntax import CONTROL
from congressy_mailer.transports.envelope import command_address
from tests.support.fuzzing import examples

# RFC 5321 §4.1.2 and §4.1.3, word for word.
_LET_DIG = "[A-Za-z0-9]"
_SUB_DOMAIN = f"{_LET_DIG}(?:[A-Za-z0-9-]*{_LET_DIG})?"
_ATEXT = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
_MAILBOX = re.compile(
    rf"(?P<local>{_ATEXT}+(?:\.{_ATEXT}+)*|\"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\[\x20-\x7e])*\")"
    rf"@(?:(?P<domain>{_SUB_DOMAIN}(?:\.{_SUB_DOMAIN})*)"
    r"|\[(?P<ipv4>[0-9]{1,3}(?:\.[0-9]{1,3}){3})\]|\[IPv6:(?P<ipv6>[0-9a-fA-F:.]+)\])"
)


def assert_sendable(normal: str) -> None:
    """Everything that the rest relies on."""
    assert len(normal.splitlines()) == 1 and not CONTROL.search(normal)
    assert normalise_address(normal, "to") == normal
    plain = split_common_address(normal)
    assert plain is not None
    name, bare = plain
    assert split_address(normal) == plain
    assert name == " ".join(name.split())
    assert bare_address(normal) == bare
    mailbox = _MAILBOX.fullmatch(bare)
    assert mailbox, bare
    assert len(bare) <= 254 and len(mailbox["local"]) <= 64
    domain = mailbox["domain"]
    if domain:
        assert domain == domain.lower() == domain_of(normal)
        assert max(map(len, domain.split("."))) <= 63
        assert "." in domain or domain == "localhost"
    if mailbox["ipv6"]:
        assert IPv6Address(mailbox["ipv6"]).exploded
    assert command_address(bare, local=False) == bare
    compared = comparable_address(normal)
    assert comparable_address(compared) == compared == comparable_address(normalise_address(compared, "to"))
    assert split_common_address(compared) == ("", compared)
    field = address_field("To", [normal])
    assert field.isascii() and max(map(len, field.split("\r\n"))) <= 998
    if not set('"[') & set(bare):
        # Some versions of the standard library's reader lose quoted local parts and address literals.
        ((_, read),) = getaddresses([field.replace("\r\n ", " ").removeprefix("To:").strip()])
        assert read == bare


_PIECES = st.sampled_from(
    ["Ana", "Silva", "é", "ß", "漢字", "\u200d", "\u00ad", "，", "＠", "＞", "⑴", "…", "。", "\u0301", "\u202e", "😀"]
    + ['"', "\\", '\\"', "<", ">", "@", ".", ",", ";", ":", "(", ")", "[", "]", "=?", "?=", "=?utf-8?q?=0A?=", "_", "-"]
    + [" ", "  ", "\t", "\n", "\r\n", "\0", "\x7f", "\x85", "\u2028", "\ud800", "\u00a0"]
    + ["ana", "ana@", "@example.com", "<ana@example.com>", "example", "com", "xn--", "xn--fa-hia", "a" * 63, "a" * 64]
    + ["[192.0.2.1]", "[IPv6:", "::1", "]", "localhost", "1", "example.com", '"a b"', '""', "=?utf-8?b?w6k=?="]
)
_HOSTILE = st.one_of(
    st.text(max_size=60),
    st.lists(_PIECES, max_size=9).map("".join),
    st.builds("{}@{}".format, st.lists(_PIECES, max_size=4).map("".join), st.lists(_PIECES, max_size=5).map("".join)),
    st.builds(
        "{} <{}@{}>".format, st.text(max_size=12), st.lists(_PIECES, max_size=3).map("".join), st.text(max_size=12)
    ),
    st.builds("{} <ana@example.com>".format, st.lists(_PIECES, max_size=8).map("".join)),
    st.builds("ana@{}.com".format, st.text(min_size=1, max_size=8)),
    st.builds('"{}"@example.com'.format, st.text(st.characters(max_codepoint=0x7F), max_size=12)),
    st.builds(lambda name, address: formataddr((name, address)), st.text(max_size=20), st.emails()),
    st.from_regex(r'[^\0]{0,20}<[\w".@, ]{1,20}@[\w.,;]{1,20}>[^\0]{0,10}'),
)


@settings(max_examples=examples(1500), deadline=None)
@given(_HOSTILE)
@example('Ana <"a<b"@x.example>')
@example("a@[IPv6:::ffff:1.2.3.4]")
@example("=?utf-8?q?=3D=3Futf-8=3Fq=3Fa=3F=3D?= <a@x.example>")
def test_whatever_is_accepted_can_be_sent_and_all_else_is_an_invalid_address(text: str) -> None:
    try:
        normal = normalise_address(text, "to")
    except InvalidAddress:
        return
    assert_sendable(normal)


_WORDS = st.sampled_from(["Ana", "José", "d'Ávila", "ß", "漢字", "e\u0301", "=", "-", "Łuk", "?"])
_COMMON = (
    st.builds(
        "{} <{}@{}>".format,
        st.lists(_WORDS, max_size=4).map(" ".join),
        st.sampled_from(["ana", "a.b", "x" * 64, "x" * 65, "A+b", "a..b", "=?a?="]),
        st.sampled_from(["example.com", "Example.COM", "a.b.example", "db1.rack7", "xn--a.br", "a-.br", "localhost"]),
    )
    | st.emails()
)


def _what_is_made_of(text: str) -> tuple[object, object, object]:
    try:
        normal: object = normalise_address(text, "to")
    except InvalidAddress as error:
        normal = str(error)
    return normal, split_common_address(text), common_bare_address(text) or bare_address(text)


@settings(max_examples=examples(1500), deadline=None)
@given(_COMMON | _HOSTILE)
def test_common_addresses_are_what_reading_them_would_make_of_them(text: str) -> None:
    quickly = _what_is_made_of(text)
    with patch.object(addresses, "_COMMON_ADDRESS", re.compile("(?!)")):
        assert _what_is_made_of(text) == quickly


@settings(max_examples=examples(500), deadline=None)
@given(st.text(max_size=60) | st.lists(_PIECES, max_size=9).map("".join))
def test_nothing_that_was_stored_is_an_error(text: str) -> None:
    assert bare_address(text).lower() == comparable_address(text) == comparable_address(comparable_address(text))
    assert isinstance(domain_of(text), str)


@settings(max_examples=examples(500), deadline=None)
@given(st.lists(_PIECES | st.sampled_from([",", ", "]), max_size=14).map("".join))
def test_lists_are_addresses_or_refused(text: str) -> None:
    try:
        listed = listed_addresses(text, "to")
    except InvalidAddress:
        return
    for normal in listed:
        assert_sendable(normal)
    assert listed_addresses(", ".join(listed), "to") == listed


def _is_email_for_django(text: str) -> bool:
    try:
        validate_email(text)
    except ValidationError:
        return False
    return True


_DJANGO_DOMAINS = st.sampled_from(
    ["example.com", "EXAMPLE.Com.br", "localhost", "[127.0.0.1]", "[2001:dB8::1]", "[::fffF:127.0.0.1]", "[::]"]
    + [
        "valid-----hyphens.com",
        "xn--fa-hia.de",
        "faß.de",
        "domain.with.idn.tld.उदाहरण.परीक्षा",
        "a" * 63 + ".atm",
        "x.y-z",
    ]
)
_DJANGO_LOCALS = st.from_regex(
    r"[-!#$%&'*+/=?^_`{}|~0-9A-Za-z]{1,20}(\.[-!#$%&'*+/=?^_`{}|~0-9A-Za-z]{1,9}){0,3}", fullmatch=True
) | st.from_regex(r'"([ -!#-\[\]-~]|\\[ -~]){0,20}"', fullmatch=True)


@settings(max_examples=examples(500), deadline=None)
@given(st.builds("{}@{}".format, _DJANGO_LOCALS, _DJANGO_DOMAINS) | st.emails())
def test_what_a_form_of_django_accepts_can_be_sent(text: str) -> None:
    """But for what is refused for good reasons: docs/explanation/decisions.md names them."""
    local = re.sub(r"\\(.)", r"\1", text.rpartition("@")[0])
    if _is_email_for_django(text) and not re.search(r"=\?.*\?=", local) and len(text.rpartition("@")[0]) <= 64:
        assert_sendable(normalise_address(text, "to"))


_labels = st.text("abcXYZ019-_.+", min_size=1, max_size=12)
_names = st.text("AbÇçéõß漢 09.,'\"-<>=?\u00a0\t", max_size=12)


@given(st.builds("{}@{}.{}".format, _labels, _labels, _labels), _names)
def test_what_needs_no_reading_is_what_reading_says(address: str, name: str) -> None:
    text = f"{name} <{address}>" if name else address
    try:
        read = addresses.read_address(text.strip(), "to")
    except InvalidAddress:
        with pytest.raises(InvalidAddress):
            normalise_address(text, "to")
    else:
        assert normalise_address(text, "to") == read
        if addresses.common_bare_address(text) is not None:
            assert read == text


@pytest.mark.parametrize(
    "usual",
    [
        "ana.silva+vip@mail.example.com.br",
        "José Conceição 2 <jose_9@example.com>",
        "o'neil@example.com",
        "山 田 <y@x.jp>",
    ],
)
def test_the_usual_needs_no_reading(usual: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "read_address", None)
    assert normalise_address(usual, "to") == usual
    assert normalise_address(usual.replace("x.jp", "X.JP").replace("example", "EXAMPLE"), "to") == usual


_LONG = 100_000


@pytest.mark.parametrize(
    "hostile",
    [
        "a",
        " ",
        "\t",
        "é",
        '"',
        "\\",
        '\\"',
        '"\\',
        "<",
        ">",
        "<>",
        "@",
        "a@",
        "a@b.",
        ".",
        "a.",
        ",",
        "a,",
        "(",
        ")",
        "()",
    ]
    + [
        "[",
        "[IPv6:",
        ":",
        "=?",
        "=?utf-8?q?",
        "=?utf-8?q?a?= ",
        "=?utf-8?b?w6k=?=",
        '"a"',
        '"a" ',
        "\0",
        "\n",
        "\ud800",
    ]
    + [
        "ü",
        "ü.",
        "xn--",
        "xn--a.",
        "\u0301",
        "\u3002",
        "，",
        "ا1",
        "・",
        "Ana <ana@example.com>, ",
        "ana@example.com,",
    ],
)
@pytest.mark.parametrize(
    "form", ["{}", "ana@{}", "{}@example.com", '"{}"@example.com', "{} <ana@example.com>", "Ana <{}"]
)
def test_time_grows_with_the_text_and_no_faster(hostile: str, form: str) -> None:
    text = form.format(hostile * (_LONG // len(hostile)))
    begun = time.thread_time()
    for read in (normalise_address, normalise_addresses, listed_addresses):
        said = ""
        try:
            read(text, "to")
        except InvalidAddress as error:
            said = str(error)
        # What is said of it does not grow at all. Blanks around an address are no fault, nor is a list of many.
        assert len(said) < 1000
        assert said or read is listed_addresses or len(text.strip()) < 100
    assert comparable_address(text)
    # A text of this length took the parser of the standard library twenty seconds, or a few thousandths of one.
    assert time.thread_time() - begun < 2
