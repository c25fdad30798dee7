"""Cells that a spreadsheet program would take for a formula: written so that it does not, and read back.

OWASP, "CSV Injection": a cell that begins with one of a few signs is a formula, which may run programs or fetch
addresses. An apostrophe before it makes it text.
"""

from __future__ import annotations

import re

# Full-width and small forms too, which some input methods and programs take for the same; after anything invisible,
# which programs skip. Cells that begin with apostrophes before such a text need one more, or it could not be read back.
_FORMULA = re.compile(
    r"'*[\s\0-\x20\x7f-\xa0\xad\u180e\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff]*[-=+@−＝＋－＠﹦﹢﹣﹫]"
)


def neutralise(text: str) -> str:
    """The text as a cell that is text to every program. Blanks around it are left out, as readers of CSV leave them."""
    cell = text.replace("\0", " ").strip()
    return f"'{cell}" if _FORMULA.match(cell) else cell


def restore(cell: str) -> str:
    """What :func:`neutralise` was given; a cell that it did not change stays as it is."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell, 1) else cell
