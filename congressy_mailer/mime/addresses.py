"""Mail addresses and header values as callers give them: exactly one address each, and nothing hidden in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from email.errors import MessageDefect
from email.headerregistry import Address, AddressHeader
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.utils.encoding import punycode
from django.utils.functional import Promise

from ..exceptions import InvalidAddress, InvalidHeader

#: C0 and C1 controls, DEL, the line and paragraph separators that str.splitlines() knows, lone surrogates.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

#: RFC 5322 §3.6.8: printable ASCII but the colon. A longer one leaves no room for its value.
HEADER_NAME = re.compile(r"[!-9;-~]{1,76}")

# Headers that come from an argument of their own, or that say how the content is built (RFC 2045).
_HEADER_ARGUMENTS = {
    "from": "from_email",
    "to": "to",
    "cc": "cc",
    "bcc": "bcc",
    "reply-to": "reply_to",
    "subject": "subject",
    "x-msys-api": "sparkpost",
}
_MIME_HEADERS = {"mime-version", "content-type", "content-transfer-encoding", "content-disposition", "content-id"}

# RFC 5321 §4.5.3.1: octets of an address in a path, without its angle brackets.
MAX_ADDRESS = 254

# RFC 5322 §2.1.1: octets of a line, without its CR LF.
MAX_LINE = 998

# Far less than a line may have; a longer name hides something.
MAX_NAME = 300

# What stays together when a header is folded (RFC 5322 §2.2.3): a word with the spaces before it, and the last one with
# those behind it.
_UNFOLDABLE = re.compile(" *[^ ]+(?: *$)?|^ *$")

# An address in normal form that needs no parser: a name that is quoted where it holds anything special, and no comment,
# quoted local part or domain literal (RFC 5322 §3.4).
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_BARE = rf"{_ATOM}(?:\.{_ATOM})*@[\w-]+(?:\.[\w-]+)*"
_QUOTED_PAIR = re.compile(r"\\(.)")
_SIMPLE_ADDRESS = re.compile(rf'(?:("(?:[^"\\]|\\["\\])+"|[^()<>@,:;."\[\]\\]+) <({_BARE})>|({_BARE}))')

#: A Message-ID of printable ASCII (RFC 5322 §3.6.4).
MESSAGE_ID = re.compile(r"<[!-;=?A-~]+@[!-;=?A-~]+>")


# What nearly every address looks like that is in normal form already: plain words in front, labels of letters and
# digits behind (RFC 1035 §2.3.1). The parser takes a hundred times as long to say so.
_WORD = r"[A-Za-z0-9_+-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_COMMON_BARE_ADDRESS = rf"(?=[^@]{{1,64}}@){_WORD}(?:\.{_WORD})*@(?:{_LABEL}\.){{1,8}}[A-Za-z]{{2,63}}"
_NAME = "[A-Za-z0-9\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u017f]+"
_COMMON_ADDRESS = re.compile(rf"{_NAME}(?: {_NAME}){{0,9}} <{_COMMON_BARE_ADDRESS}>|{_COMMON_BARE_ADDRESS}")


def normalise_address(value: object, argument: str) -> str:
    """One address in its normal form, ``name <local@domain>`` or ``local@domain``.

    Args:
        value: an address as RFC 5322 §3.4 writes it, with or without a name; text may be lazy.
        argument: where it was given, such as ``to[2]``, for the error.

    Raises:
        InvalidAddress: it is not exactly one address, holds a control character, or its local part is not
            ASCII (RFC 6531 would need ``SMTPUTF8``, which SparkPost does not offer).
    """
    text = str(value).strip() if value is not None else ""
    if len(text) <= MAX_ADDRESS and _COMMON_ADDRESS.fullmatch(text):
        return text
    if not text:
        raise InvalidAddress(f"{argument} is empty: give an address such as ana@example.com.")
    if CONTROL.search(text):
        raise InvalidAddress(f"{argument} holds a line break or control character: {text!r}.")
    name, address = _parse_address(text, argument)
    if len(name) > MAX_NAME:
        raise InvalidAddress(f"{argument}: the name before {address!r} is longer than {MAX_NAME} characters.")
    if not address.rpartition("@")[0].isascii():
        raise InvalidAddress(f"{argument}: the part before the @ of {address!r} must be ASCII.")
    try:
        validate_email(address)
        length = len(ascii_address(address))
    except (ValidationError, UnicodeError):
        raise InvalidAddress(f"{argument} is not a mail address: {text!r}.") from None
    if length > MAX_ADDRESS:
        raise InvalidAddress(f"{argument}: {address!r} is longer than {MAX_ADDRESS} characters (RFC 5321).")
    return str(Address(display_name=name, addr_spec=address))


def _parse_address(text: str, argument: str) -> tuple[str, str]:
    """Name and address of a text that must be one mailbox, read by the parser that will write it too."""
    try:
        parsed = AddressHeader.value_parser(text)
        mailboxes = parsed.all_mailboxes
        defects: list[MessageDefect] = parsed.all_defects
        group = parsed.addresses[0][0].token_type == "group"  # noqa: S105
    except Exception:
        # The parser of the standard library trips over some broken input; whatever it cannot read is not one.
        raise InvalidAddress(f"{argument} is not a mail address: {text!r}.") from None
    if defects or group or len(mailboxes) != 1 or len(parsed) != 1 or mailboxes[0].local_part is None:
        raise InvalidAddress(f"{argument} is not one mail address: {text!r}.")
    mailbox = mailboxes[0]
    name = mailbox.display_name or ""
    address = mailbox.addr_spec
    if CONTROL.search(name) or CONTROL.search(address):
        raise InvalidAddress(f"{argument} holds a line break or control character: {text!r}.")
    # What is written must be read back as the same mailbox, or somebody else might get the mail.
    reparsed = AddressHeader.value_parser(str(Address(display_name=name, addr_spec=address))).all_mailboxes
    if len(reparsed) != 1 or reparsed[0].addr_spec != address or (reparsed[0].display_name or "") != name:
        raise InvalidAddress(f"{argument} is not a mail address that can be written in a header: {text!r}.")
    return name, address


def normalise_addresses(values: object, argument: str) -> list[str]:
    """A list of addresses in normal form; one text, which may be lazy, counts as a list of one.

    Raises:
        InvalidAddress: as :func:`normalise_address`, or ``values`` is not a list of addresses.
    """
    if values is None:
        return []
    if isinstance(values, str | Promise):
        return [normalise_address(values, argument)]
    if isinstance(values, (bytes, Mapping)) or not isinstance(values, Iterable):
        raise InvalidAddress(f"{argument} must be a list of addresses, not {type(values).__name__}.")
    return [normalise_address(value, f"{argument}[{position}]") for position, value in enumerate(values)]


def bare_address(address: str) -> str:
    """The ``local@domain`` of a normal address, as the envelope carries it, the domain in ASCII (RFC 5891)."""
    parts = split_address(address)
    if parts is not None:
        return ascii_address(parts[1])
    mailbox = AddressHeader.value_parser(address).all_mailboxes[0]
    return ascii_address(mailbox.addr_spec)


def split_address(address: str) -> tuple[str, str] | None:
    """Name and ``local@domain`` of a normal address, a hundred times faster than a parser can tell.

    Returns:
        ``None`` where it takes a parser.
    """
    match = _SIMPLE_ADDRESS.fullmatch(address)
    if match is None or "=?" in address or "  " in address or CONTROL.search(address):
        return None
    name, bracketed, bare = match.groups(default="")
    if name.startswith('"'):
        name = _QUOTED_PAIR.sub(r"\1", name[1:-1])
    if name != name.strip():
        return None
    return name, bracketed or bare


def comparable_address(address: str) -> str:
    """A normal address in the form in which addresses are compared: without name and case, its domain in ASCII.

    RFC 5321 §2.4 lets the part before the ``@`` depend on case; no provider does, and SparkPost's lists and events do
    not.
    """
    return bare_address(address).lower()


def domain_of(address: str) -> str:
    """The domain of a normal address, in lower case."""
    return address.rpartition("@")[2].rstrip(">").lower()


def ascii_address(address: str) -> str:
    """``local@domain`` with an international domain in its ASCII form."""
    local, _, domain = address.rpartition("@")
    return address if domain.isascii() else f"{local}@{punycode(domain)}"


def check_header_text(value: object, label: str, name: str) -> str:
    """A header's value as one line of text, which may be lazy; ``None`` is empty.

    Args:
        value: what the caller gave.
        label: how to call it in an error.
        name: the header's name.

    Raises:
        InvalidHeader: it is bytes, holds a line break or another control character, or cannot be folded into lines
            that a server takes.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        raise InvalidHeader(f"{label} must be text, not {type(value).__name__}: decode it first.")
    text = "" if value is None else str(value)
    if CONTROL.search(text):
        raise InvalidHeader(f"{label} must not hold line breaks or control characters: {text!r}.")
    # Anything but ASCII is encoded (RFC 2047), which can be folded everywhere.
    if text.isascii() and len(name) + 2 + max(map(len, _UNFOLDABLE.findall(text))) > MAX_LINE:
        raise InvalidHeader(
            f"{label} has a word that is too long for a line of a mail, "
            f"which may have {MAX_LINE} characters (RFC 5322)."
        )
    return text


def normalise_headers(headers: Mapping[str, Any] | None) -> dict[str, str]:
    """Further headers, checked.

    Raises:
        InvalidHeader: ``headers`` is not a mapping; a name is not a header name (RFC 5322 §3.6.8), belongs to an
            argument of its own, says how the content is built, or is given twice; a value is empty or not one that
            :func:`check_header_text` accepts.
    """
    if headers and not isinstance(headers, Mapping):
        raise InvalidHeader(f"headers must be a dict of values by name, not {type(headers).__name__}.")
    normalised: dict[str, str] = {}
    seen: set[str] = set()
    for name, value in (headers or {}).items():
        if not isinstance(name, str) or not HEADER_NAME.fullmatch(name):
            raise InvalidHeader(f"headers: {name!r} is not the name of a mail header.")
        lower = name.lower()
        if lower in _HEADER_ARGUMENTS:
            raise InvalidHeader(f"headers: give {name} as {_HEADER_ARGUMENTS[lower]}=, not as a header.")
        if lower in _MIME_HEADERS:
            raise InvalidHeader(f"headers: {name} follows from the content and cannot be set.")
        if lower in seen:
            raise InvalidHeader(f"headers: {name} is given twice.")
        text = check_header_text(value, f"headers[{name!r}]", name).strip()
        if not text:
            raise InvalidHeader(f"headers[{name!r}] is empty.")
        if lower == "message-id" and not (MESSAGE_ID.fullmatch(text) and len(text) <= 255):
            raise InvalidHeader(f"headers[{name!r}] must look like <unique@example.com>: {text!r}.")
        seen.add(lower)
        normalised[name] = text
    return normalised
