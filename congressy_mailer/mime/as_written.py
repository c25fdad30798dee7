"""How Python reads a mail that is written already: its header fields stay as they are."""

from __future__ import annotations

import re
from email.policy import EmailPolicy
from typing import Any

_LINE_BREAK = re.compile("\r\n|\r|\n")


class _AsWritten(EmailPolicy):
    """Header fields as they were written: read on demand, and never folded or encoded anew."""

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, _, value = "".join(sourcelines).partition(":")
        return name, value.rstrip("\r\n")

    def header_fetch_parse(self, name: str, value: Any) -> Any:
        if hasattr(value, "name"):
            return value
        text = _LINE_BREAK.sub("", value).lstrip(" ")
        try:
            return super().header_fetch_parse(name, text)
        except Exception:
            # The parser trips over some addresses, such as one with nothing in the quotation marks before its @.
            return text

    def fold(self, name: str, value: Any) -> str:
        if hasattr(value, "name"):
            return str(super().fold(name, value))
        return f"{name}:{self.linesep.join(_LINE_BREAK.split(value))}{self.linesep}"

    def fold_binary(self, name: str, value: Any) -> bytes:
        return self.fold(name, value).encode("ascii", "surrogateescape")


AS_WRITTEN = _AsWritten()
