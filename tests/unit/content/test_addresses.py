"""Addresses and headers as callers give them."""

from __future__ import annotations

from email.headerregistry import Address, AddressHeader
from typing import Any

import pytest
from django.core.validators import validate_email
from django.utils.functional import lazystr
from hypothesis import given, settings
from hypothesis import strategies as st

from congressy_mailer.exceptions import InvalidAddress, InvalidHeader
from congressy_mailer.mime import addresses
from congressy_mailer.mime.addresses import (
    bare_address,
    normalise_address,
    normalise_addresses,
    normalise_headers,
    split_address,
)


@pytest.mark.parametrize(
    ("given", "normal", "bare"),
    [
        ("ana@example.com", "ana@example.com", "ana@example.com"),
        ("  ana@example.com ", "ana@example.com", "ana@example.com"),
        ("Ana <ana@example.com>", "Ana <ana@example.com>", "ana@example.com"),
        ("José Conceição <jose@example.com>", "José Conceição <jose@example.com>", "jose@example.com"),
        ('"Silva, Ana" <ana@example.com>', '"Silva, Ana" <ana@example.com>', "ana@example.com"),
        ("ana@münchen.de", "ana@münchen.de", "ana@xn--mnchen-3ya.de"),
        ("ana+tag@example.com", "ana+tag@example.com", "ana+tag@example.com"),
    ],
)
def test_normal_forms(given: str, normal: str, bare: str) -> None:
    assert normalise_address(given, "to[0]") == normal
    assert bare_address(normal) == bare


@pytest.mark.parametrize(
    "hostile",
    [
        "",
        "   ",
        None,
        "ana",
        "ana@",
        "@example.com",
        "ana@example.com, eva@example.com",
        "ana@example.com; eva@example.com",
        "Ana <ana@example.com> <eva@example.com>",
        "Ana <ana@example.com>, Eva <eva@example.com>",
        "group: ana@example.com;",
        "undisclosed-recipients:;",
        "ana@example.com\nBcc: eva@example.com",
        "Ana\r\nBcc: eva@example.com <ana@example.com>",
        "ana@exa\x00mple.com",
        "ana@example.com\u2028eva@example.com",
        "josé@example.com",
        "ana@example..com",
        "a" * 65 + "@" + "b" * 200 + ".com",
        "x" * 301 + " <ana@example.com>",
        "=?utf-8?q?ana=40example=2Ecom=2C?= eva@example.com",
        "\ud800@example.com",
        b"ana@example.com",
        42,
    ],
)
def test_what_is_not_one_address_is_refused(hostile: Any) -> None:
    with pytest.raises(InvalidAddress, match=r"^to\[3\]"):
        normalise_address(hostile, "to[3]")


def test_the_error_names_the_place() -> None:
    with pytest.raises(InvalidAddress, match=r"cc\[1\] is not"):
        normalise_addresses(["ana@example.com", "nobody"], "cc")


@pytest.mark.parametrize("values", [b"ana@example.com", {"ana@example.com": 1}, 3])
def test_only_lists_of_addresses(values: object) -> None:
    with pytest.raises(InvalidAddress, match="to must be a list of addresses"):
        normalise_addresses(values, "to")


def test_one_text_is_one_address() -> None:
    assert normalise_addresses("ana@example.com", "to") == ["ana@example.com"]
    assert normalise_addresses(lazystr("ana@example.com"), "to") == ["ana@example.com"]
    assert normalise_addresses(None, "to") == []


@given(st.text(max_size=80) | st.from_regex(r'[^\0]{0,20}<[\w".@, ]{1,20}@[\w.,;]{1,20}>[^\0]{0,10}'))
def test_whatever_is_accepted_is_one_mailbox_on_one_line(text: str) -> None:
    try:
        normal = normalise_address(text, "to")
    except InvalidAddress:
        return
    parsed = AddressHeader.value_parser(normal).all_mailboxes
    assert len(parsed) == 1
    assert len(normal.splitlines()) == 1
    assert normalise_address(normal, "to") == normal
    bare = bare_address(normal)
    assert bare.isascii()
    assert not set(bare) & set(" \r\n<>,;")


@settings(deadline=None)
@given(
    st.text(st.sampled_from('a é.,@<>()[]"\\:;=?-_1\u00a0\t\n'), max_size=12).map(
        lambda text: f"{text} <ana@example.com>"
    )
    | st.lists(
        st.sampled_from(
            ["Ana", "é", '"Silva, Ana"', '"', "\\", " ", "<", ">", "@", ".", "a", "b.example", "ü", "(", ","]
        ),
        max_size=8,
    ).map("".join)
)
def test_an_address_that_is_plain_is_what_the_parser_takes_it_for(text: str) -> None:
    plain = split_address(text)
    if plain is not None:
        (mailbox,) = AddressHeader.value_parser(text).all_mailboxes
        assert plain == (mailbox.display_name or "", mailbox.addr_spec)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("ana@example.com", ("", "ana@example.com")),
        ("João da Silva <joao@são-paulo.example>", ("João da Silva", "joao@são-paulo.example")),
        ('"Silva, \\"J\\"" <j@example.com>', ('Silva, "J"', "j@example.com")),
        ('"a b"@example.com', None),
        ("a@[127.0.0.1]", None),
        ("Ana\r\nBcc: x <ana@example.com>", None),
    ],
)
def test_what_is_plain(text: str, plain: tuple[str, str] | None) -> None:
    assert split_address(text) == plain


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


_labels = st.text("abcXYZ019-_.+", min_size=1, max_size=12)
_names = st.text("AbÇçéõß 09.,'\"-<>=?", max_size=12)


@given(st.builds("{}@{}.{}".format, _labels, _labels, _labels), _names)
def test_what_needs_no_parser_is_what_the_parser_would_say(address: str, name: str) -> None:
    text = f"{name} <{address}>" if name else address
    if addresses._COMMON_ADDRESS.fullmatch(text):
        parsed_name, parsed_address = addresses._parse_address(text, "to")
        assert str(Address(display_name=parsed_name, addr_spec=parsed_address)) == normalise_address(text, "to") == text
        validate_email(parsed_address)


@pytest.mark.parametrize("usual", ["ana.silva+vip@mail.example.com.br", "José Conceição 2 <jose_9@example.com>"])
def test_the_usual_needs_no_parser(usual: str) -> None:
    assert addresses._COMMON_ADDRESS.fullmatch(usual)
