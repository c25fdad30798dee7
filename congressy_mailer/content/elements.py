"""What each element of HTML does to the text made of it: links, tables, lists, quotations, images and buttons."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .links import address_of, is_label, shown_address
from .open_elements import Link, OpenElements, OpenTable, Undo
from .styles import NO_LOOK, Effect
from .text_layout import Flow

#: Characters up to which a line is indented for lists and quotations: each level costs every line within it once more.
_MAX_PREFIX = 40
_MAX_SPAN = 20

#: What is read outside of a cell: its flow, the elements that are open, and the lists.
_Around = tuple[Flow, dict[str, int], list[int | None]]

_BUTTONS = frozenset({"button", "reset", "submit"})


def _begin_link(elements: OpenElements, name: str, attributes: dict[str, str]) -> Undo:
    address = address_of(attributes.get("href", ""))
    if not address or elements.hidden:
        return []
    outer, elements.link = elements.link, Link(address)
    return [partial(_end_link, elements, outer)]


def _end_link(elements: OpenElements, outer: Link | None) -> None:
    link, elements.link = elements.link, outer
    if link and not link.has_content:
        elements.interrupted = link
    elif link and not is_label("".join(link.label), link.address):
        elements.flow.add_address(shown_address(link.address))


def end_interrupted(elements: OpenElements, name: str) -> None:
    """At an end tag: a link does not go on behind its own.

    Args:
        elements: that are open.
        name: of the end tag.
    """
    if name == "a":
        elements.interrupted = None
        elements.after_link = True


def end_link_before_another(elements: OpenElements) -> None:
    """At the beginning of a link: the one before it ends, and their labels do not run together."""
    if elements.open.get("a"):
        elements.end_open("a")
        elements.after_link = True
    elements.interrupted = None
    if elements.after_link:
        elements.flow.keep_apart()


def resume_link(elements: OpenElements, link: Link) -> None:
    """Begin a link anew, as HTML has it for one that was not ended by an end tag."""
    elements.interrupted = None
    elements.stack.append(("a", NO_LOOK, [partial(_end_link, elements, elements.link)]))
    elements.open["a"] = elements.open.get("a", 0) + 1
    elements.link = link


def _begin_table(elements: OpenElements, name: str, attributes: dict[str, str]) -> Undo:
    elements.tables.append(OpenTable(len(elements.stack)))
    scope, elements.open = elements.open, {}
    return [partial(_end_table, elements, scope, elements.lists)]


def _end_table(elements: OpenElements, scope: dict[str, int], lists: list[int | None]) -> None:
    elements.open, elements.lists = scope, lists
    elements.tables.pop().table.add_to(elements.flow)


def _begin_row(elements: OpenElements, name: str, attributes: dict[str, str]) -> Undo:
    table = elements.tables[-1]
    table.row = len(elements.stack)
    table.table.begin_row()
    return [partial(_end_row, table)]


def _end_row(table: OpenTable) -> None:
    table.row = None


def _begin_cell(elements: OpenElements, name: str, attributes: dict[str, str]) -> Undo:
    table = elements.tables[-1]
    table.cell = len(elements.stack)
    around = (elements.flow, elements.open, elements.lists)
    elements.open, elements.lists = {}, []
    if name != "caption":
        elements.flow = Flow()
        if name == "th" and not elements.hidden:
            table.table.has_header = True
    span = min(max(_number(attributes.get("colspan", ""), 1), 1), _MAX_SPAN)
    return [partial(_end_cell, elements, table, name, span, around)]


def _end_cell(elements: OpenElements, table: OpenTable, name: str, span: int, around: _Around) -> None:
    lines = elements.flow.end()
    elements.flow, elements.open, elements.lists = around
    table.cell = None
    if name != "caption" and not elements.hidden:
        table.table.add_cell(lines, span)


def _begin_list(elements: OpenElements, name: str, attributes: dict[str, str]) -> Undo:
    items, elements.open["li"] = elements.open.get("li", 0), 0
    elements.lists.append(_number(attributes.get("start", ""), 1) if name == "ol" else None)
    return [partial(_end_list, elements, items)]


def _end_list(elements: OpenElements, items: int) -> None:
    elements.lists.pop()
    elements.open["li"] = items


def _begin_item(elements: OpenElements, name: str, attributes: dict[str, str]) -> Undo:
    marker = "- "
    if elements.lists and elements.lists[-1] is not None:
        number = _number(attributes.get("value", ""), elements.lists[-1])
        marker, elements.lists[-1] = f"{number}. ", number + 1
    if elements.hidden:
        return []
    flow, prefix = elements.flow, elements.flow.prefix
    flow.mark(prefix + marker)
    if len(prefix) < _MAX_PREFIX:
        flow.prefix += " " * len(marker)
    return [partial(_end_item, flow, prefix)]


def _end_item(flow: Flow, prefix: str) -> None:
    flow.prefix = prefix
    flow.mark(None)


def _begin_quotation(elements: OpenElements, name: str, attributes: dict[str, str]) -> Undo:
    flow, prefix = elements.flow, elements.flow.prefix
    if len(prefix) < _MAX_PREFIX:
        flow.prefix += "> "
    return [partial(_end_quotation, flow, prefix)]


def _end_quotation(flow: Flow, prefix: str) -> None:
    flow.prefix = prefix


def _begin_preformatted(elements: OpenElements, name: str, attributes: dict[str, str]) -> Undo:
    restore = elements.restoring()
    elements.white_space, elements.begins_preformatted = "pre", True
    return [restore]


def add_void(elements: OpenElements, name: str, attributes: dict[str, str], effect: Effect) -> None:
    """Add an element that has no content.

    Args:
        elements: that are open.
        name: of the element.
        attributes: of its tag.
        effect: of how it looks.
    """
    if name == "br":
        elements.flow.break_line()
    elif name == "hr":
        elements.flow.add_block(["-" * 10], 1)
    elif name == "img":
        if elements.interrupted:
            resume_link(elements, elements.interrupted)
        if _number(attributes.get("width", ""), 2) < 2 and _number(attributes.get("height", ""), 2) < 2:
            return
        if effect.block:
            elements.flow.separate(1)
        alt = elements.flow.add_image(attributes.get("alt", ""))
        if effect.block:
            elements.flow.separate(1)
        if elements.link:
            elements.link.has_content = True
            elements.link.label.append(alt)
    elif name == "input" and attributes.get("type", "").lower() in _BUTTONS:
        elements.flow.add(attributes.get("value", ""))
    elif name == "area":
        address = address_of(attributes.get("href", ""))
        alt = elements.flow.add_image(attributes.get("alt", ""))
        if address and not is_label(alt, address):
            elements.flow.add_address(shown_address(address))


def _number(value: str, default: int) -> int:
    digits = value.strip().removesuffix("px")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 7 else default


#: What happens at the beginning of elements, by name; it returns what ends with them.
BEGIN: dict[str, Callable[[OpenElements, str, dict[str, str]], Undo]] = {
    "a": _begin_link,
    "table": _begin_table,
    "tr": _begin_row,
    **dict.fromkeys(("td", "th", "caption"), _begin_cell),
    **dict.fromkeys(("ul", "ol"), _begin_list),
    "li": _begin_item,
    "blockquote": _begin_quotation,
    **dict.fromkeys(("pre", "textarea"), _begin_preformatted),
}
