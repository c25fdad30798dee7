"""The drawing of the rooms that the documentation shows: whole, and as the layers have it."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "docs/_ext"))

import mailer_rooms  # noqa: E402

pytestmark = pytest.mark.once

LEVELS = {room.name: level for level, floor in enumerate(mailer_rooms.floors()) for room in floor}


def test_each_package_and_module_of_the_root_is_a_room() -> None:
    package = ROOT / "congressy_mailer"
    here = {path.parent.name for path in package.glob("*/__init__.py")} | {path.stem for path in package.glob("*.py")}
    assert here - {"__init__", "migrations"} == LEVELS.keys()


def test_each_room_says_what_it_is_for() -> None:
    rooms = [room for floor in mailer_rooms.floors() for room in floor]
    assert [room.name for room in rooms if not room.purpose] == ["management", "templatetags"]
    assert all(room.purpose.endswith((".", ").")) for room in rooms if room.purpose)


def test_imports_lead_downwards_and_the_drawing_keeps_every_way() -> None:
    imports, arrows = mailer_rooms.imports(), mailer_rooms.arrows()
    assert imports["delivery"] >= {"outbox", "transports", "throttling"}
    assert all(LEVELS[upper] < LEVELS[lower] for upper, lower in arrows)
    for name, others in imports.items():
        reached, todo = set(), [name]
        while todo:
            begin = todo.pop()
            new = {lower for upper, lower in arrows if upper == begin} - reached
            reached |= new
            todo += new
        assert others <= reached


def test_the_drawing_is_a_picture_with_a_name_and_all_rooms_within_it() -> None:
    picture = ElementTree.fromstring(mailer_rooms.drawing())  # noqa: S314
    assert picture.get("role") == "img"
    assert picture.find(f"*[@id='{picture.get('aria-labelledby')}']") is not None
    _, _, width, height = map(float, picture.get("viewBox", "").split())
    boxes = picture.findall(".//rect")
    assert {text.text for text in picture.iter("text")} == LEVELS.keys()
    assert len(boxes) == len(LEVELS)
    for box in boxes:
        assert float(box.get("x", -1)) >= 0
        assert float(box.get("x", 0)) + float(box.get("width", 0)) <= width
        assert float(box.get("y", 0)) + float(box.get("height", 0)) <= height
