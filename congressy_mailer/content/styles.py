"""What CSS does to the text of a mail: which elements it hides, begins on a line of their own, or keeps the spaces of.

Media queries are left out of account: the text is what a wide screen shows. So are selectors that depend on more than
elements, classes, ids and what encloses them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, count
from typing import NamedTuple

_COMMENT = re.compile(r"/\*(?:[^*]++|\*(?!/))*+(?:\*/|\Z)|<!--|-->")
_BLOCK = re.compile(r"([^{};]*+)([{};]|\Z)")
_SCREEN = re.compile(r"(?:@media\b)?\s*(?:(?:only\s+)?(?:all|screen))?\s*", re.IGNORECASE)
_COMPOUND = re.compile(r"(\*|[a-z][\w-]*+)?+((?:[.#][\w-]++)*+)", re.IGNORECASE)
_NO_LENGTH = re.compile(r"[+-]?0*\.?0*(?:[a-z]+|%)?", re.IGNORECASE)
_RELATIVE_SIZE = re.compile(r"[\d.+]+(?:em|%)|inherit|unset|larger|smaller|revert|revert-layer")
_HEIGHTS = ("max-height", "height")
_LINE_OF_ITS_OWN = frozenset({"block", "table", "flex", "grid", "list-item", "flow-root"})
_WHITE_SPACE = {"normal": "", "nowrap": "", "pre": "pre", "pre-wrap": "pre", "break-spaces": "pre", "pre-line": "line"}
_PROPERTIES = frozenset(
    {*_HEIGHTS, "display", "visibility", "opacity", "overflow", "overflow-y", "white-space", "font-size", "font"}
)

#: Bounds that keep hostile style sheets from costing more than their length: characters read, rules looked at for one
#: class, id or element, and steps from elements to what encloses them in one mail.
_MAX_LENGTH, _MAX_RULES, _MAX_STEPS = 200_000, 50, 200_000
#: Elements that a selector names, at most; there are none in mails with more than five.
_MAX_PARTS = 20
#: Effects that are kept for the next mail with the same style sheet.
_MAX_KEPT = 2_000

#: Value of each property, and whether it is ``!important``.
Declarations = dict[str, tuple[str, bool]]


class Effect(NamedTuple):
    """What the style of an element does to its text."""

    hidden: bool = False
    #: Whether it has a font size of its own, and that is zero: None where it keeps the size around it.
    no_font: bool | None = None
    #: "pre" keeps spaces and lines, "line" keeps lines, "" collapses both: None as around it.
    white_space: str | None = None
    block: bool = False


NO_EFFECT = Effect()


class Look:
    """What decides how an element looks: its own style, and what selectors find it by."""

    __slots__ = ("declarations", "effect", "keys")

    def __init__(self, declarations: Declarations, keys: tuple[str, ...]) -> None:
        self.declarations = declarations
        self.keys = keys
        #: Of its own style alone.
        self.effect = _effect(declarations) if declarations else NO_EFFECT


NO_LOOK = Look({}, ())


class _Rule(NamedTuple):
    specificity: tuple[int, int, int]
    order: int
    #: From the element outwards: what it must have, and whether that encloses the one before directly.
    compounds: tuple[tuple[frozenset[str], bool], ...]
    declarations: Declarations


@lru_cache(maxsize=2048)
def look(style: str, classes: str, identity: str) -> Look:
    """The look of an element with these attributes. A mail has few, and each mail of a template has the same."""
    keys = [f".{name}" for name in classes.split()]
    if identity:
        keys.append(f"#{identity}")
    declarations = _declarations(style.split(";")) if ":" in style else {}
    return Look(declarations, tuple(keys)) if declarations or keys else NO_LOOK


class StyleSheet:
    """The style blocks of one mail."""

    def __init__(self, blocks: Iterable[tuple[str, str]]) -> None:
        """Args: blocks: the attribute ``media`` and the content of each ``<style>``."""
        self._rules = _rules_of(tuple(css[:_MAX_LENGTH] for media, css in blocks if _SCREEN.fullmatch(media)))
        self._steps_left = _MAX_STEPS

    def effect(self, name: str, look: Look, ancestors: Sequence[tuple[str, Look, object]], *, no_font: bool) -> Effect:
        """What the style of an element does to its text.

        Args:
            name: name of the element.
            look: its attributes that matter here.
            ancestors: name and look of the elements around it, outermost first; the rest is not looked at.
            no_font: whether the font size around it is zero.
        """
        known = self._rules.effects[no_font]
        effect = known.get((name, look))
        if effect is None:
            effect, depends = self._cascade(name, look, ancestors, no_font=no_font)
            if not depends:
                if len(known) >= _MAX_KEPT:
                    known.clear()
                known[name, look] = effect
        return effect

    def _cascade(
        self, name: str, look: Look, ancestors: Sequence[tuple[str, Look, object]], *, no_font: bool
    ) -> tuple[Effect, bool]:
        """The effect of all rules that match, and whether it depends on the elements around this one."""
        keys = (name, "*", *look.keys)
        by_key = self._rules.by_key
        relevant = by_key.keys() if no_font else self._rules.decisive
        if relevant.isdisjoint(keys):
            return look.effect, False
        rules = [rule for key in keys for rule in by_key.get(key, ()) if rule.compounds[0][0].issubset(keys)]
        matching = [rule for rule in rules if self._is_within(rule, ancestors)]
        matching.sort(key=lambda rule: (rule.specificity, rule.order))
        declarations = _merge([*(rule.declarations for rule in matching), look.declarations])
        return _effect(declarations), any(len(rule.compounds) > 1 for rule in rules)

    def _is_within(self, rule: _Rule, ancestors: Sequence[tuple[str, Look, object]]) -> bool:
        position = len(ancestors)
        for names, directly in rule.compounds[1:]:
            while True:
                position -= 1
                self._steps_left -= 1
                if position < 0 or self._steps_left < 0:
                    return False
                name, look, _ = ancestors[position]
                if names.issubset((name, "*", *look.keys)):
                    break
                if directly:
                    return False
        return True


class _Rules:
    """The rules of some style blocks, found by what their selectors ask of an element."""

    def __init__(self) -> None:
        self.by_key: dict[str, list[_Rule]] = {}
        #: The keys of rules that alone have an effect. A visible font size has one within none only.
        self.decisive: set[str] = set()
        #: The effects of elements that depend on no others, by name and look, within a visible font size and none.
        self.effects: tuple[dict[tuple[str, Look], Effect], dict[tuple[str, Look], Effect]] = ({}, {})

    def add(self, rule: _Rule) -> None:
        key = max(rule.compounds[0][0], key=_rarity)
        rules = self.by_key.setdefault(key, [])
        if len(rules) < _MAX_RULES:
            rules.append(rule)
            if _effect(rule.declarations) not in (NO_EFFECT, _SIZED):
                self.decisive.add(key)


@lru_cache(maxsize=32)
def _rules_of(blocks: tuple[str, ...]) -> _Rules:
    """The rules of these blocks. All mails of a template have the same."""
    rules, order = _Rules(), count()
    for css in blocks:
        for selectors, body in _blocks(_COMMENT.sub(" ", css)):
            declarations = _declarations(body)
            for selector in selectors.split(",") if declarations else ():
                compounds = _compounds(selector)
                if compounds:
                    rules.add(_Rule(_specificity(compounds), next(order), compounds, declarations))
    return rules


def _rarity(name: str) -> int:
    """How few elements have this: the name is an id's, a class's, an element's, or stands for any element."""
    return {"#": 3, ".": 2, "*": 0}.get(name[0], 1)


def _blocks(css: str) -> Iterator[tuple[str, list[str]]]:
    """Selectors and declarations of each rule that applies to a wide screen."""
    #: How deep the block of an at-rule that does not apply is nested.
    skipped = 0
    selectors = ""
    body: list[str] = []
    for match in _BLOCK.finditer(css):
        text, end = match[1].strip(), match[2]
        if skipped:
            skipped += (end == "{") - (end == "}")
        elif end == "{":
            if not text.startswith("@"):
                selectors, body = text, []
            elif not (text[:6].lower() == "@media" and _SCREEN.fullmatch(text)):
                skipped = 1
        else:
            if text and selectors:
                body.append(text)
            if end != ";" and selectors:
                yield selectors, body
                selectors = ""


def _compounds(selector: str) -> tuple[tuple[frozenset[str], bool], ...]:
    """What a selector asks for, from the element outwards; nothing for one that is not understood."""
    found: list[tuple[frozenset[str], bool]] = []
    directly = False
    parts = selector.replace(">", " > ").split()
    for part in reversed(parts) if len(parts) <= _MAX_PARTS else ():
        if part == ">":
            directly = True
            continue
        match = _COMPOUND.fullmatch(part)
        if not match:
            return ()
        names = re.findall(r"[.#][\w-]+", match[2])
        element = (match[1] or "").lower()
        found.append((frozenset([*names, element or "*"]), directly))
        directly = False
    return tuple(found)


def _specificity(compounds: tuple[tuple[frozenset[str], bool], ...]) -> tuple[int, int, int]:
    kinds = "".join(name[0] for names, _ in compounds for name in names)
    return kinds.count("#"), kinds.count("."), sum(kind not in "#.*" for kind in kinds)


def _declarations(body: Iterable[str]) -> Declarations:
    found: Declarations = {}
    for declaration in body:
        name, _, value = declaration.partition(":")
        name = name.strip().lower()
        if name not in _PROPERTIES:
            continue
        value, mark, _ = value.lower().partition("!")
        # The last one counts, but for one that is not important behind one that is.
        if mark or not found.get(name, ("", False))[1]:
            found[name] = (value.strip(), bool(mark))
    return found


def _merge(declarations: list[Declarations]) -> Declarations:
    """The declarations that win, of some in ascending order."""
    merged: Declarations = {}
    for name, (value, important) in chain.from_iterable(one.items() for one in declarations):
        if important or not merged.get(name, ("", False))[1]:
            merged[name] = (value, important)
    return merged


def _effect(declarations: Declarations) -> Effect:
    values = {name: value for name, (value, _) in declarations.items()}
    display = values.get("display", "")
    overflow = values.get("overflow-y") or values.get("overflow", "")
    hidden = (
        display == "none"
        or values.get("visibility") in ("hidden", "collapse")
        or _is_zero(values.get("opacity"))
        or (overflow.startswith(("hidden", "clip")) and any(_is_zero(values.get(height)) for height in _HEIGHTS))
    )
    return Effect(
        hidden,
        _no_font(values.get("font-size") or values.get("font", "")),
        _WHITE_SPACE.get(values.get("white-space", "")),
        display in _LINE_OF_ITS_OWN,
    )


def _is_zero(value: str | None) -> bool:
    return value is not None and "0" in value and bool(_NO_LENGTH.fullmatch(value))


def _no_font(value: str) -> bool | None:
    if not value:
        return None
    sizes = [part.partition("/")[0] for part in value.split()]
    if any(_is_zero(size) for size in sizes):
        return True
    return None if any(_RELATIVE_SIZE.fullmatch(size) for size in sizes) else False


#: A visible font size changes nothing but inside of one that is zero.
_SIZED = Effect(no_font=False)
