"""Addresses as callers give them: their normal forms, and what is refused."""

from __future__ import annotations

import re
from contextlib import suppress
from encodings.idna import nameprep
from functools import cache
from typing import Any

import pytest
from django.test import override_settings
from django.utils.functional import lazystr

from congressy_mailer.exceptions import InvalidAddress
from congressy_mailer.mime.addresses import (
    address_with_name,
    bare_address,
    comparable_address,
    domain_of,
    listed_addresses,
    normalise_address,
    normalise_addresses,
)
from congressy_mailer.transports.envelope import command_address


@pytest.mark.parametrize(
    ("given", "normal", "bare"),
    [
        ("ana@example.com", "ana@example.com", "ana@example.com"),
        ("  ana@example.com ", "ana@example.com", "ana@example.com"),
        ("ana@example.com\n", "ana@example.com", "ana@example.com"),
        ("Ana <ana@example.com>", "Ana <ana@example.com>", "ana@example.com"),
        ("ana+tag@example.com", "ana+tag@example.com", "ana+tag@example.com"),
        ("José Conceição <jose@example.com>", "José Conceição <jose@example.com>", "jose@example.com"),
        ("山田 太郎 <yamada@example.jp>", "山田 太郎 <yamada@example.jp>", "yamada@example.jp"),
        # Case says nothing in a domain, and all that a host makes of it before the @.
        ("ANA@EXAMPLE.COM", "ANA@example.com", "ANA@example.com"),
        ("Ana <ANA@Example.COM>", "Ana <ANA@example.com>", "ANA@example.com"),
        # Names.
        ('"Ana" <ana@example.com>', "Ana <ana@example.com>", "ana@example.com"),
        ('"Silva, Ana" <ana@example.com>', '"Silva, Ana" <ana@example.com>', "ana@example.com"),
        (r'"O \"Zé\" \\" <ze@example.com>', r'"O \"Zé\" \\" <ze@example.com>', "ze@example.com"),
        (r'"An\a" <ana@example.com>', "Ana <ana@example.com>", "ana@example.com"),
        ('José "Zé" Silva <ze@example.com>', "José Zé Silva <ze@example.com>", "ze@example.com"),
        ("Congressy.com <mail@congressy.net>", '"Congressy.com" <mail@congressy.net>', "mail@congressy.net"),
        ("Ana (Financeiro) <ana@example.com>", '"Ana (Financeiro)" <ana@example.com>', "ana@example.com"),
        ("ana@example.com (Silva, Ana)", '"Silva, Ana" <ana@example.com>', "ana@example.com"),
        ("Ana<ana@example.com>", "Ana <ana@example.com>", "ana@example.com"),
        ("< ana@example.com >", "ana@example.com", "ana@example.com"),
        ('"" <ana@example.com>', "ana@example.com", "ana@example.com"),
        # Blanks in names, and what spreadsheets have in their place.
        ('"Ana  Silva" <a@example.com>', "Ana Silva <a@example.com>", "a@example.com"),
        ('" Ana" <a@example.com>', "Ana <a@example.com>", "a@example.com"),
        ('"Ana " <a@example.com>', "Ana <a@example.com>", "a@example.com"),
        ("José  da Silva <a@example.com>", "José da Silva <a@example.com>", "a@example.com"),
        ("Ana\tSilva <a@example.com>", "Ana Silva <a@example.com>", "a@example.com"),
        ("Ana\u00a0Silva\u3000 <a@example.com>", "Ana Silva <a@example.com>", "a@example.com"),
        ("\0Ana\x7f\x1b\x80 Silva <a@example.com>", "Ana Silva <a@example.com>", "a@example.com"),
        ('"\x7f" <a@example.com>', "a@example.com", "a@example.com"),
        # Names that somebody has encoded already (RFC 2047).
        ("=?utf-8?q?Jos=C3=A9_Silva?= <a@example.com>", "José Silva <a@example.com>", "a@example.com"),
        ("=?UTF-8?B?Sm9zw6k=?= =?utf-8*pt?q?_Silva?= <a@example.com>", "José Silva <a@example.com>", "a@example.com"),
        ("Dr. =?iso-8859-1?Q?Jos=E9?= <a@example.com>", '"Dr. José" <a@example.com>', "a@example.com"),
        ("=?utf-8?q?Silva=2C_Ana?= <a@example.com>", '"Silva, Ana" <a@example.com>', "a@example.com"),
        ('"=?utf-8?q?Ana?=" <a@example.com>', '"=?utf-8?q?Ana?=" <a@example.com>', "a@example.com"),
        ("who =? you <a@example.com>", '"who =? you" <a@example.com>', "a@example.com"),
        # International domains.
        ("ana@münchen.de", "ana@xn--mnchen-3ya.de", "ana@xn--mnchen-3ya.de"),
        ("ana@faß.de", "ana@xn--fa-hia.de", "ana@xn--fa-hia.de"),
        ("ana@FAß.de", "ana@xn--fa-hia.de", "ana@xn--fa-hia.de"),
        ("ana@XN--FA-HIA.de", "ana@xn--fa-hia.de", "ana@xn--fa-hia.de"),
        ("ana@βόλος.gr", "ana@xn--nxasmm1c.gr", "ana@xn--nxasmm1c.gr"),
        ("ana@نامه\u200cای.com", "ana@xn--mgba3gch31f060k.com", "ana@xn--mgba3gch31f060k.com"),
        ("Zé <ana@São-Paulo.example>", "Zé <ana@xn--so-paulo-rza.example>", "ana@xn--so-paulo-rza.example"),
        ("ana@sa\u0303o-paulo.example", "ana@xn--so-paulo-rza.example", "ana@xn--so-paulo-rza.example"),
        ("ana@उदाहरण.परीक्षा", "ana@xn--p1b6ci4b4b3a.xn--11b5bs3a9aj6g", "ana@xn--p1b6ci4b4b3a.xn--11b5bs3a9aj6g"),
        ("ana@example。com", "ana@example.com", "ana@example.com"),
        ("ana@ｅｘａｍｐｌｅ.com", "ana@example.com", "ana@example.com"),
        ("ana@exam\u00adple.com", "ana@example.com", "ana@example.com"),
        # What IDNA knows nothing of is left to the DNS.
        ("ana@xn--qei.ws", "ana@xn--qei.ws", "ana@xn--qei.ws"),
        ("ana@a--b.example", "ana@a--b.example", "ana@a--b.example"),
        # Local parts in quotation marks.
        ('"ana"@example.com', "ana@example.com", "ana@example.com"),
        ('"a b"@example.com', '"a b"@example.com', '"a b"@example.com'),
        ('"a  b "@example.com', '"a  b "@example.com', '"a  b "@example.com'),
        (r'"a\ \"b\\"@example.com', r'"a \"b\\"@example.com', r'"a \"b\\"@example.com'),
        ('"a@b,<c>"@example.com', '"a@b,<c>"@example.com', '"a@b,<c>"@example.com'),
        ('Ana <"a>b"@example.com>', 'Ana <"a>b"@example.com>', '"a>b"@example.com'),
        ('""@example.com', '""@example.com', '""@example.com'),
        ("who=?@example.com", "who=?@example.com", "who=?@example.com"),
        ('"a..b"@example.com', '"a..b"@example.com', '"a..b"@example.com'),
        # Address literals.
        ("ana@[192.0.2.1]", "ana@[192.0.2.1]", "ana@[192.0.2.1]"),
        ("ana@[IPv6:2001:DB8:0:0::1]", "ana@[IPv6:2001:db8::1]", "ana@[IPv6:2001:db8::1]"),
        ("ana@[ipv6:2001:db8::1]", "ana@[IPv6:2001:db8::1]", "ana@[IPv6:2001:db8::1]"),
        ("ana@[2001:db8::1]", "ana@[IPv6:2001:db8::1]", "ana@[IPv6:2001:db8::1]"),
        ("ana@[IPv6:::1]", "ana@[IPv6:::1]", "ana@[IPv6:::1]"),
        ("ana@[IPv6:::]", "ana@[IPv6:::]", "ana@[IPv6:::]"),
        ("ana@[IPv6:1:0:0:2:0:0:0:3]", "ana@[IPv6:1:0:0:2::3]", "ana@[IPv6:1:0:0:2::3]"),
        ("ana@[IPv6:10:0:1:2:3:4:5:6]", "ana@[IPv6:10:0:1:2:3:4:5:6]", "ana@[IPv6:10:0:1:2:3:4:5:6]"),
        ("ana@[IPv6:::ffff:192.0.2.1]", "ana@[IPv6:::ffff:c000:201]", "ana@[IPv6:::ffff:c000:201]"),
        # At the limits.
        ("x" * 64 + "@example.com", "x" * 64 + "@example.com", "x" * 64 + "@example.com"),
        (f"ana@{'x' * 63}.example", f"ana@{'x' * 63}.example", f"ana@{'x' * 63}.example"),
        (f"ana@{'abcde.' * 41}abcd", f"ana@{'abcde.' * 41}abcd", f"ana@{'abcde.' * 41}abcd"),
        ("x" * 300 + " <ana@example.com>", "x" * 300 + " <ana@example.com>", "ana@example.com"),
        ("root@localhost", "root@localhost", "root@localhost"),
        ("ana@123.example", "ana@123.example", "ana@123.example"),
        ("ana@db1.rack7", "ana@db1.rack7", "ana@db1.rack7"),
    ],
)
def test_normal_forms(given: str, normal: str, bare: str) -> None:
    assert normalise_address(given, "to[0]") == normal
    assert normalise_address(normal, "to[0]") == normal
    assert bare_address(normal) == bare
    assert comparable_address(normal) == bare.lower()
    assert command_address(bare, local=False) == bare


@pytest.mark.parametrize(
    ("hostile", "reason"),
    [
        ("", "is empty"),
        ("   ", "is empty"),
        (None, "is empty"),
        ("ana", "is not a mail address: 'ana'."),
        ("ana@", "is not a mail address: 'ana@'."),
        ("@example.com", "is not a mail address"),
        ("ana@example.com, eva@example.com", "is not a mail address"),
        ("ana@example.com,eva@example.com", "is not a mail address"),
        ("ana@example.com; eva@example.com", "is not a mail address"),
        ("Ana <ana@example.com> <eva@example.com>", "is not a mail address"),
        ("Ana <ana@example.com>, Eva <eva@example.com>", "is not a mail address"),
        ("Ana <ana@example.com> Eva", "is not a mail address"),
        ("Ana ana@example.com", "is not a mail address"),
        ("Silva, Ana <ana@example.com>", "A name that holds one of .* must stand in quotation marks"),
        ("eva@example.com <ana@example.com>", "A name that holds one of"),
        ("[Congressy] Ana <ana@example.com>", "A name that holds one of"),
        ('"Ana <ana@example.com>', "is not a mail address"),
        ("group: ana@example.com;", "is not a mail address"),
        ("undisclosed-recipients:;", "is not a mail address"),
        ("<@relay.example:ana@example.com>", "is not a mail address"),
        ("<>", "is not a mail address"),
        ("ana@example.com\nBcc: eva@example.com", "holds a line break"),
        ("Ana\r\nBcc: eva@example.com <ana@example.com>", "holds a line break"),
        ("=?utf-8?q?Ana=0D=0ABcc=3A_eva?= <ana@example.com>", "holds a line break"),
        ("=?utf-8?b?//8=?= <ana@example.com>", "cannot be decoded"),
        ("=?utf-8?b?a?= <ana@example.com>", "cannot be decoded"),
        ("=?x-no-such?q?a?= <ana@example.com>", "cannot be decoded"),
        ("=?unicode_escape?q?=5Cn?= <ana@example.com>", "cannot be decoded"),
        ("=?iso-8859-99?q?a?= <ana@example.com>", "cannot be decoded"),
        ("ana@exa\x00mple.com", "is not a mail address"),
        ("an\x00a@example.com", "is not a mail address"),
        ("an\x85a@example.com", "holds a line break"),
        ("ana@example.com\u2028eva@example.com", "holds a line break"),
        ('"a\tb"@example.com', "the part before the @ is not one that an address can have"),
        ("josé@example.com", "must be ASCII"),
        ('"josé"@example.com', "must be ASCII"),
        ("ana@example..com", "labels of letters, digits and hyphens"),
        ("ana@.example.com", "labels of letters, digits and hyphens"),
        ("ana@example.com.", "labels of letters, digits and hyphens"),
        ("ana@-example.com", "labels of letters, digits and hyphens"),
        ("ana@example-.com", "labels of letters, digits and hyphens"),
        ("ana@my_host.example", "labels of letters, digits and hyphens"),
        ("ana@exa mple.com", "is not a mail address"),
        (f"ana@{'x' * 64}.example", "labels of letters, digits and hyphens"),
        (f"ana@{'ü' * 60}.example", "no ASCII form"),
        (f"ana@{'ü' * 6000}.example", "longer than 6,000 characters"),
        (f"ana@{'ü' * 400}.example", "no ASCII form"),
        (".ana@example.com", "the part before the @ is not one"),
        ("ana.@example.com", "the part before the @ is not one"),
        ("a..b@example.com", "the part before the @ is not one"),
        ("a,b@example.com", "the part before the @ is not one"),
        ("a" * 65 + "@example.com", "longer than 64 characters"),
        ('"' + " " * 63 + '"@example.com', "longer than 64 characters"),
        (f"ana@{'abcde.' * 41}abcde", "longer than 254 characters"),
        ("x" * 301 + " <ana@example.com>", "the name before 'ana@example.com' is longer than 300 characters"),
        ("=?utf-8?q?ana=40example=2Ecom=2C?= eva@example.com", "is not a mail address"),
        ("=?utf-8?q?ana=40example.com=3E?=eva@example.com", "looks like an encoded word"),
        ('"=?x?q?a?="@example.com', "looks like an encoded word"),
        ("\ud800@example.com", "holds a line break or control character"),
        ("\ud800 <ana@example.com>", "holds a line break or control character"),
        ("ana@web1", r"has no dot. Name 'web1' in CONGRESSY_MAILER\['INTRANET_HOSTS'\]"),
        ("ana@museum", "has no dot"),
        ("ana@example.c", "no domain ends in 'c'"),
        ("ana@192.0.2.1", "no domain ends in '1'"),
        ("ana@192.0.2.100", "no domain ends in '100'"),
        ("ana@❤.ws", "no ASCII form"),
        ("ana@ex\u0640ample.com", "no ASCII form"),
        ("ana@[192.0.2.256]", "no address literal"),
        ("ana@[192.0.2]", "no address literal"),
        ("ana@[192.0.2.01]", "no address literal"),
        ("ana@[IPv6:2001:db8::1::2]", "no address literal"),
        ("ana@[IPv6:192.0.2.1]", "no address literal"),
        ("ana@[IPv6:fe80::1%eth0]", "no address literal"),
        ("ana@[IPv7:2001:db8::1]", "no address literal"),
        ("ana@[x:y]", "no address literal"),
        ("ana@[192.0.2.1", "no address literal"),
        ("ana@192.0.2.1]", "labels of letters, digits and hyphens"),
        (b"ana@example.com", "must be text, not bytes"),
        (42, "is not a mail address"),
    ],
)
def test_what_is_not_one_address_is_refused(hostile: Any, reason: str) -> None:
    with pytest.raises(InvalidAddress, match=r"^to\[3\]") as raised:
        normalise_address(hostile, "to[3]")
    assert re.search(reason, str(raised.value)), raised.value


@cache
def turned_into_punctuation() -> list[str]:
    """Characters that the mapping of IDNA 2003 turns into ASCII other than letters, digits, hyphens and full stops."""
    found = []
    for character in map(chr, [*range(0x80, 0xD800), *range(0xE000, 0x20000)]):
        with suppress(UnicodeError):
            if re.search(r"[\x00-,/:-@\[-`{-\x7f]", nameprep(character)):
                found.append(character)
    assert len(found) > 150
    assert {"，", "＠", "＞", "⑴", "¨", "℀"} <= set(found)
    return found


@pytest.mark.parametrize(
    "form", ["ana@{}.com", "ana@ex{}mple.com", "ana@x.com{}", "ana@{}x.com", "A <a@x.com{}b@y.com>"]
)
def test_no_character_of_a_domain_turns_into_punctuation(form: str) -> None:
    for character in [*turned_into_punctuation(), "…", "‥"]:
        given = form.format(character)
        # Blanks around an address are no part of it.
        if given == given.strip():
            with pytest.raises(InvalidAddress):
                normalise_address(given, "to")


@pytest.mark.parametrize(
    "hostile",
    [
        "Bob <u@x.com＞，v＠w.com>",
        "x@a.com＞，v＠w.com",
        "u@x.com＞\u2003ＮＯＴＩＦＹ＝ＮＥＶＥＲ",
        "u@email¨a.com",
        "u@gmail.com…",
    ],
)
def test_no_second_address_hides_in_a_domain(hostile: str) -> None:
    with pytest.raises(InvalidAddress):
        normalise_address(hostile, "to")


@pytest.mark.parametrize(
    ("hosts", "accepted", "refused"),
    [
        ([], [], ["web1", "web-2", "museum"]),
        (["web1", "Mail"], ["web1", "WEB1", "mail"], ["web2", "web"]),
        (["*"], ["web1", "web-2", "MUSEUM"], ["web_1", "-web"]),
    ],
)
def test_hosts_of_the_own_network(hosts: list[str], accepted: list[str], refused: list[str]) -> None:
    with override_settings(CONGRESSY_MAILER={"INTRANET_HOSTS": hosts}):
        for host in accepted:
            assert normalise_address(f"Cron <root@{host}>", "to") == f"Cron <root@{host.lower()}>"
        for host in refused:
            with pytest.raises(InvalidAddress):
                normalise_address(f"root@{host}", "to")
        assert normalise_address("root@localhost", "to") == "root@localhost"


def test_an_address_that_was_stored_needs_no_setting() -> None:
    assert bare_address("Cron <root@web1>") == "root@web1"


def test_settings_that_cannot_be_read_have_a_check_of_their_own() -> None:
    with override_settings(CONGRESSY_MAILER={"NO_SUCH": 1}), pytest.raises(InvalidAddress, match="has no dot"):
        normalise_address("root@web1", "to")


@pytest.mark.parametrize(
    ("stored", "bare"),
    [
        ("user@⑴.com", "user@⑴.com"),
        ("Bob <u@x.com＞，v＠w.com>", "Bob <u@x.com＞，v＠w.com>"),
        ("user@(1).com", "user@(1).com"),
        ("ana@❤.ws", "ana@❤.ws"),
        ("", ""),
        ("a\r\nb <ana@example.com>", "a\r\nb <ana@example.com>"),
        ("Zé <ze@são-paulo.example>", "ze@xn--so-paulo-rza.example"),
        ("ana@faß.de", "ana@xn--fa-hia.de"),
        ("Ana <ana@Example.com>", "ana@Example.com"),
        ("ana@[2001:db8::1]", "ana@[IPv6:2001:db8::1]"),
    ],
)
def test_what_an_older_version_has_stored_is_no_error(stored: str, bare: str) -> None:
    assert bare_address(stored) == bare
    assert comparable_address(stored) == bare.lower()
    assert isinstance(domain_of(stored), str)


def test_equal_domains_compare_equal() -> None:
    written = ["ana@faß.de", "Ana@FAß.de", "Ana <ana@xn--fa-hia.de>", "ANA@XN--FA-HIA.DE"]
    assert {comparable_address(normalise_address(one, "to")) for one in written} == {"ana@xn--fa-hia.de"}
    assert comparable_address("ana@[IPv6:2001:DB8::1]") == comparable_address(
        comparable_address("ana@[IPv6:2001:DB8::1]")
    )


def test_the_error_names_the_place() -> None:
    with pytest.raises(InvalidAddress, match=r"cc\[1\] is not"):
        normalise_addresses(["ana@example.com", "nobody"], "cc")


@pytest.mark.parametrize("values", [b"ana@example.com", bytearray(b"a@b.example"), {"ana@example.com": 1}, 3])
def test_only_lists_of_addresses(values: object) -> None:
    with pytest.raises(InvalidAddress, match="to must be a list of addresses"):
        normalise_addresses(values, "to")


def test_one_text_is_one_address() -> None:
    assert normalise_addresses("ana@example.com", "to") == ["ana@example.com"]
    assert normalise_addresses(lazystr("ana@example.com"), "to") == ["ana@example.com"]
    assert normalise_addresses(None, "to") == []


@pytest.mark.parametrize(
    ("text", "listed"),
    [
        ("ana@example.com", ["ana@example.com"]),
        ("Ana <ana@example.com>, eva@Example.com", ["Ana <ana@example.com>", "eva@example.com"]),
        ('"Silva, Ana" <a@x.example> ,"b,c"@x.example', ['"Silva, Ana" <a@x.example>', '"b,c"@x.example']),
        ("ana@x.example (Silva, Ana),b@x.example", ['"Silva, Ana" <ana@x.example>', "b@x.example"]),
    ],
)
def test_lists_in_headers(text: str, listed: list[str]) -> None:
    assert listed_addresses(text, "x") == listed
    assert listed_addresses(", ".join(listed), "x") == listed


@pytest.mark.parametrize(
    "text", ["", ",", "a@x.example,", "a@x.example,,b@x.example", '"a, b@x.example', "(a@x.example", "a"]
)
def test_lists_that_are_refused(text: str) -> None:
    with pytest.raises(InvalidAddress, match="^x"):
        listed_addresses(text, "x")


def test_another_name() -> None:
    assert address_with_name(" Silva,\tAna ", "Eva <ana@example.com>", "Nome") == '"Silva, Ana" <ana@example.com>'
    assert address_with_name("=?utf-8?q?a?=", "a@x.example", "Nome") == '"=?utf-8?q?a?=" <a@x.example>'
    assert address_with_name(" ", "Eva <ana@example.com>", "Nome") == "ana@example.com"
    for name in ("a\nb", "\ud800", "x" * 301):
        with pytest.raises(InvalidAddress, match="^Nome"):
            address_with_name(name, "ana@example.com", "Nome")
