"""Mail addresses as callers give them: exactly one address each, and nothing hidden in it.

An address has one normal form, ``name <local@domain>`` or ``local@domain``. It is made once, at the call; in this form
the address is normalised, stored, compared and sent. In it

- the domain is ASCII and in lower case: an international one is encoded by IDNA 2008 after the mapping of UTS 46;
- the part before the ``@`` stands in quotation marks only where RFC 5321 §4.1.2 asks for them;
- the name is decoded text with single blanks, in quotation marks only where RFC 5322 §3.2.5 asks for them.

The grammar is that of RFC 5321 §4.1.2 and RFC 5322 §3.4. It is written here rather than taken from Python's ``email``,
whose parser takes time that grows with the square of the text, raises errors of many types and changes from one release
of Python to the next.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from django.utils.functional import Promise

from ..exceptions import InvalidAddress
from .domains import DOMAIN, LITERAL, normal_domain
from .phrases import checked_name, decoded_text, phrase_text, written_name
from .syntax import (
    CONTROL,
    ENCODED_WORD_START,
    GIVEN_QUOTED,
    LINE_BREAK,
    MAX_ADDRESS,
    MAX_LOCAL,
    QUOTED_PAIR,
    SPECIAL,
    quoted,
    shown,
)

# Characters of an address with its name, before anything of it is read. A name of 300 characters has fewer, also where
# it is encoded (RFC 2047).
_MAX_TEXT = 6_000

# Quantifiers are possessive where a pattern could go back and try again: so matching takes time in proportion to the
# text, also where it fails.
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]++"
_DOT_ATOM = rf"{_ATOM}(?:\.{_ATOM})*+"
_MAILBOX = rf'(?:{_DOT_ATOM}|"(?:[ !#-\[\]-~]|\\["\\])*+")@(?:{DOMAIN}|{LITERAL})'

#: A ``Mailbox`` of RFC 5321 §4.1.2 in normal form, as it stands in a command; only its length is not looked at.
MAILBOX = re.compile(_MAILBOX)

#: A mailbox of the mail server's own host, without a domain: Django sends to such, and ``send_mail()`` here does not.
LOCAL_MAILBOX = re.compile(_DOT_ATOM)

_IS_DOT_ATOM = re.compile(_DOT_ATOM)

# A name and an address in normal form.
_NAMED = re.compile(rf'("(?:[^"\\]|\\["\\])++"|[^()<>\[\]:;@\\,."]+) <({_MAILBOX})>')

# The same as people and programs write it.
_GIVEN_ADDRESS = rf'({GIVEN_QUOTED}|[^"<>@()\s]++)[ \t]*+@[ \t]*+([^"<>@()\s]++)'
_GIVEN_PHRASE = rf'((?:{GIVEN_QUOTED}|[^"<>\[\]:;@\\,]++)*+)'
_GIVEN_ALONE = re.compile(_GIVEN_ADDRESS, re.DOTALL)
_GIVEN_NAMED = re.compile(rf"{_GIVEN_PHRASE}<[ \t]*+{_GIVEN_ADDRESS}[ \t]*+>", re.DOTALL)
_GIVEN_COMMENTED = re.compile(rf"{_GIVEN_ADDRESS}[ \t]*+\(([^()\\]*+)\)", re.DOTALL)

# An encoded word (RFC 2047) as lenient readers have it.
_HOLDS_ENCODED_WORD = re.compile(r"=\?.*\?=")

# A list of addresses in a header: what stands between its commas.
_LISTED = re.compile(rf'(?:[^",(]++|{GIVEN_QUOTED}|\([^()]*+\))*+', re.DOTALL)

# What nearly every address looks like that is in normal form already: words without anything special in front, labels
# of letters and digits behind (RFC 1035 §2.3.1). Reading it would take twenty times as long to say so.
_WORD = r"[A-Za-z0-9!#$%&'*+/=^_`{|}~-]++"
_LOWER_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_COMMON_BARE_ADDRESS = rf"(?=[^@]{{1,{MAX_LOCAL}}}@){_WORD}(?:\.{_WORD})*+@(?:{_LOWER_LABEL}\.){{1,8}}[a-z]{{2,63}}"
_NAME = r'[^\s\x00-\x1f\x7f-\x9f\ud800-\udfff()<>\[\]:;@\\,."?]++'
_COMMON_ADDRESS = re.compile(rf"(?:{_NAME}(?: {_NAME})*+ <{_COMMON_BARE_ADDRESS}>|{_COMMON_BARE_ADDRESS})")


def normalise_address(value: object, argument: str) -> str:
    """One address in its normal form, ``name <local@domain>`` or ``local@domain``.

    Args:
        value: an address as RFC 5322 §3.4 writes it, with or without a name; text may be lazy.
        argument: where it was given, such as ``to[2]``, for the error.

    Raises:
        InvalidAddress: it is not exactly one address, holds a line break, is longer than RFC 5321 §4.5.3.1 allows, its
            domain has no ASCII form (RFC 5891), or its local part is not ASCII (RFC 6531 would need ``SMTPUTF8``, which
            SparkPost does not offer).
    """
    text = str(value).strip() if value is not None else ""
    if len(text) <= MAX_ADDRESS:
        if _COMMON_ADDRESS.fullmatch(text):
            return text
        # Typed in capitals: nothing else of it need be read either.
        local, at, domain = text.rpartition("@")
        lower = f"{local}{at}{domain.lower()}"
        if domain.isascii() and _COMMON_ADDRESS.fullmatch(lower):
            return lower
    if isinstance(value, bytes | bytearray | memoryview):
        raise InvalidAddress(f"{argument} must be text, not {type(value).__name__}: decode it first.")
    return read_address(text, argument)


def read_address(text: str, argument: str) -> str:
    """The normal form of an address as the grammar has it, where :func:`normalise_address` does not know it by sight.

    Raises:
        InvalidAddress: as there.
    """
    return _with_name(*_read(text, argument))


def common_bare_address(text: str) -> str | None:
    """The ``local@domain`` of an address as nearly all are written.

    Returns:
        ``None`` where it has anything special, and needs reading.
    """
    if len(text) > MAX_ADDRESS or not _COMMON_ADDRESS.fullmatch(text):
        return None
    return text[text.rfind("<") + 1 : -1] if text.endswith(">") else text


def normalise_addresses(values: object, argument: str) -> list[str]:
    """A list of addresses in normal form; one text, which may be lazy, counts as a list of one.

    Raises:
        InvalidAddress: as :func:`normalise_address`, or ``values`` is not a list of addresses.
    """
    if values is None:
        return []
    if isinstance(values, str | Promise):
        return [normalise_address(values, argument)]
    if isinstance(values, (bytes, bytearray, memoryview, Mapping)) or not isinstance(values, Iterable):
        raise InvalidAddress(f"{argument} must be a list of addresses, not {type(values).__name__}.")
    return [normalise_address(value, f"{argument}[{position}]") for position, value in enumerate(values)]


def listed_addresses(text: str, argument: str) -> list[str]:
    """The addresses of a header that holds a list of them (RFC 5322 §3.4), in normal form.

    Raises:
        InvalidAddress: one of them is not an address.
    """
    parts = []
    position = 0
    while True:
        match = _LISTED.match(text, position)
        assert match is not None
        parts.append(match.group())
        position = match.end() + 1
        if position > len(text):
            break
        if text[match.end()] != ",":
            raise InvalidAddress(f"{argument} has a quotation mark or parenthesis that is not closed: {shown(text)}.")
    return [normalise_address(part, argument) for part in parts]


def address_with_name(name: str, address: str, argument: str) -> str:
    """An address in normal form with another name before it.

    Args:
        name: any text.
        address: in normal form.
        argument: where the name was given, for the error.

    Raises:
        InvalidAddress: no address can have that name.
    """
    if LINE_BREAK.search(name):
        raise InvalidAddress(f"{argument} holds a line break or control character: {shown(name)}.")
    bare = bare_address(address)
    return _with_name(checked_name(name, bare, argument), bare)


def split_address(address: str) -> tuple[str, str]:
    """Name and ``local@domain`` of an address that was stored: the name as text, the address in ASCII.

    Raises:
        InvalidAddress: it was stored by an older version, and cannot be sent to.
    """
    return split_common_address(address) or _read(address, "address")


def split_common_address(address: str) -> tuple[str, str] | None:
    """Name and ``local@domain`` of an address in normal form.

    Returns:
        ``None`` where it is not in normal form.
    """
    # As nearly all are.
    if _COMMON_ADDRESS.fullmatch(address):
        name, _, bare = address.rpartition(" <")
        return (name, bare[:-1]) if name else ("", address)
    if MAILBOX.fullmatch(address):
        return "", address
    match = _NAMED.fullmatch(address)
    if match is None or CONTROL.search(address):
        return None
    name, bare = match.groups()
    if name.startswith('"'):
        name = QUOTED_PAIR.sub(r"\1", name[1:-1])
    elif ENCODED_WORD_START in name:
        return None
    if name != " ".join(name.split()):
        return None
    return name, bare


def bare_address(address: str) -> str:
    """The ``local@domain`` of a normal address, as the envelope carries it, the domain in ASCII (RFC 5891).

    Never an error: an older version may have stored an address that has no such form, and comes back as it is. No
    transport sends to that.
    """
    return split_stored_address(address)[1]


def split_stored_address(address: str) -> tuple[str, str]:
    """Name and ``local@domain`` of a normal address; never an error, as with :func:`bare_address`."""
    try:
        return split_address(address)
    except InvalidAddress:
        return "", address


def comparable_address(address: str) -> str:
    """A normal address in the form in which addresses are compared: without name and case, its domain in ASCII.

    RFC 5321 §2.4 lets the part before the ``@`` depend on case; no provider does, and SparkPost's lists and events do
    not. Never an error, as with :func:`bare_address`.
    """
    return bare_address(address).lower()


def domain_of(address: str) -> str:
    """The domain of a normal address, in lower case."""
    return address.rpartition("@")[2].rstrip(">").lower()


def _read(text: str, argument: str) -> tuple[str, str]:
    """Name and bare address of a text that is no more than one address."""
    if not text:
        raise InvalidAddress(f"{argument} is empty: give an address such as ana@example.com.")
    if len(text) > _MAX_TEXT:
        raise InvalidAddress(f"{argument} is longer than {_MAX_TEXT:,} characters: {shown(text)}.")
    if LINE_BREAK.search(text):
        raise InvalidAddress(f"{argument} holds a line break or control character: {shown(text)}.")
    name, local, domain = _parts(text, argument)
    if not local.isascii():
        raise InvalidAddress(f"{argument}: the part before the @ of {shown(text)} must be ASCII.")
    try:
        bare = f"{_local(local)}@{normal_domain(domain)}"
    except ValueError as error:
        raise InvalidAddress(f"{argument} is not a mail address: {shown(text)}: {error}.") from None
    if len(bare) > MAX_ADDRESS:
        raise InvalidAddress(f"{argument}: {shown(bare)} is longer than {MAX_ADDRESS} characters (RFC 5321).")
    return checked_name(name, bare, argument), bare


def _parts(text: str, argument: str) -> tuple[str, str, str]:
    """Name, local part and domain as they were given."""
    if (found := _GIVEN_ALONE.fullmatch(text)) is not None:
        return "", found[1], found[2]
    if (found := _GIVEN_NAMED.fullmatch(text)) is not None:
        return phrase_text(found[1], argument), found[2], found[3]
    if (found := _GIVEN_COMMENTED.fullmatch(text)) is not None:
        return decoded_text(found[3], argument), found[1], found[2]
    hint = ""
    if text.endswith(">") and SPECIAL.search(text.rpartition("<")[0]):
        hint = " A name that holds one of < > [ ] : ; @ \\ , must stand in quotation marks."
    raise InvalidAddress(f"{argument} is not a mail address: {shown(text)}.{hint}")


def _local(given: str) -> str:
    """The local part, in quotation marks only where it needs them (RFC 5321 §4.1.2).

    Raises:
        ValueError: it is none; the message says why.
    """
    text = QUOTED_PAIR.sub(r"\1", given[1:-1]) if given.startswith('"') else given
    if _IS_DOT_ATOM.fullmatch(text):
        local = text
    elif given.startswith('"') and text.isprintable():
        local = quoted(text)
    else:
        raise ValueError("the part before the @ is not one that an address can have")
    if len(local) > MAX_LOCAL:
        raise ValueError(f"the part before the @ is longer than {MAX_LOCAL} characters (RFC 5321)")
    if _HOLDS_ENCODED_WORD.search(local):
        # Python's email decodes it even there; other programs do not, and would answer another address.
        raise ValueError("the part before the @ looks like an encoded word (RFC 2047)")
    return local


def _with_name(name: str, bare: str) -> str:
    return f"{written_name(name)} <{bare}>" if name else bare
