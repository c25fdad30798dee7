"""Phrases, such as the name before an address: one line of words, the encoded ones decoded (RFC 2047)."""

from __future__ import annotations

import binascii
import re

from ..exceptions import InvalidAddress
from .syntax import CONTROL, ENCODED_WORD_START, GIVEN_QUOTED, LINE_BREAK, QUOTED_PAIR, SPECIAL, quoted, shown

# Far less than a line may have; a longer name hides something.
MAX_NAME = 300

_WORDS = re.compile(rf'({GIVEN_QUOTED})|[^"]++', re.DOTALL)

# RFC 2047 §2, with the language of RFC 2231 §5.
_ENCODED_WORD = re.compile(r"=\?([!-)+->@-~]+)(?:\*[!->@-~]*)?\?([BbQq])\?([!->@-~]*)\?=")
# Character sets that mail is written in. Python's codecs include others, such as its own for escapes.
_CHARSET = re.compile(
    r"us-ascii|utf-?8|iso-8859-[0-9]{1,2}|windows-125[0-9]|koi8-[ru]|iso-2022-(?:jp|kr)|euc-(?:jp|kr)|shift_jis|big5"
    r"|gb(?:2312|k|18030)",
    re.IGNORECASE | re.ASCII,
)
# Encoded words in a row; what stands in angle brackets or quotation marks is none (RFC 2047 §5).
_KEPT_OR_ENCODED_WORDS = re.compile(
    rf"<[^<>]*+>|{GIVEN_QUOTED}|((?:=\?[!->@-~]+\?[BbQq]\?[!->@-~]*\?=(?: +(?==\?))?)+)", re.DOTALL
)
_BETWEEN_ENCODED_WORDS = re.compile(r"(?<=\?=)\s+(?==\?)")


def phrase_text(phrase: str, argument: str) -> str:
    """The text of a name: of its words, of those in quotation marks, and of encoded words (RFC 2047 §5)."""
    words = []
    for found in _WORDS.finditer(phrase):
        quoted = found[1]
        words.append(decoded_text(found[0], argument) if quoted is None else QUOTED_PAIR.sub(r"\1", quoted[1:-1]))
    return " ".join(words)


def decoded_phrase(text: str, argument: str) -> str:
    """A phrase, or a list of them, in which the encoded words (RFC 2047) are text in quotation marks.

    Raises:
        InvalidAddress: one cannot be decoded.
    """
    if ENCODED_WORD_START not in text:
        return text

    def as_quoted(found: re.Match[str]) -> str:
        return found[0] if found[1] is None else quoted(checked_name(decoded_text(found[1], argument), "", argument))

    return _KEPT_OR_ENCODED_WORDS.sub(as_quoted, text)


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


def checked_name(given: str, bare: str, argument: str) -> str:
    """A name as one line of words.

    Control characters other than line breaks count as spaces: they come from spreadsheets, where they are invisible.

    Raises:
        InvalidAddress: it is too long, or an encoded word hides a line break in it.
    """
    if LINE_BREAK.search(given):
        raise InvalidAddress(f"{argument} holds a line break or control character: {shown(given)}.")
    name = " ".join(CONTROL.sub(" ", given).split())
    if len(name) > MAX_NAME:
        raise InvalidAddress(f"{argument}: the name before {bare!r} is longer than {MAX_NAME} characters.")
    return name


def written_name(name: str) -> str:
    """A name as it stands before its address: in quotation marks where it could be read as anything else."""
    return quoted(name) if ENCODED_WORD_START in name or SPECIAL.search(name) else name
