"""Sphinx extension: the drawing of the package's rooms, and the list of what each is for, made from the code.

Directives, both without content: ``mailer-drawing`` and ``mailer-rooms``. The layers are those that import-linter
holds (``pyproject.toml``), the arrows are the imports that the modules make, the purpose of a room is the first
sentence of its docstring. The functions need no Sphinx application and import nothing of the package.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import NamedTuple

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

_REPOSITORY = Path(__file__).parents[2]
_PACKAGE = _REPOSITORY / "congressy_mailer"

_WIDTH, _FLOOR, _BOX, _GAP = 900, 74, 30, 12
_LETTER = 8.2


class Room(NamedTuple):
    """A package or module directly below the root."""

    name: str
    #: First sentence of its docstring; empty where Django finds it by its place.
    purpose: str


def floors() -> list[list[Room]]:
    """The rooms by layer, from the top: a room imports only from those below it."""
    configuration = tomllib.loads((_REPOSITORY / "pyproject.toml").read_text())
    contracts = configuration["tool"]["importlinter"]["contracts"]
    layers: list[str] = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [[Room(name, _purpose(name)) for name in layer.split(" | ")] for layer in layers]


def _files(room: str) -> list[Path]:
    folder = _PACKAGE / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [_PACKAGE / f"{room}.py"]


def _purpose(room: str) -> str:
    folder = _PACKAGE / room
    text = ast.get_docstring(ast.parse((folder / "__init__.py" if folder.is_dir() else _files(room)[0]).read_text()))
    paragraph = " ".join((text or "").partition("\n\n")[0].split())
    return re.sub(r":\w+:`~?\.?([^`]+)`", r"``\1``", re.split(r"(?<=\.)\s", paragraph, maxsplit=1)[0])


def imports() -> dict[str, set[str]]:
    """Which rooms each room imports from."""
    names = {room.name for floor in floors() for room in floor}
    return {
        name: {other for file in _files(name) for other in _imported(file)} & names - {name} for name in sorted(names)
    }


def _imported(file: Path) -> set[str]:
    """The first name below the package's root of whatever a file imports, at any place in it."""
    package = [_PACKAGE.name, *file.relative_to(_PACKAGE).parent.parts]
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = [*base, *(node.module.split(".") if node.module else [])]
            targets = [[*module, alias.name] for alias in node.names]
        elif isinstance(node, ast.Import):
            targets = [alias.name.split(".") for alias in node.names]
        else:
            continue
        found |= {target[1] for target in targets if target[0] == _PACKAGE.name and len(target) > 1}
    return found


def arrows() -> set[tuple[str, str]]:
    """The imports without those that follow from others: what ``a → b → c`` implies is not drawn."""
    direct = imports()
    below = {name: _reachable(direct, name) for name in direct}
    return {
        (name, other)
        for name, others in direct.items()
        for other in others
        if not any(other in below[between] for between in others if between != other)
    }


def _reachable(direct: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    todo = list(direct[start])
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += direct[name]
    return found


def drawing() -> str:
    """The layers as an SVG picture whose colours are those of the page around it."""
    layers = floors()
    places = {
        name: place for row, floor in enumerate(layers) for name, place in _row([room.name for room in floor], row)
    }
    parts = [_arrow(places[upper], places[lower]) for upper, lower in sorted(arrows())]
    purposes = {room.name: room.purpose for floor in layers for room in floor}
    for name, (left, top, width) in places.items():
        parts.append(
            f"<g><title>{escape(purposes[name] or name)}</title>"
            f'<rect x="{left:.0f}" y="{top}" width="{width:.0f}" height="{_BOX}" rx="5" '
            'fill="var(--color-background-secondary, #f8f8f8)" stroke="currentColor"/>'
            f'<text x="{left + width / 2:.0f}" y="{top + 20}" text-anchor="middle">{escape(name)}</text></g>'
        )
    height = len(layers) * _FLOOR - (_FLOOR - _BOX) + 2
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-labelledby="rooms-title" '
        'style="width: 100%; height: auto; font: 14px monospace; fill: currentColor">'
        '<title id="rooms-title">The rooms of the package, in layers; the list below names each.</title>'
        f"{''.join(parts)}</svg>"
    )


def _row(names: list[str], row: int) -> Iterable[tuple[str, tuple[float, int, float]]]:
    """Each name of a layer with the left, top and width of its box."""
    widths = [len(name) * _LETTER + 24 for name in names]
    space = (_WIDTH - sum(widths)) / (len(names) + 1)
    left = space
    for name, width in zip(names, widths, strict=True):
        yield name, (left, row * _FLOOR + 1, width)
        left += width + space


def _arrow(upper: tuple[float, int, float], lower: tuple[float, int, float]) -> str:
    begin, end = upper[0] + upper[2] / 2, lower[0] + lower[2] / 2
    top, bottom = upper[1] + _BOX, lower[1]
    bend = (bottom - top) / 2
    return (
        f'<path d="M{begin:.0f} {top}C{begin:.0f} {top + bend:.0f} {end:.0f} {bottom - bend:.0f} {end:.0f} {bottom}" '
        'fill="none" stroke="currentColor" stroke-opacity="0.3"/>'
    )


def rooms_reference() -> str:
    """The rooms with their purposes, as reStructuredText, from the top layer to the bottom."""
    lines = []
    for floor in floors():
        for room in floor:
            kind = "" if (_PACKAGE / room.name).is_dir() else ".py"
            lines += [f"``{room.name}{kind}``", f"   {room.purpose or 'What Django finds by its place.'}", ""]
    return "\n".join(lines)


class _Drawing(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", drawing(), format="html")]


class _Rooms(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(rooms_reference())


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("mailer-drawing", _Drawing)
    app.add_directive("mailer-rooms", _Rooms)
    return {"parallel_read_safe": True}
