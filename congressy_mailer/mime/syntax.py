"""Syntax that addresses and headers share (RFC 5321, RFC 5322): what they may hold, and how long they may be."""

from __future__ import annotations

import re

#: C0 and C1 controls, DEL, the line and paragraph separators that str.splitlines() knows, lone surrogates.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

#: Byte order mark. Editors put it at the start of a file; no reader shows it.
BOM = "\ufeff"

#: Those of them that no part of an address may hold: what str.splitlines() takes for the end of a line, and lone
#: surrogates, which have no encoding.
LINE_BREAK = re.compile("[\n-\r\x1c-\x1e\x85\u2028\u2029\ud800-\udfff]")

#: RFC 5322 §3.6.8: printable ASCII but the colon. A longer one leaves no room for its value.
HEADER_NAME = re.compile(r"[!-9;-~]{1,76}")

#: RFC 5321 §4.5.3.1: octets of the part before the @, and of an address in a path, without its angle brackets.
MAX_LOCAL = 64
MAX_ADDRESS = 254

#: RFC 5322 §2.1.1: octets of a line, without its CR LF.
MAX_LINE = 998

# Characters of a text that an error repeats.
_LONGEST_SHOWN = 100

#: A Message-ID of printable ASCII (RFC 5322 §3.6.4).
MESSAGE_ID = re.compile(r"<[!-;=?A-~]+@[!-;=?A-~]+>")

#: What looks like an encoded word (RFC 2047) is taken for one by some readers, and not by others.
ENCODED_WORD_START = "=?"

#: What stands in a name only within quotation marks (RFC 5322 §3.2.3). The full stop and the parentheses of a comment
#: are read without them as well.
SPECIAL = re.compile(r'[()<>\[\]:;@\\,."]')

#: A character behind a backslash, within quotation marks (RFC 5322 §3.2.1).
QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)

#: Text in quotation marks as people and programs write it. Quantifiers are possessive where a pattern could go back and
#: try again: so matching takes time in proportion to the text, also where it fails.
GIVEN_QUOTED = r'"(?:[^"\\]++|\\.)*+"'


def quoted(text: str) -> str:
    """Text in quotation marks (RFC 5322 §3.2.4)."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def shown(text: str) -> str:
    """So much of a text that it is recognised."""
    return repr(text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 1]}…")
