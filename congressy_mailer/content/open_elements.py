"""The elements of HTML that are open where its text is read, and what is in effect there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .styles import Effect, Look
from .text_layout import Flow, Table

#: Levels of tables that have rows and cells. Deeper ones are read as text: each level costs every line within it once
#: more.
_MAX_TABLES = 40

_LINES = """
    address body caption center dd details dialog div dt figcaption figure fieldset html legend li optgroup option
    summary table tbody td tfoot th thead tr
"""
_PARAGRAPHS = """
    article aside blockquote dl footer form h1 h2 h3 h4 h5 h6 header main nav ol p pre section ul
"""
#: Line ends around elements: 2 leaves a blank line.
MARGINS = {**dict.fromkeys(_LINES.split(), 1), **dict.fromkeys(_PARAGRAPHS.split(), 2)}
#: At the beginning of these a paragraph ends that has no end tag.
CLOSING_PARAGRAPH = frozenset(MARGINS) - {"body", "caption", "html", "tbody", "td", "tfoot", "th", "thead", "tr"}
_ROW_GROUPS = frozenset({"tbody", "thead", "tfoot"})
_CELLS = frozenset({"td", "th"})
#: Tables and their parts, of which an end tag reaches beyond other elements.
OF_TABLES = frozenset({"table", "caption", "tr", *_ROW_GROUPS, *_CELLS})

#: What ends with an element, in the order in which it began.
Undo = list[Callable[[], None]]


class Link:
    """A link whose label is being read."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.label: list[str] = []
        self.has_content = False


class OpenTable:
    """A table that is being read, with the heights of the stack at which it, its row and its cell began."""

    def __init__(self, height: int) -> None:
        self.table = Table()
        self.height = height
        self.row: int | None = None
        self.cell: int | None = None


class OpenElements:
    """The elements around the place that has been read to, and what they say of its text."""

    def __init__(self) -> None:
        self.flow = Flow()
        #: Name and look of each open element, and what ends with it.
        self.stack: list[tuple[str, Look, Undo | None]] = []
        #: How many elements of each name are open in the cell, or outside of all tables: an end tag reaches no further.
        self.open: dict[str, int] = {}
        self.tables: list[OpenTable] = []
        #: The number of the next item, for each list around; None without numbers.
        self.lists: list[int | None] = []
        self.link: Link | None = None
        #: A link that ended with an element around it before it had a label: it goes on with the next text.
        self.interrupted: Link | None = None
        self.after_link = False
        # As inherited from the elements around.
        self.hidden = False
        self.no_font = False
        self.white_space = ""
        #: Nothing of a preformatted text has been read.
        self.begins_preformatted = False

    def push(self, name: str, its_look: Look, undo: Undo | None) -> None:
        """Open an element.

        Args:
            name: of the element.
            its_look: as its tag says.
            undo: what ends with it.
        """
        self.stack.append((name, its_look, undo))
        if name not in OF_TABLES:
            self.open[name] = self.open.get(name, 0) + 1

    def end_to(self, height: int) -> None:
        """End the elements that began at this height of the stack or above."""
        while len(self.stack) > height:
            self._end_last()

    def end_open(self, name: str) -> None:
        """End the innermost element with this name, which is open, and those within it."""
        while self._end_last() != name:
            pass

    def _end_last(self) -> str:
        name, _, undo = self.stack.pop()
        if name not in OF_TABLES:
            self.open[name] -= 1
        margin = 0 if self.hidden else MARGINS.get(name, 0)
        if undo:
            for action in reversed(undo):
                action()
        if margin:
            self.flow.separate(1 if self.lists and name in ("ul", "ol") else margin)
        return name

    def end_before(self, name: str) -> None:
        """End what cannot go on around an element of this name."""
        if name == "li" and self.open.get("li"):
            self.end_open("li")
        elif name in ("dt", "dd"):
            for other in ("dt", "dd"):
                if self.open.get(other):
                    self.end_open(other)
        elif self.open.get("p"):
            self.end_open("p")

    def make_place_in_table(self, name: str) -> bool:
        """End what cannot go on around a part of a table. Returns whether the part can stand here."""
        if name == "table":
            if self.open.get("p"):
                self.end_open("p")
            return len(self.tables) < _MAX_TABLES
        if not self.tables:
            return False
        table = self.tables[-1]
        if name in _CELLS and table.row is not None:
            self.end_to(table.row + 1)
        else:
            self.end_to(table.height + 1)
        return True

    def end_in_table(self, name: str) -> None:
        """End a part of the innermost table, and what is open in it."""
        if not self.tables:
            return
        table = self.tables[-1]
        if name == "table":
            self.end_to(table.height)
        elif name in _CELLS or name == "caption":
            if table.cell is not None:
                self.end_to(table.cell)
        elif name == "tr":
            if table.row is not None:
                self.end_to(table.row)
        else:
            self.end_to(table.height + 1)

    def inherit(self, effect: Effect, margin: int) -> Undo:
        """Have what an element says of the font and of white space in effect within it.

        Args:
            effect: of the element.
            margin: line ends that come after it.

        Returns:
            What ends with it.
        """
        undo = [self.restoring()]
        if margin:
            undo.append(partial(self.flow.separate, margin))
        if effect.no_font is not None:
            self.no_font = effect.no_font
        if effect.white_space is not None:
            self.white_space = effect.white_space
        return undo

    def restoring(self) -> Callable[[], None]:
        """What brings back the font and the white space that are in effect now."""
        return partial(self._restore, self.no_font, self.white_space)

    def _restore(self, no_font: bool, white_space: str) -> None:
        self.no_font, self.white_space = no_font, white_space

    def show(self) -> None:
        """End an element that is hidden."""
        self.hidden = False
