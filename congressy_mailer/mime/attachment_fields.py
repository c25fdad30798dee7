"""The header fields of an attachment: its type, and its file name for readers old and new (RFC 2231, RFC 2183)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote

from .attachments import CONTENT_ID, is_composite
from .headers import RECOMMENDED_LINE, text_field
from .syntax import CONTROL, ENCODED_WORD_START

_CHARSET = "utf-8''"
# Never within an escape, nor within a character.
_PERCENT_PIECE = re.compile("(?s).{1,45}(?<!%)(?<!%[0-9A-F])(?!%[89AB])")
# What stands between quotation marks as it is, and what every reader of file names takes as it is there: some split it
# at a semicolon, or decode a percent sign.
_QUOTABLE = re.compile(r"[ !#-\[\]-~]*")
_PLAIN_FILENAME = re.compile(r"[A-Za-z0-9 !#$&()+,.@\[\]^_`{}~=-]*")
_UNSAFE_IN_FALLBACK = re.compile(r"[^A-Za-z0-9 ._()+,-]")


@lru_cache(maxsize=256)
def attachment_fields(
    kind: str,
    parameters: tuple[tuple[str, str], ...],
    filename: str,
    content_id: str,
    inline: bool,
    description: str,
) -> list[str]:
    """Everything of an attachment but its content, which the mails of a batch have in common."""
    if is_composite(kind):
        raise ValueError(f"{kind} may not be written in Base64")
    if CONTROL.search(filename):
        raise ValueError("a file name that has control characters")
    named = dict(parameters)
    plain = _PLAIN_FILENAME.fullmatch(filename) and ENCODED_WORD_START not in filename
    if not plain:
        # For readers without RFC 2231; in the disposition some would prefer it to the whole name.
        named.setdefault("name", _fallback_name(filename))
    fields = [
        with_parameters(f"Content-Type: {kind}", named),
        "Content-Transfer-Encoding: base64\r\n",
        with_parameters(
            f"Content-Disposition: {'inline' if content_id or inline else 'attachment'}",
            {"filename": filename} if filename else {},
        ),
    ]
    if content_id:
        if not CONTENT_ID.fullmatch(content_id):
            raise ValueError(f"{content_id!r} is not a content id")
        fields.append(f"Content-ID: <{content_id}>\r\n")
    if description:
        fields.append(text_field("Content-Description", description))
    return fields


def with_parameters(field: str, parameters: Mapping[str, str]) -> str:
    """A field of a token with parameters (RFC 2045 §5.1), each where needed in a line of its own."""
    written = [field]
    for name, value in parameters.items():
        quotable = _PLAIN_FILENAME if name == "filename" else _QUOTABLE
        if quotable.fullmatch(value) and ENCODED_WORD_START not in value:
            written.append(f'{name}="{value}"')
        else:
            written += _encoded_parameter(name, value)
    line = "; ".join(written)
    return (line if len(line) <= RECOMMENDED_LINE else ";\r\n ".join(written)) + "\r\n"


def _encoded_parameter(name: str, value: str) -> list[str]:
    """A parameter of any text: one, or as many as it takes (RFC 2231 §3 and §4)."""
    pieces = _PERCENT_PIECE.findall(quote(value, safe=""))
    if len(pieces) == 1:
        return [f"{name}*={_CHARSET}{pieces[0]}"]
    return [f"{name}*{number}*={'' if number else _CHARSET}{piece}" for number, piece in enumerate(pieces)]


def _fallback_name(filename: str) -> str:
    """A file name in ASCII that is as like it as can be: ``inscricao.pdf`` for ``inscrição.pdf``."""
    letters = unicodedata.normalize("NFKD", filename).encode("ascii", "ignore").decode("ascii")
    stem, dot, extension = letters.rpartition(".")
    name = _UNSAFE_IN_FALLBACK.sub("_", stem if dot else letters).strip() or "file"
    return f"{name}{_UNSAFE_IN_FALLBACK.sub('_', dot + extension)}"[-100:]
