"""Header fields of a mail, written and folded: ASCII with CRLF line breaks, for any value (RFC 5322 §2.2).

How a value is written follows from its field's grammar: an encoded word (RFC 2047) may stand only where readers decode
it, in free text, in phrases and in comments, and never in what programs read, such as a URL or a ``Message-ID``. What
cannot be written so that every reader understands the same is a ``ValueError``; no earlier check is relied on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum, auto
from functools import lru_cache
from itertools import groupby

from .addresses import listed_addresses, split_address
from .phrases import written_name
from .syntax import CONTROL, ENCODED_WORD_START, HEADER_NAME, MAX_LINE, MESSAGE_ID

#: RFC 2047 §2: a line with an encoded word in it. RFC 5322 §2.1.1 recommends little more for any other.
RECOMMENDED_LINE = 76

_DATE = re.compile(r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} [+-][0-9]{4}")

#: Fields of one address, or of a list of them (RFC 5322 §3.6, RFC 8098 §2.1, RFC 9057).
ADDRESS_FIELDS = frozenset(
    ["sender", "resent-from", "resent-sender", "resent-reply-to", "resent-to", "resent-cc", "resent-bcc", "author"]
    + ["disposition-notification-to", "return-receipt-to", "errors-to", "mail-followup-to", "mail-reply-to"]
    + ["apparently-to", "x-confirm-reading-to"]
)
#: Those that hold exactly one.
ONE_ADDRESS_FIELDS = frozenset(["sender", "resent-sender"])
#: Fields of one date (RFC 4021).
DATE_FIELDS = frozenset(
    ["date", "resent-date", "orig-date", "delivery-date", "expires", "expiry-date", "reply-by", "deferred-delivery"]
    + ["latest-delivery-time"]
)
#: Fields of one ``Message-ID``.
ID_FIELDS = frozenset(["message-id", "resent-message-id"])

# Fields of phrases, comments and what stands in angle brackets (RFC 2369, RFC 2919, RFC 5322 §3.6.5).
_PHRASE_FIELDS = frozenset(["keywords", "archived-at"])
_PHRASE_PREFIX = "list-"
# Fields that programs read, which decode nothing in them.
_TOKEN_FIELDS = frozenset(
    ["references", "in-reply-to", "original-message-id", "supersedes", "obsoletes", "auto-submitted", "precedence"]
    + ["importance", "priority", "x-priority", "x-msmail-priority", "sensitivity", "list-unsubscribe-post", "received"]
    + ["received-spf", "dkim-signature", "domainkey-signature", "authentication-results", "autocrypt", "feedback-id"]
    + ["accept-language", "mt-priority", "tls-required", "require-recipient-valid-since", "x-msys-api"]
    + ["disposition-notification-options", "bimi-selector", "x-mailer-message-id"]
)
_TOKEN_PREFIXES = ("arc-", "authentication-", "content-", "dkim-")
_CONTENT_DESCRIPTION = "content-description"

# An encoded word (RFC 2047 §2), which some readers decode wherever it stands.
_ENCODED_WORD = re.compile(r"=\?[^?\s]+\?[BbQq]\?[^?\s]*\?=")
# What lenient readers may take for one.
_LOOKS_ENCODED = re.compile(r"=\?.*\?=")
# Where a line may be broken: in front of the spaces before a word, so that unfolding gives the value back.
_FOLDABLE = re.compile(" *[^ ]+")

# Phrases, comments and what stands between angle brackets. A comment may hold another one.
_STRUCTURE = re.compile(
    r"<(?P<angle>[^<>]*)>|\((?P<comment>(?:[^()\\]|\\.|\([^()]*\))*)\)|(?P<separator>[,;])"
    r'|(?P<phrase>(?:[^<>(),;"\\]|\\.|"(?:[^"\\]|\\.)*")+)'
)
_QUOTED_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
_QUOTED_PAIR = re.compile(r"\\(.)")
# What stands for itself in free text: a URL, an address.
_ANGLE = re.compile(r"<[!-;=?-~]+>[,;]?")

# RFC 2047 §5 (3): what may stand for itself in an encoded word wherever that is.
_UNESCAPED = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!*+-/")
_Q_ENCODING = {octet: chr(octet) if octet in _UNESCAPED else f"={octet:02X}" for octet in range(256)} | {ord(" "): "_"}
# RFC 2047 §2 allows 63 octets; fewer leave room for the name of the field. §5 forbids to break within a character,
# whose octets after the first begin with 8, 9, A or B in UTF-8.
_PIECE = re.compile("(?s).{1,45}(?<!=)(?<!=[0-9A-F])(?!=[89AB])")


class Grammar(Enum):
    """What the value of a field is, as far as that says how it is written."""

    TEXT = auto()
    ADDRESSES = auto()
    DATE = auto()
    MESSAGE_ID = auto()
    PHRASES = auto()
    TOKENS = auto()


@lru_cache(maxsize=256)
def grammar_of(name: str) -> Grammar:
    """The grammar of a field by its name, which is the same in any case. A field that is not known is free text."""
    name = name.lower()
    if name in ADDRESS_FIELDS:
        return Grammar.ADDRESSES
    if name in DATE_FIELDS:
        return Grammar.DATE
    if name in ID_FIELDS:
        return Grammar.MESSAGE_ID
    if name in _TOKEN_FIELDS or name.startswith(_TOKEN_PREFIXES) and name != _CONTENT_DESCRIPTION:
        return Grammar.TOKENS
    if name in _PHRASE_FIELDS or name.startswith(_PHRASE_PREFIX):
        return Grammar.PHRASES
    return Grammar.TEXT


def further_field(name: str, value: str) -> str:
    """A field that no argument of its own says, by its grammar, with its line break.

    Raises:
        ValueError: ``name`` is no name, or the value is not what the field may hold.
    """
    if not HEADER_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a header")
    grammar = grammar_of(name)
    if grammar is Grammar.ADDRESSES:
        return address_field(name, listed_addresses(value, name))
    if grammar is Grammar.DATE and not _DATE.fullmatch(value):
        raise ValueError(f"{name} is not a date such as 'Mon, 02 Jan 2006 15:04:05 +0000'")
    if grammar is Grammar.MESSAGE_ID and not MESSAGE_ID.fullmatch(value):
        raise ValueError(f"{name} is not an identifier such as <unique@example.com>")
    if grammar is Grammar.TEXT:
        return text_field(name, value)
    if grammar is not Grammar.PHRASES and _ENCODED_WORD.search(value):
        raise ValueError(f"{name} holds what looks like an encoded word (RFC 2047), which some readers would decode")
    if value.isascii() and not (grammar is Grammar.PHRASES and _LOOKS_ENCODED.search(value)):
        return _plain_field(name, value)
    if grammar is not Grammar.PHRASES:
        raise ValueError(f"{name} must be ASCII: programs read it, and decode nothing in it")
    return _fold(name, _phrase_words(name, value))


def text_field(name: str, value: str) -> str:
    """A field of free text, with its line break.

    Raises:
        ValueError: it has control characters, or a word in ASCII that is too long for a line.
    """
    # Readers leave out blanks at the ends, unless they are encoded.
    whole = value == value.strip(" ")
    if whole and value.isascii() and not (ENCODED_WORD_START in value and _LOOKS_ENCODED.search(value)):
        return _plain_field(name, value)
    if whole and "<" in value and "  " not in value and not _LOOKS_ENCODED.search(value):
        return _fold(name, _words_around_angles(value))
    return _fold(name, encoded_words(value))


def _words_around_angles(value: str) -> list[str]:
    """Words of a text: what stands in angle brackets is mostly an address or a URL, and is read undecoded."""
    words: list[str] = []
    for in_angles, group in groupby(value.split(" "), key=lambda word: _ANGLE.fullmatch(word) is not None):
        text = " ".join(group)
        words += text.split(" ") if in_angles or text.isascii() else encoded_words(text)
    return words


def address_field(name: str, addresses: Iterable[str]) -> str:
    """A field of one or more addresses in normal form, with its line break.

    Raises:
        ValueError: there is none, or one cannot be written: an older version has stored it.
    """
    words: list[str] = []
    for address in addresses:
        words += _mailbox_words(address)
        words[-1] += ","
    if not words:
        raise ValueError("a field without an address")
    words[-1] = words[-1][:-1]
    return _fold(name, words)


#: The same for those that most mails have in common.
cached_address_field = lru_cache(maxsize=256)(address_field)


def encoded_words(text: str) -> list[str]:
    """Text as encoded words (RFC 2047 §4.2), between which readers take no space.

    Raises:
        ValueError: it has control characters.
    """
    if CONTROL.search(text):
        raise ValueError("text that has control characters")
    return [f"=?utf-8?q?{piece}?=" for piece in _PIECE.findall(text.encode().decode("latin-1").translate(_Q_ENCODING))]


def _mailbox_words(address: str) -> list[str]:
    """An address as words between which the field may be folded."""
    name, bare = split_address(address)
    if not name:
        return [bare]
    if not name.isascii() or ENCODED_WORD_START in name:
        return [*encoded_words(name), f"<{bare}>"]
    return [*written_name(name).split(" "), f"<{bare}>"]


def _phrase_words(name: str, value: str) -> list[str]:
    """Words of a field of phrases, with those encoded that need it, and the rest as it is."""
    words: list[str] = []
    position = 0
    while position < len(value):
        found = _STRUCTURE.match(value, position)
        if found is None:
            raise ValueError(f"{name} has a bracket or quotation mark that is not closed")
        position = found.end()
        text = found.group().strip(" ")
        if not text:
            continue
        if text.isascii() and not _LOOKS_ENCODED.search(text):
            words += [text] if found["angle"] is not None else text.split()
        elif found["angle"] is not None:
            if _ENCODED_WORD.search(text):
                raise ValueError(f"{name} has what looks like an encoded word (RFC 2047) between < and >")
            if not text.isascii():
                raise ValueError(f"{name} must be ASCII between < and >: write other characters of a URL as %C3%A7")
            words.append(text)
        elif found["comment"] is not None:
            first, *rest = encoded_words(_QUOTED_PAIR.sub(r"\1", found["comment"]))
            words += [f"({first}", *rest]
            words[-1] += ")"
        else:
            unquoted = _QUOTED_STRING.sub(lambda quoted: _QUOTED_PAIR.sub(r"\1", quoted[1]), text)
            words += encoded_words(" ".join(unquoted.split()))
    return words


def _plain_field(name: str, value: str) -> str:
    """A field of ASCII, every character of it as it is."""
    if CONTROL.search(value):
        raise ValueError(f"{name} has control characters")
    if len(name) + 2 + len(value) <= RECOMMENDED_LINE:
        return f"{name}: {value}\r\n"
    lines = []
    line = f"{name}: "
    for word in _FOLDABLE.findall(value):
        if len(line) + len(word) > RECOMMENDED_LINE and word[0] == " ":
            lines.append(line)
            line = ""
        line += word
    lines.append(line)
    return _joined(name, lines)


def _fold(name: str, words: list[str]) -> str:
    """A field of words with one space between them."""
    lines = []
    line = f"{name}: {words[0]}"
    if len(line) > RECOMMENDED_LINE and words[0].startswith("=?"):
        # RFC 2047 §2: no longer line with an encoded word. After the name there is always room for one.
        lines, line = [f"{name}:"], f" {words[0]}"
    for word in words[1:]:
        if len(line) + 1 + len(word) > RECOMMENDED_LINE:
            lines.append(line)
            line = ""
        line += f" {word}"
    lines.append(line)
    return _joined(name, lines)


def _joined(name: str, lines: list[str]) -> str:
    if max(map(len, lines)) > MAX_LINE:
        raise ValueError(f"{name} has a word that is too long for a line")
    return "\r\n".join(lines) + "\r\n"
