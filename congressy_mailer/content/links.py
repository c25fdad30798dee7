"""Links in plain text: their address as a browser reads it, and whether a label shows it already."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

#: Around an address, and within it, the URL standard ignores these. Others would end the address for its reader.
_IGNORED_AROUND = "".join(map(chr, range(0x21)))
_IGNORED_WITHIN = re.compile("[\t\n\r]")
_UNSAFE = re.compile("[\\s<>\x00-\x1f\x7f\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff\ud800-\udfff]")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
#: Links that lead nowhere from a text, and those within a page or relative to one.
_SCHEMES_OF_PAGES = frozenset({"about", "blob", "cid", "data", "javascript", "vbscript"})
_WITHIN_PAGES = re.compile(r"[#?.]|/(?!/)")
_PHONE_NUMBER = re.compile(r"[\d+().\-/]+")


def address_of(href: str) -> str:
    """The address of a link as a browser reads it; empty for one that leads nowhere from a text."""
    address = _IGNORED_WITHIN.sub("", href.strip(_IGNORED_AROUND))
    scheme = _SCHEME.match(address)
    if scheme:
        if scheme[1].lower() in _SCHEMES_OF_PAGES or not address[scheme.end() :].strip("/"):
            return ""
    elif _WITHIN_PAGES.match(address):
        return ""
    return _UNSAFE.sub(lambda character: quote(character[0], errors="replace"), address)


def shown_address(address: str) -> str:
    """A link's address as it is written beside its label: for one to a mailbox, that alone."""
    mailbox = address[len("mailto:") :] if address[:7].lower() == "mailto:" else ""
    return mailbox if mailbox and "?" not in mailbox else address


def is_label(label: str, address: str) -> bool:
    """Whether the label of a link is its address, so that it need not be repeated."""
    label = "".join(label.split())
    if label in (address, shown_address(address)):
        return True
    scheme, _, rest = address.partition(":")
    scheme = scheme.lower()
    if scheme == "tel":
        return bool(_PHONE_NUMBER.fullmatch(label)) and _digits(label) == _digits(unquote(rest))
    if scheme in ("http", "https"):
        # Without the scheme and the last slash, an address is typed and read all the same.
        same = _host_in_lower_case(rest.removeprefix("//"))
        given, _, shown = label.rpartition("://")
        return given.lower() in ("", scheme) and _host_in_lower_case(shown) == same
    return False


def _digits(number: str) -> str:
    return "".join(character for character in number if character in "+0123456789")


def _host_in_lower_case(address: str) -> str:
    host, slash, path = address.partition("/")
    return (host.lower() + slash + path).removesuffix("/")
