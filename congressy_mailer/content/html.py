"""HTML → the plain text that goes beside it, for mails whose template has no ``.txt``."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote

from .markup import attributes_of, text_of, tokens
from .styles import NO_EFFECT, NO_LOOK, Effect, Look, StyleSheet, look
from .text_layout import Flow, Table

#: Characters of HTML that are read: mail programs clip a mail long before (Gmail at 102 kB).
_MAX_HTML_LENGTH = 1_000_000
#: Characters of a tag up to which what its attributes mean is kept for the next mail of the same template.
_MAX_KEPT_TAG = 1_000
#: Levels of tables that have rows and cells, and of lists and quotations that are indented. Deeper ones are read as
#: text: each level costs every line within it once more.
_MAX_TABLES, _MAX_PREFIX = 40, 40
_MAX_SPAN = 20

_LINES = """
    address body caption center dd details dialog div dt figcaption figure fieldset html legend li optgroup option
    summary table tbody td tfoot th thead tr
"""
_PARAGRAPHS = """
    article aside blockquote dl footer form h1 h2 h3 h4 h5 h6 header main nav ol p pre section ul
"""
#: Line ends around elements: 2 leaves a blank line.
_MARGINS = {**dict.fromkeys(_LINES.split(), 1), **dict.fromkeys(_PARAGRAPHS.split(), 2)}
_CLOSING_PARAGRAPH = frozenset(_MARGINS) - {"body", "caption", "html", "tbody", "td", "tfoot", "th", "thead", "tr"}
_ROW_GROUPS = frozenset({"tbody", "thead", "tfoot"})
_CELLS = frozenset({"td", "th"})
_OF_TABLES = frozenset({"table", "caption", "tr", *_ROW_GROUPS, *_CELLS})
_EMPTY = "area base br col embed hr img input link meta param source track wbr"
_VOID = frozenset(_EMPTY.split())
#: Their attributes are read anew each time: they differ from mail to mail.
_WITH_ADDRESS = frozenset({"a", "area", "img"})
_BUTTONS = frozenset({"button", "reset", "submit"})
_NEVER_SHOWN = frozenset({"template", "datalist"})

_CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_BLANK_LINES = re.compile(r"\n{3,}")
#: Around an address, and within it, the URL standard ignores these. Others would end the address for its reader.
_IGNORED_AROUND = "".join(map(chr, range(0x21)))
_IGNORED_WITHIN = re.compile("[\t\n\r]")
_UNSAFE = re.compile("[\\s<>\x00-\x1f\x7f\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff\ud800-\udfff]")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
#: Links that lead nowhere from a text, and those within a page or relative to one.
_SCHEMES_OF_PAGES = frozenset({"about", "blob", "cid", "data", "javascript", "vbscript"})
_WITHIN_PAGES = re.compile(r"[#?.]|/(?!/)")
_PHONE_NUMBER = re.compile(r"[\d+().\-/]+")

_Undo = list[tuple[Callable[..., None], Any]]


def text_from_html(html: str) -> str:
    """Make readable plain text of a mail's HTML.

    Links keep their address as it stands in the HTML, in angle brackets (RFC 3986, appendix C), unless their label is
    that address. Cells of a table with data stand in columns, items of a list behind a hyphen or number, quotations
    behind ``>``; an image is shown by its ``alt``. What a mail program does not show is left out: styles, scripts, the
    title, content for Outlook alone, and elements that attributes or the mail's own style sheets hide, such as a
    preheader. What comes after the first million characters is left out, too.

    Never raises: all text is HTML to a mail program.
    """
    found = tokens(html[:_MAX_HTML_LENGTH])
    sheet = StyleSheet(
        (attributes_of(attributes).get("media", ""), content)
        for _, raw, attributes, content, *_ in found
        if raw and raw.lower() == "style"
    )
    renderer = _Renderer(sheet)
    for text, _, _, _, end, name, attributes in found:
        if text:
            renderer.add_text(text)
        if name:
            if end:
                renderer.end(name.lower())
            else:
                renderer.begin(name.lower(), attributes)
    text = _CONTROL_CHARACTERS.sub("", "\n".join(renderer.finish()))
    return _BLANK_LINES.sub("\n\n", text).strip("\n")


class _Link:
    """A link whose label is being read."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.label: list[str] = []
        self.has_content = False


class _OpenTable:
    """A table that is being read, with the heights of the stack at which it, its row and its cell began."""

    def __init__(self, height: int) -> None:
        self.table = Table()
        self.height = height
        self.row: int | None = None
        self.cell: int | None = None


class _Renderer:
    """Reads tags and text in their order, keeping the elements that are open."""

    def __init__(self, sheet: StyleSheet) -> None:
        self._sheet = sheet
        self._flow = Flow()
        #: Name and look of each open element, and what ends with it.
        self._stack: list[tuple[str, Look, _Undo | None]] = []
        #: How many elements of each name are open in the cell, or outside of all tables: an end tag reaches no further.
        self._open: dict[str, int] = {}
        self._tables: list[_OpenTable] = []
        #: The number of the next item, for each list around; None without numbers.
        self._lists: list[int | None] = []
        self._link: _Link | None = None
        #: A link that ended with an element around it before it had a label: it goes on with the next text.
        self._interrupted: _Link | None = None
        self._after_link = False
        # As inherited from the elements around.
        self._hidden = False
        self._no_font = False
        self._white_space = ""
        self._begins_pre = False

    def add_text(self, source: str) -> None:
        if self._hidden or self._no_font:
            return
        if source.isspace() and not (self._white_space or self._link):
            self._flow.add_space()
            return
        text = text_of(source)
        if self._interrupted and not text.isspace():
            self._resume_link(self._interrupted)
        self._after_link = False
        if self._white_space:
            if self._begins_pre:
                text = text.removeprefix("\r").removeprefix("\n")
            added = self._flow.add_lines(text) if self._white_space == "pre" else self._add_each_line(text)
        else:
            added = self._flow.add(text)
        self._begins_pre = False
        if self._link:
            # A non-breaking space is content: the link may be a button that is drawn by its background.
            self._link.has_content = self._link.has_content or bool(added) or "\xa0" in text
            self._link.label.append(added)

    def begin(self, name: str, tag: str) -> None:
        """Begin an element with this name and the source of its attributes."""
        self._begins_pre = False
        if name in _OF_TABLES and not self._make_place_in_table(name):
            self._flow.separate(1)
            return
        if name in _CLOSING_PARAGRAPH:
            self._end_before(name)
        elif name == "a":
            self._end_link_before_another()
        if not tag:
            attributes, its_look = _NO_ATTRIBUTES
        elif name in _WITH_ADDRESS or len(tag) > _MAX_KEPT_TAG:
            attributes, its_look = _read(tag)
        else:
            attributes, its_look = _read_once(tag)
        effect = self._sheet.effect(name, its_look, self._stack, no_font=self._no_font)
        hidden = effect.hidden or "hidden" in attributes or name in _NEVER_SHOWN
        if name in _VOID:
            if not (hidden or self._hidden):
                self._add_void(name, attributes, effect)
            return
        undo: _Undo | None = None
        if hidden and not self._hidden:
            self._hidden = True
            undo = [(self._show, None)]
        if not self._hidden:
            margin = _MARGINS.get(name) or effect.block
            if margin:
                self._flow.separate(1 if self._lists and name in ("ul", "ol") else int(margin))
            if effect is not NO_EFFECT and effect != NO_EFFECT:
                undo = self._inherit(effect, margin if name not in _MARGINS else 0)
        begin = _BEGIN.get(name)
        if begin:
            undo = [*(undo or ()), *begin(self, name, attributes)]
        self._stack.append((name, its_look, undo))
        if name not in _OF_TABLES:
            self._open[name] = self._open.get(name, 0) + 1

    def end(self, name: str) -> None:
        """End the innermost open element with this name, and those within it that have no end tag."""
        self._begins_pre = False
        if name in _OF_TABLES:
            self._end_in_table(name)
        elif self._open.get(name):
            self._end_open(name)
            self._end_interrupted(name)
        elif name == "br":
            self.begin("br", "")
        elif name == "p" and not self._hidden:
            self._flow.separate(2)
        else:
            self._end_interrupted(name)

    def finish(self) -> list[str]:
        """End all elements. Returns the lines."""
        self._end_to(0)
        return self._flow.end()

    # What is open

    def _end_to(self, height: int) -> None:
        """End the elements that began at this height of the stack or above."""
        while len(self._stack) > height:
            self._end_last()

    def _end_open(self, name: str) -> None:
        while self._end_last() != name:
            pass

    def _end_last(self) -> str:
        name, _, undo = self._stack.pop()
        if name not in _OF_TABLES:
            self._open[name] -= 1
        margin = 0 if self._hidden else _MARGINS.get(name, 0)
        if undo:
            for action, argument in reversed(undo):
                action(argument)
        if margin:
            self._flow.separate(1 if self._lists and name in ("ul", "ol") else margin)
        return name

    def _end_before(self, name: str) -> None:
        """End what cannot go on around an element of this name."""
        if name == "li" and self._open.get("li"):
            self._end_open("li")
        elif name in ("dt", "dd"):
            for other in ("dt", "dd"):
                if self._open.get(other):
                    self._end_open(other)
        elif self._open.get("p"):
            self._end_open("p")

    def _make_place_in_table(self, name: str) -> bool:
        """End what cannot go on around a part of a table. Returns whether the part can stand here."""
        if name == "table":
            if self._open.get("p"):
                self._end_open("p")
            return len(self._tables) < _MAX_TABLES
        if not self._tables:
            return False
        table = self._tables[-1]
        if name in _CELLS and table.row is not None:
            self._end_to(table.row + 1)
        else:
            self._end_to(table.height + 1)
        return True

    def _end_in_table(self, name: str) -> None:
        if not self._tables:
            return
        table = self._tables[-1]
        if name == "table":
            self._end_to(table.height)
        elif name in _CELLS or name == "caption":
            if table.cell is not None:
                self._end_to(table.cell)
        elif name == "tr":
            if table.row is not None:
                self._end_to(table.row)
        else:
            self._end_to(table.height + 1)

    # What is inherited

    def _inherit(self, effect: Effect, margin: int) -> _Undo:
        undo: _Undo = [(self._restore, (self._no_font, self._white_space))]
        if margin:
            undo.append((self._flow.separate, margin))
        if effect.no_font is not None:
            self._no_font = effect.no_font
        if effect.white_space is not None:
            self._white_space = effect.white_space
        return undo

    def _restore(self, inherited: tuple[bool, str]) -> None:
        self._no_font, self._white_space = inherited

    def _show(self, _: None) -> None:
        self._hidden = False

    # Elements

    def _begin_link(self, name: str, attributes: dict[str, str]) -> _Undo:
        address = _address(attributes.get("href", ""))
        if not address or self._hidden:
            return []
        outer, self._link = self._link, _Link(address)
        return [(self._end_link, outer)]

    def _end_link(self, outer: _Link | None) -> None:
        link, self._link = self._link, outer
        if link and not link.has_content:
            self._interrupted = link
        elif link and not _is_label("".join(link.label), link.address):
            self._flow.add_address(_shown(link.address))

    def _end_interrupted(self, name: str) -> None:
        if name == "a":
            self._interrupted = None
            self._after_link = True

    def _end_link_before_another(self) -> None:
        if self._open.get("a"):
            self._end_open("a")
            self._after_link = True
        self._interrupted = None
        if self._after_link:
            self._flow.keep_apart()

    def _resume_link(self, link: _Link) -> None:
        """Begin a link anew, as HTML has it for one that was not ended by an end tag."""
        self._interrupted = None
        self._stack.append(("a", NO_LOOK, [(self._end_link, self._link)]))
        self._open["a"] = self._open.get("a", 0) + 1
        self._link = link

    def _begin_table(self, name: str, attributes: dict[str, str]) -> _Undo:
        self._tables.append(_OpenTable(len(self._stack)))
        scope, self._open = self._open, {}
        return [(self._end_table, (scope, self._lists))]

    def _end_table(self, around: tuple[dict[str, int], list[int | None]]) -> None:
        self._open, self._lists = around
        self._tables.pop().table.add_to(self._flow)

    def _begin_row(self, name: str, attributes: dict[str, str]) -> _Undo:
        table = self._tables[-1]
        table.row = len(self._stack)
        table.table.begin_row()
        return [(self._end_row, table)]

    def _end_row(self, table: _OpenTable) -> None:
        table.row = None

    def _begin_cell(self, name: str, attributes: dict[str, str]) -> _Undo:
        table = self._tables[-1]
        table.cell = len(self._stack)
        around = (self._flow, self._open, self._lists)
        self._open, self._lists = {}, []
        if name != "caption":
            self._flow = Flow()
            if name == "th" and not self._hidden:
                table.table.has_header = True
        return [
            (self._end_cell, (table, name, min(max(_number(attributes.get("colspan", ""), 1), 1), _MAX_SPAN), around))
        ]

    def _end_cell(self, saved: tuple[_OpenTable, str, int, tuple[Flow, dict[str, int], list[int | None]]]) -> None:
        table, name, span, around = saved
        lines = self._flow.end()
        self._flow, self._open, self._lists = around
        table.cell = None
        if name != "caption" and not self._hidden:
            table.table.add_cell(lines, span)

    def _begin_list(self, name: str, attributes: dict[str, str]) -> _Undo:
        items, self._open["li"] = self._open.get("li", 0), 0
        self._lists.append(_number(attributes.get("start", ""), 1) if name == "ol" else None)
        return [(self._end_list, items)]

    def _end_list(self, items: int) -> None:
        self._lists.pop()
        self._open["li"] = items

    def _begin_item(self, name: str, attributes: dict[str, str]) -> _Undo:
        marker = "- "
        if self._lists and self._lists[-1] is not None:
            number = _number(attributes.get("value", ""), self._lists[-1])
            marker, self._lists[-1] = f"{number}. ", number + 1
        if self._hidden:
            return []
        flow, prefix = self._flow, self._flow.prefix
        flow.mark(prefix + marker)
        if len(prefix) < _MAX_PREFIX:
            flow.prefix += " " * len(marker)
        return [(self._end_item, (flow, prefix))]

    def _end_item(self, saved: tuple[Flow, str]) -> None:
        flow, prefix = saved
        flow.prefix = prefix
        flow.mark(None)

    def _begin_quotation(self, name: str, attributes: dict[str, str]) -> _Undo:
        flow, prefix = self._flow, self._flow.prefix
        if len(prefix) < _MAX_PREFIX:
            flow.prefix += "> "
        return [(self._end_quotation, (flow, prefix))]

    def _end_quotation(self, saved: tuple[Flow, str]) -> None:
        flow, prefix = saved
        flow.prefix = prefix

    def _begin_preformatted(self, name: str, attributes: dict[str, str]) -> _Undo:
        saved, self._white_space, self._begins_pre = (self._no_font, self._white_space), "pre", True
        return [(self._restore, saved)]

    def _add_void(self, name: str, attributes: dict[str, str], effect: Effect) -> None:
        if name == "br":
            self._flow.break_line()
        elif name == "hr":
            self._flow.add_block(["-" * 10], 1)
        elif name == "img":
            if self._interrupted:
                self._resume_link(self._interrupted)
            if _number(attributes.get("width", ""), 2) < 2 and _number(attributes.get("height", ""), 2) < 2:
                return
            if effect.block:
                self._flow.separate(1)
            alt = self._flow.add_image(attributes.get("alt", ""))
            if effect.block:
                self._flow.separate(1)
            if self._link:
                self._link.has_content = True
                self._link.label.append(alt)
        elif name == "input" and attributes.get("type", "").lower() in _BUTTONS:
            self._flow.add(attributes.get("value", ""))
        elif name == "area":
            address = _address(attributes.get("href", ""))
            alt = self._flow.add_image(attributes.get("alt", ""))
            if address and not _is_label(alt, address):
                self._flow.add_address(_shown(address))

    def _add_each_line(self, text: str) -> str:
        added = []
        for number, line in enumerate(re.split(r"\r\n|\r|\n", text)):
            if number:
                self._flow.break_line()
            added.append(self._flow.add(line))
        return " ".join(added)


_BEGIN: dict[str, Callable[[_Renderer, str, dict[str, str]], _Undo]] = {
    "a": _Renderer._begin_link,
    "table": _Renderer._begin_table,
    "tr": _Renderer._begin_row,
    **dict.fromkeys(("td", "th", "caption"), _Renderer._begin_cell),
    **dict.fromkeys(("ul", "ol"), _Renderer._begin_list),
    "li": _Renderer._begin_item,
    "blockquote": _Renderer._begin_quotation,
    **dict.fromkeys(("pre", "textarea"), _Renderer._begin_preformatted),
}


def _read(tag: str) -> tuple[dict[str, str], Look]:
    """The attributes of a tag, and how they make its element look."""
    attributes = attributes_of(tag)
    get = attributes.get
    return attributes, look(get("style", ""), get("class", ""), get("id", ""))


_NO_ATTRIBUTES: tuple[dict[str, str], Look] = ({}, NO_LOOK)
_read_once = lru_cache(maxsize=2048)(_read)


def _number(value: str, default: int) -> int:
    digits = value.strip().removesuffix("px")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 7 else default


def _address(href: str) -> str:
    """The address of a link as a browser reads it; empty for one that leads nowhere from a text."""
    address = _IGNORED_WITHIN.sub("", href.strip(_IGNORED_AROUND))
    scheme = _SCHEME.match(address)
    if scheme:
        if scheme[1].lower() in _SCHEMES_OF_PAGES or not address[scheme.end() :].strip("/"):
            return ""
    elif _WITHIN_PAGES.match(address):
        return ""
    return _UNSAFE.sub(lambda character: quote(character[0], errors="replace"), address)


def _shown(address: str) -> str:
    """A link's address as it is written beside its label: for one to a mailbox, that alone."""
    mailbox = address[len("mailto:") :] if address[:7].lower() == "mailto:" else ""
    return mailbox if mailbox and "?" not in mailbox else address


def _is_label(label: str, address: str) -> bool:
    """Whether the label of a link is its address, so that it need not be repeated."""
    label = "".join(label.split())
    if label in (address, _shown(address)):
        return True
    scheme, _, rest = address.partition(":")
    scheme = scheme.lower()
    if scheme == "tel":
        return bool(_PHONE_NUMBER.fullmatch(label)) and _digits(label) == _digits(unquote(rest))
    if scheme in ("http", "https"):
        # Without the scheme and the last slash, an address is typed and read all the same.
        same = _host_in_lower_case(rest.removeprefix("//"))
        given, _, shown = label.rpartition("://")
        return given.lower() in ("", scheme) and _host_in_lower_case(shown) == same
    return False


def _digits(number: str) -> str:
    return "".join(character for character in number if character in "+0123456789")


def _host_in_lower_case(address: str) -> str:
    host, slash, path = address.partition("/")
    return (host.lower() + slash + path).removesuffix("/")
