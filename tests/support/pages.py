"""The code blocks of the documentation, each with what its first line says of the file and of the Django it is for."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import django

ROOT = Path(__file__).resolve().parent.parent.parent
#: Everything with code for readers.
PAGES = [ROOT / "README.md", ROOT / "README.pt-BR.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[^\n]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_FIRST_LINE = re.compile(r"(?:#|\{#) (?P<file>[\w./-]+\.(?:py|html|txt))(?:, (?P<condition>.+?))?(?: #\})?")
_DJANGO = re.compile(r"Django (?P<first>\d+\.\d+)(?: (?:or|ou) (?:(?P<second>\d+\.\d+)|(?P<newer>later|mais novo)))?")


class Block(NamedTuple):
    """One fenced block."""

    page: Path
    #: Line of the page that it begins in, from 1.
    line: int
    #: What stands behind the fence, such as ``python`` or ``html+django``.
    language: str
    text: str

    @property
    def place(self) -> str:
        """For people, and as the name of a test."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def file(self) -> str:
        """The file that its first line names, or an empty text."""
        found = _FIRST_LINE.fullmatch(self.text.partition("\n")[0])
        return found["file"] if found else ""

    @property
    def is_before(self) -> bool:
        """Whether it shows what a reader has before he follows the page."""
        found = _FIRST_LINE.fullmatch(self.text.partition("\n")[0])
        return bool(found and found["condition"] and found["condition"].startswith("before"))

    @property
    def is_for_this_django(self) -> bool:
        """Whether it is meant for the Django that runs; it is where the first line names none."""
        found = _FIRST_LINE.fullmatch(self.text.partition("\n")[0])
        versions = _DJANGO.search(found["condition"] or "") if found else None
        if not versions:
            return True
        first = _version(versions["first"])
        if versions["newer"]:
            return django.VERSION[:2] >= first
        return django.VERSION[:2] in (first, _version(versions["second"] or versions["first"]))

    @property
    def commands(self) -> list[str]:
        """Of a ``console`` block, what is typed."""
        lines = [line.removeprefix("$ ") for line in self.text.splitlines() if line.startswith("$ ")]
        return [re.sub(r" +# .*", "", line) for line in lines]


def blocks(page: Path, until: str = "") -> Iterator[Block]:
    """The blocks of a page in the order in which a reader meets them.

    Args:
        page: a Markdown file.
        until: a line with which the part ends that is asked for; by default the whole page.
    """
    text = page.read_text()
    if until:
        text = text[: text.index(f"\n{until}\n")]
    for found in _FENCE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(page, line, found["language"], textwrap.dedent(found["text"]))


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))
