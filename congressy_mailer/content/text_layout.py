"""Plain text laid out: words flow into lines, blocks are set apart, the cells of a table stand in columns."""

from __future__ import annotations

import re
from itertools import zip_longest

#: A column wider than this, in characters, is not padded; neither is a cell that has this many lines or more.
_MAX_COLUMN_WIDTH, _MAX_CELL_LINES = 48, 5
#: Cells that together take more than this, in characters, stand below one another: they belong to a layout.
_MAX_ROW_WIDTH = 100
#: A cell of a layout with a line longer than this, in characters, is a paragraph: blank lines set it apart.
_MAX_LABEL_WIDTH = 60

# Zero-width characters, blanks that do not collapse, and those that Unicode calls fillers.
_RARE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180e\u2000-\u200f\u202f\u205f-\u2064\u3000\u3164\ufeff]"
)
_NOT_RARE_SPACES = re.compile("[\t-\r\x1c-\x20\x85\xa0\u2028\u2029]+")
_PADDING = "\u034f\u115f\u1160\u1680\u17b4\u17b5\u180e\u2000-\u200f\u202f\u205f-\u2064\u3000\u3164\ufeff"
_NOTHING_BUT_PADDING = re.compile(f"[{_PADDING}]*")
# A zero-width joiner, or mark of direction, at the end of a word may belong to it.
_EDGES = "\u034f\u17b4\u17b5\u180e\u200b\u200c\u2060\u2061\u2062\u2063\u2064\ufeff"


class Flow:
    """Text as it runs down a page, or a cell of a table."""

    def __init__(self) -> None:
        #: Whole lines, and the pieces of the one that text is added to.
        self.lines: list[str] = []
        self._line: list[str] = []
        #: Line ends before the next text: 1 begins a line, 2 leaves one blank.
        self._margin = 0
        self._space = False
        #: Whether the next text must not touch the last: behind an address or an image.
        self._apart = False
        #: What begins each line, and what begins the first line of a list's item.
        self.prefix = ""
        self._marker: str | None = None
        self._prefix_of_line = ""

    def separate(self, margin: int) -> None:
        """Begin a new line with the next text (1), behind a blank line (2)."""
        if margin > self._margin:
            self._margin = margin

    def break_line(self) -> None:
        """End the line here. Two ends leave one line blank, and so do more."""
        self._margin = min(self._margin + 1, 2)

    def add_space(self) -> None:
        self._space = True

    def keep_apart(self) -> None:
        """Keep a blank between a word and the next."""
        self._apart = True

    def mark(self, marker: str | None) -> None:
        """Begin the next line with this marker in the place of the prefix."""
        self._marker = marker

    def add(self, source: str) -> str:
        """Add text whose spaces collapse. Returns what was added of it."""
        words = source.split()
        if not source.isascii() and _RARE.search(source):
            words = _words(source)
        if not words:
            self._space = self._space or source != ""
            return ""
        text = " ".join(words)
        self._put(text, space=source[0].isspace())
        self._space = source[-1].isspace()
        return text

    def add_image(self, alt: str) -> str:
        """Add an image by what is shown in its place. Returns what was added of it."""
        text = " ".join(_words(alt))
        if text:
            self._apart = True
            self._put(text, space=False)
            self._apart = True
        return text

    def add_lines(self, source: str) -> str:
        """Add text whose spaces and line ends are kept. Returns what was added of it."""
        for number, line in enumerate(source.splitlines() if source[-1:] not in "\r\n" else [*source.splitlines(), ""]):
            if number:
                self.break_line()
            if line:
                self._put(line, space=False)
        self._space = False
        return source

    def add_address(self, address: str) -> None:
        """Add the address of a link right behind its label, even if that ended a block."""
        if self._line:
            self._line.append(f" <{address}>")
        else:
            self._put(f"<{address}>", space=False)
        self._apart = True

    def add_block(self, lines: list[str], margin: int) -> None:
        """Add lines that are laid out, with this margin before and after them."""
        self.separate(margin)
        for line in lines:
            if line:
                self._put(line, space=False)
                self.separate(1)
            else:
                self.separate(2)
        self.separate(margin)

    def end(self) -> list[str]:
        """The lines, without blank ones at either end."""
        if self._line:
            self.lines.append("".join(self._line).rstrip())
            self._line = []
        return self.lines

    def _put(self, text: str, *, space: bool) -> None:
        line = self._line
        if line and not self._margin:
            if space or self._space or (self._apart and text[0].isalnum()):
                line.append(" ")
        else:
            if line:
                self.lines.append("".join(line).rstrip())
                if self._margin > 1:
                    # A blank line between parts of the same quotation is quoted, too.
                    before, after = self._prefix_of_line, self.prefix
                    shared = after if before.startswith(after) else before if after.startswith(before) else ""
                    self.lines.append(shared.rstrip())
            prefix = self.prefix if self._marker is None else self._marker
            self._line = line = [prefix] if prefix else []
            self._prefix_of_line, self._marker = self.prefix, None
            self._margin = 0
        line.append(text)
        self._space = self._apart = False


class Table:
    """The rows of a table, until it is known whether they are columns of data or a layout of the page."""

    def __init__(self) -> None:
        self.has_header = False
        self._rows: list[list[list[str]]] = []

    def begin_row(self) -> None:
        self._rows.append([])

    def add_cell(self, lines: list[str], span: int) -> None:
        """Add a cell to the last row, over this many columns."""
        if not self._rows:
            self.begin_row()
        self._rows[-1] += [lines, *[[]] * (span - 1)]

    def add_to(self, flow: Flow) -> None:
        """Add the rows to the text around them: neighbouring rows of data as columns, cells of a layout as blocks."""
        columns: list[list[list[str]]] = []
        for row in self._rows:
            filled = [cell for cell in row if cell]
            if len(filled) > 1 and self._is_data(filled):
                columns.append(row)
                continue
            _add_columns(flow, columns, 2 if self.has_header else 1)
            columns = []
            for cell in filled:
                is_label = len(cell) == 1 and len(cell[0]) <= _MAX_LABEL_WIDTH
                flow.add_block(cell, 1 if is_label else 2)
        _add_columns(flow, columns, 2 if self.has_header else 1)

    def _is_data(self, cells: list[list[str]]) -> bool:
        if self.has_header:
            return all(len(cell) < _MAX_CELL_LINES for cell in cells)
        return all(len(cell) == 1 for cell in cells) and sum(len(cell[0]) for cell in cells) <= _MAX_ROW_WIDTH


def _add_columns(flow: Flow, rows: list[list[list[str]]], margin: int) -> None:
    if not rows:
        return
    widths: dict[int, int] = {}
    for row in rows:
        for column, cell in enumerate(row):
            width = max(map(len, cell), default=0)
            if width <= _MAX_COLUMN_WIDTH:
                widths[column] = max(widths.get(column, 0), width)
    lines = []
    for row in rows:
        for parts in zip_longest(*row, fillvalue=""):
            # A column that is empty throughout is a gap of the layout.
            cells = [part.ljust(widths.get(column, 0)) for column, part in enumerate(parts) if widths.get(column, 1)]
            lines.append("  ".join(cells).rstrip())
    flow.add_block([line for line in lines if line], margin)


def _words(source: str) -> list[str]:
    """The words of text with zero-width characters or unusual blanks, without those that only fill space."""
    words = _NOT_RARE_SPACES.split(source.replace("\u00ad", ""))
    return [word for word in (word.strip(_EDGES) for word in words) if not _NOTHING_BUT_PADDING.fullmatch(word)]
