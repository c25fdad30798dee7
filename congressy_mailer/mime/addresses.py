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

import binascii
import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address

from django.utils.functional import Promise

from ..conf import settings_if_valid
from ..exceptions import InvalidAddress

#: C0 and C1 controls, DEL, the line and paragraph separators that str.splitlines() knows, lone surrogates.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

#: Byte order mark. Editors put it at the start of a file; no reader shows it.
BOM = "\ufeff"

# Those of them that no part of an address may hold: what str.splitlines() takes for the end of a line, and lone
# surrogates, which have no encoding.
_LINE_BREAK = re.compile("[\n-\r\x1c-\x1e\x85\u2028\u2029\ud800-\udfff]")

#: RFC 5322 §3.6.8: printable ASCII but the colon. A longer one leaves no room for its value.
HEADER_NAME = re.compile(r"[!-9;-~]{1,76}")

# RFC 5321 §4.5.3.1: octets of the part before the @, and of an address in a path, without its angle brackets.
MAX_LOCAL = 64
MAX_ADDRESS = 254

# RFC 5322 §2.1.1: octets of a line, without its CR LF.
MAX_LINE = 998

# Far less than a line may have; a longer name hides something.
MAX_NAME = 300

# Characters of an address with its name, before anything of it is read. A name of 300 characters has fewer, also where
# it is encoded (RFC 2047).
_MAX_TEXT = 6_000

# Characters of a text that an error repeats.
_LONGEST_SHOWN = 100

#: A Message-ID of printable ASCII (RFC 5322 §3.6.4).
MESSAGE_ID = re.compile(r"<[!-;=?A-~]+@[!-;=?A-~]+>")

#: What looks like an encoded word (RFC 2047) is taken for one by some readers, and not by others.
ENCODED_WORD_START = "=?"

# Quantifiers are possessive where a pattern could go back and try again: so matching takes time in proportion to the
# text, also where it fails.
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]++"
_DOT_ATOM = rf"{_ATOM}(?:\.{_ATOM})*+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"
_LITERAL = r"\[(?:[0-9.]++|[Ii][Pp][Vv]6:[0-9A-Fa-f:.]++)\]"
_MAILBOX = rf'(?:{_DOT_ATOM}|"(?:[ !#-\[\]-~]|\\["\\])*+")@(?:{_DOMAIN}|{_LITERAL})'

#: A ``Mailbox`` of RFC 5321 §4.1.2 in normal form, as it stands in a command; only its length is not looked at.
MAILBOX = re.compile(_MAILBOX)

#: A mailbox of the mail server's own host, without a domain: Django sends to such, and ``send_mail()`` here does not.
LOCAL_MAILBOX = re.compile(_DOT_ATOM)

_IS_DOT_ATOM = re.compile(_DOT_ATOM)
_IS_DOMAIN = re.compile(_DOMAIN)
_IPV4 = re.compile(r"\[([0-9.]+)\]")
_IPV6 = re.compile(r"\[(?:[Ii][Pp][Vv]6:)?([0-9A-Fa-f:.]+)\]")

# RFC 5322 §3.2.3: what stands in a name only within quotation marks. The full stop and the parentheses of a comment are
# read without them as well.
_SPECIAL = re.compile(r'[()<>\[\]:;@\\,."]')
_NAMED = re.compile(rf'("(?:[^"\\]|\\["\\])++"|[^()<>\[\]:;@\\,."]+) <({_MAILBOX})>')
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)

# The same as people and programs write it.
_GIVEN_QUOTED = r'"(?:[^"\\]++|\\.)*+"'
_GIVEN_ADDRESS = rf'({_GIVEN_QUOTED}|[^"<>@()\s]++)[ \t]*+@[ \t]*+([^"<>@()\s]++)'
_GIVEN_PHRASE = rf'((?:{_GIVEN_QUOTED}|[^"<>\[\]:;@\\,]++)*+)'
_GIVEN_ALONE = re.compile(_GIVEN_ADDRESS, re.DOTALL)
_GIVEN_NAMED = re.compile(rf"{_GIVEN_PHRASE}<[ \t]*+{_GIVEN_ADDRESS}[ \t]*+>", re.DOTALL)
_GIVEN_COMMENTED = re.compile(rf"{_GIVEN_ADDRESS}[ \t]*+\(([^()\\]*+)\)", re.DOTALL)
_WORDS = re.compile(rf'({_GIVEN_QUOTED})|[^"]++', re.DOTALL)

# RFC 2047 §2, with the language of RFC 2231 §5.
_ENCODED_WORD = re.compile(r"=\?([!-)+->@-~]+)(?:\*[!->@-~]*)?\?([BbQq])\?([!->@-~]*)\?=")
# The same as lenient readers have it.
_HOLDS_ENCODED_WORD = re.compile(r"=\?.*\?=")
# Character sets that mail is written in. Python's codecs include others, such as its own for escapes.
_CHARSET = re.compile(
    r"us-ascii|utf-?8|iso-8859-[0-9]{1,2}|windows-125[0-9]|koi8-[ru]|iso-2022-(?:jp|kr)|euc-(?:jp|kr)|shift_jis|big5"
    r"|gb(?:2312|k|18030)",
    re.IGNORECASE | re.ASCII,
)
# Encoded words in a row; what stands in angle brackets or quotation marks is none (RFC 2047 §5).
_KEPT_OR_ENCODED_WORDS = re.compile(
    rf"<[^<>]*+>|{_GIVEN_QUOTED}|((?:=\?[!->@-~]+\?[BbQq]\?[!->@-~]*\?=(?: +(?==\?))?)+)", re.DOTALL
)
_BETWEEN_ENCODED_WORDS = re.compile(r"(?<=\?=)\s+(?==\?)")

# A list of addresses in a header: what stands between its commas.
_LISTED = re.compile(rf'(?:[^",(]++|{_GIVEN_QUOTED}|\([^()]*+\))*+', re.DOTALL)

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
    if _LINE_BREAK.search(name):
        raise InvalidAddress(f"{argument} holds a line break or control character: {shown(name)}.")
    bare = bare_address(address)
    return _with_name(_checked_name(name, bare, argument), bare)


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
        name = _QUOTED_PAIR.sub(r"\1", name[1:-1])
    elif ENCODED_WORD_START in name:
        return None
    if name != " ".join(name.split()):
        return None
    return name, bare


def written_name(name: str) -> str:
    """A name as it stands before its address: in quotation marks where it could be read as anything else."""
    return _quoted(name) if ENCODED_WORD_START in name or _SPECIAL.search(name) else name


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
    if _LINE_BREAK.search(text):
        raise InvalidAddress(f"{argument} holds a line break or control character: {shown(text)}.")
    name, local, domain = _parts(text, argument)
    if not local.isascii():
        raise InvalidAddress(f"{argument}: the part before the @ of {shown(text)} must be ASCII.")
    try:
        bare = f"{_local(local)}@{_domain(domain)}"
    except ValueError as error:
        raise InvalidAddress(f"{argument} is not a mail address: {shown(text)}: {error}.") from None
    if len(bare) > MAX_ADDRESS:
        raise InvalidAddress(f"{argument}: {shown(bare)} is longer than {MAX_ADDRESS} characters (RFC 5321).")
    return _checked_name(name, bare, argument), bare


def _parts(text: str, argument: str) -> tuple[str, str, str]:
    """Name, local part and domain as they were given."""
    if (found := _GIVEN_ALONE.fullmatch(text)) is not None:
        return "", found[1], found[2]
    if (found := _GIVEN_NAMED.fullmatch(text)) is not None:
        return _text_of(found[1], argument), found[2], found[3]
    if (found := _GIVEN_COMMENTED.fullmatch(text)) is not None:
        return decoded_text(found[3], argument), found[1], found[2]
    hint = ""
    if text.endswith(">") and _SPECIAL.search(text.rpartition("<")[0]):
        hint = " A name that holds one of < > [ ] : ; @ \\ , must stand in quotation marks."
    raise InvalidAddress(f"{argument} is not a mail address: {shown(text)}.{hint}")


def _local(given: str) -> str:
    """The local part, in quotation marks only where it needs them (RFC 5321 §4.1.2).

    Raises:
        ValueError: it is none; the message says why.
    """
    text = _QUOTED_PAIR.sub(r"\1", given[1:-1]) if given.startswith('"') else given
    if _IS_DOT_ATOM.fullmatch(text):
        local = text
    elif given.startswith('"') and text.isprintable():
        local = _quoted(text)
    else:
        raise ValueError("the part before the @ is not one that an address can have")
    if len(local) > MAX_LOCAL:
        raise ValueError(f"the part before the @ is longer than {MAX_LOCAL} characters (RFC 5321)")
    if _HOLDS_ENCODED_WORD.search(local):
        # Python's email decodes it even there; other programs do not, and would answer another address.
        raise ValueError("the part before the @ looks like an encoded word (RFC 2047)")
    return local


def _domain(given: str) -> str:
    """The domain in ASCII and lower case, or an address literal.

    Raises:
        ValueError: it is none; the message says why.
    """
    if given.startswith("["):
        return _literal(given)
    domain = given if given.isascii() else _ascii_domain(given)
    if not _IS_DOMAIN.fullmatch(domain):
        raise ValueError("the domain must be labels of letters, digits and hyphens")
    domain = domain.lower()
    _, dot, last = domain.rpartition(".")
    if not dot:
        if domain != "localhost" and not _is_intranet_host(domain):
            raise ValueError(
                f"the domain has no dot. Name {domain!r} in CONGRESSY_MAILER['INTRANET_HOSTS'] if it is a host of "
                "your own network"
            )
    elif last.isdigit():
        raise ValueError(f"no domain ends in {last!r}, and an IP address stands in brackets: [192.0.2.1]")
    elif len(last) == 1:
        raise ValueError(f"no domain ends in {last!r}")
    return domain


def _ascii_domain(given: str) -> str:
    """An international domain in its ASCII form (RFC 5891), after the mapping of UTS 46.

    Raises:
        ValueError: it has none.
    """
    # Most addresses need none of its tables.
    import idna

    # A label takes more octets in ASCII than it has characters. What is longer costs time for nothing.
    if len(given) <= MAX_ADDRESS:
        try:
            labels = idna.uts46_remap(given, std3_rules=True).split(".")
            if max(map(len, labels)) < 64:
                return ".".join(label if label.isascii() else idna.alabel(label).decode() for label in labels)
        except ValueError:
            pass
    raise ValueError("the domain has no ASCII form (IDNA 2008)")


def _is_intranet_host(host: str) -> bool:
    conf = settings_if_valid()
    hosts = conf.INTRANET_HOSTS if conf is not None else ()
    return "*" in hosts or any(host == one.lower() for one in hosts)


def _literal(given: str) -> str:
    """An address literal in one spelling (RFC 5321 §4.1.3, RFC 5952).

    Django's ``EmailField`` knows IPv6 only without its tag, which is added.

    Raises:
        ValueError: it is none.
    """
    try:
        if found := _IPV4.fullmatch(given):
            return f"[{IPv4Address(found[1])}]"
        if found := _IPV6.fullmatch(given):
            return f"[IPv6:{_ipv6(found[1])}]"
    except ValueError:
        pass
    raise ValueError("the domain is no address literal such as [192.0.2.1] or [IPv6:2001:db8::1]")


def _ipv6(given: str) -> str:
    # Versions of Python differ in what they write for those that hold an IPv4 address.
    digits = IPv6Address(given).packed.hex()
    words = [f"{int(digits[place : place + 4], 16):x}" for place in range(0, 32, 4)]
    zeros = max(re.findall(r"(?<![0-9a-f])0(?::0)+(?![0-9a-f])", ":".join(words)), key=len, default="")
    if not zeros:
        return ":".join(words)
    before, _, after = f":{':'.join(words)}:".partition(f":{zeros}:")
    return f"{before[1:]}::{after[:-1]}"


def _text_of(phrase: str, argument: str) -> str:
    """The text of a name: of its words, of those in quotation marks, and of encoded words (RFC 2047 §5)."""
    words = []
    for found in _WORDS.finditer(phrase):
        quoted = found[1]
        words.append(decoded_text(found[0], argument) if quoted is None else _QUOTED_PAIR.sub(r"\1", quoted[1:-1]))
    return " ".join(words)


def decoded_phrase(text: str, argument: str) -> str:
    """A phrase, or a list of them, in which the encoded words (RFC 2047) are text in quotation marks.

    Raises:
        InvalidAddress: one cannot be decoded.
    """
    if ENCODED_WORD_START not in text:
        return text

    def quoted(found: re.Match[str]) -> str:
        return found[0] if found[1] is None else _quoted(_checked_name(decoded_text(found[1], argument), "", argument))

    return _KEPT_OR_ENCODED_WORDS.sub(quoted, text)


def decoded_text(text: str, argument: str) -> str:
    """Text with its encoded words (RFC 2047) decoded; it may hold line breaks then.

    Raises:
        InvalidAddress: one cannot be decoded, or is in a character set that mail is not written in.
    """
    if ENCODED_WORD_START not in text:
        return text
    try:
        return _ENCODED_WORD.sub(_decoded_word, _BETWEEN_ENCODED_WORDS.sub("", text))
    except (LookupError, ValueError):
        raise InvalidAddress(f"{argument}: the name {shown(text)} cannot be decoded (RFC 2047).") from None


def _decoded_word(match: re.Match[str]) -> str:
    charset, encoding, text = match.groups()
    if not _CHARSET.fullmatch(charset):
        raise LookupError(charset)
    if encoding in "Bb":
        octets = binascii.a2b_base64(text + "=" * (-len(text) % 4))
    else:
        octets = binascii.a2b_qp(text, header=True)
    return octets.decode(charset)


def _checked_name(given: str, bare: str, argument: str) -> str:
    """A name as one line of words.

    Control characters other than line breaks count as spaces: they come from spreadsheets, where they are invisible.

    Raises:
        InvalidAddress: it is too long, or an encoded word hides a line break in it.
    """
    if _LINE_BREAK.search(given):
        raise InvalidAddress(f"{argument} holds a line break or control character: {shown(given)}.")
    name = " ".join(CONTROL.sub(" ", given).split())
    if len(name) > MAX_NAME:
        raise InvalidAddress(f"{argument}: the name before {bare!r} is longer than {MAX_NAME} characters.")
    return name


def _with_name(name: str, bare: str) -> str:
    return f"{written_name(name)} <{bare}>" if name else bare


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def shown(text: str) -> str:
    """So much of a text that it is recognised."""
    return repr(text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 1]}…")
