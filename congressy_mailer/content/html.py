"""HTML → the plain text that goes beside it, for mails whose template has no ``.txt``."""

from __future__ import annotations

import re
from functools import lru_cache

from .elements import BEGIN, add_void, end_interrupted, end_link_before_another, resume_link
from .markup import attributes_of, text_of, tokens
from .open_elements import CLOSING_PARAGRAPH, MARGINS, OF_TABLES, OpenElements, Undo
from .styles import NO_EFFECT, NO_LOOK, Look, StyleSheet, look

#: Characters of HTML that are read: mail programs clip a mail long before (Gmail at 102 kB).
_MAX_HTML_LENGTH = 1_000_000
#: Characters of a tag up to which what its attributes mean is kept for the next mail of the same template.
_MAX_KEPT_TAG = 1_000

_EMPTY = "area base br col embed hr img input link meta param source track wbr"
_VOID = frozenset(_EMPTY.split())
#: Their attributes are read anew each time: they differ from mail to mail.
_WITH_ADDRESS = frozenset({"a", "area", "img"})
_NEVER_SHOWN = frozenset({"template", "datalist"})

_CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_BLANK_LINES = re.compile(r"\n{3,}")


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


class _Renderer:
    """Reads tags and text in their order, keeping the elements that are open."""

    def __init__(self, sheet: StyleSheet) -> None:
        self._sheet = sheet
        self._elements = OpenElements()

    def add_text(self, source: str) -> None:
        elements = self._elements
        if elements.hidden or elements.no_font:
            return
        if source.isspace() and not (elements.white_space or elements.link):
            elements.flow.add_space()
            return
        text = text_of(source)
        if elements.interrupted and not text.isspace():
            resume_link(elements, elements.interrupted)
        elements.after_link = False
        if elements.white_space:
            if elements.begins_preformatted:
                text = text.removeprefix("\r").removeprefix("\n")
            added = elements.flow.add_lines(text) if elements.white_space == "pre" else self._add_each_line(text)
        else:
            added = elements.flow.add(text)
        elements.begins_preformatted = False
        if elements.link:
            # A non-breaking space is content: the link may be a button that is drawn by its background.
            elements.link.has_content = elements.link.has_content or bool(added) or "\xa0" in text
            elements.link.label.append(added)

    def begin(self, name: str, tag: str) -> None:
        """Begin an element with this name and the source of its attributes."""
        elements = self._elements
        elements.begins_preformatted = False
        if name in OF_TABLES and not elements.make_place_in_table(name):
            elements.flow.separate(1)
            return
        if name in CLOSING_PARAGRAPH:
            elements.end_before(name)
        elif name == "a":
            end_link_before_another(elements)
        if not tag:
            attributes, its_look = _NO_ATTRIBUTES
        elif name in _WITH_ADDRESS or len(tag) > _MAX_KEPT_TAG:
            attributes, its_look = _read(tag)
        else:
            attributes, its_look = _read_once(tag)
        effect = self._sheet.effect(name, its_look, elements.stack, no_font=elements.no_font)
        hidden = effect.hidden or "hidden" in attributes or name in _NEVER_SHOWN
        if name in _VOID:
            if not (hidden or elements.hidden):
                add_void(elements, name, attributes, effect)
            return
        undo: Undo | None = None
        if hidden and not elements.hidden:
            elements.hidden = True
            undo = [elements.show]
        if not elements.hidden:
            margin = MARGINS.get(name) or effect.block
            if margin:
                elements.flow.separate(1 if elements.lists and name in ("ul", "ol") else int(margin))
            if effect is not NO_EFFECT and effect != NO_EFFECT:
                undo = elements.inherit(effect, margin if name not in MARGINS else 0)
        begin = BEGIN.get(name)
        if begin:
            undo = [*(undo or ()), *begin(elements, name, attributes)]
        elements.push(name, its_look, undo)

    def end(self, name: str) -> None:
        """End the innermost open element with this name, and those within it that have no end tag."""
        elements = self._elements
        elements.begins_preformatted = False
        if name in OF_TABLES:
            elements.end_in_table(name)
        elif elements.open.get(name):
            elements.end_open(name)
            end_interrupted(elements, name)
        elif name == "br":
            self.begin("br", "")
        elif name == "p" and not elements.hidden:
            elements.flow.separate(2)
        else:
            end_interrupted(elements, name)

    def finish(self) -> list[str]:
        """End all elements. Returns the lines."""
        elements = self._elements
        elements.end_to(0)
        return elements.flow.end()

    def _add_each_line(self, text: str) -> str:
        elements = self._elements
        added = []
        for number, line in enumerate(re.split(r"\r\n|\r|\n", text)):
            if number:
                elements.flow.break_line()
            added.append(elements.flow.add(line))
        return " ".join(added)


def _read(tag: str) -> tuple[dict[str, str], Look]:
    """The attributes of a tag, and how they make its element look."""
    attributes = attributes_of(tag)
    get = attributes.get
    return attributes, look(get("style", ""), get("class", ""), get("id", ""))


_NO_ATTRIBUTES: tuple[dict[str, str], Look] = ({}, NO_LOOK)
_read_once = lru_cache(maxsize=2048)(_read)
