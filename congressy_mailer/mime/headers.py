"""Header fields of a mail, written and folded: ASCII, whatever is in them (RFC 5322 §2.2, RFC 2047).

Only what every reader understands in the same way is written. For anything else there is a ``ValueError``, so that no
line break or other surprise can get into a header, whoever has checked it before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from .addresses import (
    ADDRESS_HEADERS,
    CONTROL,
    ENCODED_WORD_START,
    HEADER_NAME,
    MAX_LINE,
    MESSAGE_ID,
    listed_addresses,
    split_address,
    written_name,
)

# RFC 2047 §2: a line with an encoded word in it. RFC 5322 §2.1.1 recommends little more for any other.
_RECOMMENDED_LINE = 76

_MAX_NAME_BEFORE_ENCODED_WORD = 17

# Words of printable ASCII with single spaces between them: unfolding gives them back as they were.
_PLAIN = re.compile("[!-~]+(?: [!-~]+)*")
_DATE = re.compile(r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} [+-][0-9]{4}")

# Those with a grammar of their own, and those that must not stand twice.
_STRUCTURED = frozenset(
    ["from", "sender", "reply-to", "to", "cc", "bcc", "subject", "date", "orig-date", "message-id", "mime-version"]
    + ["content-type", "content-id", "content-transfer-encoding", "content-disposition", "resent-from", "resent-sender"]
    + ["resent-reply-to", "resent-to", "resent-cc", "resent-bcc", "resent-date", "resent-message-id"]
)

# RFC 2047 §5 (3): what may stand for itself in an encoded word wherever that is.
_UNESCAPED = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!*+-/")
_Q_ENCODING = {octet: chr(octet) if octet in _UNESCAPED else f"={octet:02X}" for octet in range(256)} | {ord(" "): "_"}
# RFC 2047 §2 allows 63 octets; fewer leave room for the name of the field. §5 forbids to break within a character,
# whose octets after the first begin with 8, 9, A or B in UTF-8.
_PIECE = re.compile("(?s).{1,45}(?<!=)(?<!=[0-9A-F])(?!=[89AB])")


def text_field(name: str, value: str) -> str:
    """A field of free text, with its line break.

    Raises:
        ValueError: its text could be read in more than one way.
    """
    if value.isascii() and ENCODED_WORD_START not in value:
        if not _PLAIN.fullmatch(value):
            raise ValueError(f"{name} is not plain text")
        if len(name) + 2 + len(value) <= _RECOMMENDED_LINE:
            return f"{name}: {value}\r\n"
        return _fold(name, value.split(" "))
    if len(name) > _MAX_NAME_BEFORE_ENCODED_WORD:
        raise ValueError(f"no room for an encoded word beside {name}")
    return _fold(name, encoded_words(value))


def address_field(name: str, addresses: Iterable[str]) -> str:
    """A field of one or more addresses in normal form, with its line break.

    Raises:
        ValueError: there is none, or one cannot be written: an older version has stored it.
    """
    return _fold(name, _address_words(addresses))


def address_value(addresses: Iterable[str]) -> str:
    """The value of such a field in one line.

    Raises:
        ValueError: as :func:`address_field`.
    """
    return " ".join(_address_words(addresses))


def folded_value(name: str, value: str) -> str:
    """The field of a value that is written already, with its line break.

    Raises:
        ValueError: it is not plain ASCII, or has a word that is too long for a line.
    """
    if not value.isascii() or CONTROL.search(value):
        raise ValueError(f"{name} is not plain ASCII")
    return _fold(name, value.split(" "))


def _address_words(addresses: Iterable[str]) -> list[str]:
    words: list[str] = []
    for address in addresses:
        words += _mailbox_words(address)
        words[-1] += ","
    if not words:
        raise ValueError("a field without an address")
    words[-1] = words[-1][:-1]
    return words


#: The same for those that most mails have in common.
cached_address_field = lru_cache(maxsize=256)(address_field)


def extra_field(name: str, value: str) -> str:
    """A field that is neither text nor addresses of ours, with its line break.

    Raises:
        ValueError: it has a grammar of its own, or its value could be read in more than one way.
    """
    kind = name.lower()
    if kind == "message-id" and MESSAGE_ID.fullmatch(value) or kind == "date" and _DATE.fullmatch(value):
        return text_field(name, value)
    if kind in ADDRESS_HEADERS:
        return address_field(name, listed_addresses(value, name))
    if kind in _STRUCTURED or not HEADER_NAME.fullmatch(name):
        raise ValueError(f"{name} is not a field of free text")
    return text_field(name, value)


def _mailbox_words(address: str) -> list[str]:
    """An address as words between which the field may be folded."""
    name, bare = split_address(address)
    if not name:
        return [bare]
    if not name.isascii() or ENCODED_WORD_START in name:
        return [*encoded_words(name), f"<{bare}>"]
    return [*written_name(name).split(" "), f"<{bare}>"]


def encoded_words(text: str) -> list[str]:
    """Text as encoded words (RFC 2047 §4.2), between which readers take no space.

    Raises:
        ValueError: it has control characters, or spaces around it.
    """
    if CONTROL.search(text) or text != text.strip():
        raise ValueError("text that has control characters, or spaces around it")
    return [f"=?utf-8?q?{piece}?=" for piece in _PIECE.findall(text.encode().decode("latin-1").translate(_Q_ENCODING))]


def _fold(name: str, words: list[str]) -> str:
    lines = []
    line = f"{name}: {words[0]}"
    for word in words[1:]:
        if len(line) + 1 + len(word) > _RECOMMENDED_LINE:
            lines.append(line)
            line = ""
        line += f" {word}"
    lines.append(line)
    if max(map(len, lines)) > MAX_LINE:
        raise ValueError(f"{name} has a word that is too long for a line")
    return "\r\n".join(lines) + "\r\n"
