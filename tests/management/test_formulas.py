"""Cells of an export: no program takes one for a formula, and an import reads what was exported."""

from __future__ import annotations

import csv
import io
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from congressy_mailer.management.formulas import neutralise, restore
from congressy_mailer.management.spreadsheet import Spreadsheet

SIGNS = "=+-@＝＋－＠﹦﹢﹣﹫"
INVISIBLE = "\t\r\n \0\x0b\x0c\x1f\x85\xa0\xad\u200b\u200e\u2028\u202e\u2060\ufeff"
texts = st.text(st.sampled_from(f"{SIGNS}{INVISIBLE}'\"ab,;|") | st.characters(codec="utf-8"), max_size=12)


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("before", ["", *INVISIBLE, "'", "''", "\ufeff\t ", "'\n"])
def test_no_cell_begins_with_a_sign_of_a_formula(sign: str, before: str) -> None:
    cell = neutralise(f"{before}{sign}cmd|' /C calc'!A0")
    assert cell.startswith("'")


@pytest.mark.parametrize("text", ["", "O'Brien", "'ana'@example.com", "a=b", "1+1", "''", "'", "é", "ana@example.com"])
def test_any_other_cell_stays_as_it_is(text: str) -> None:
    assert neutralise(text) == text
    assert restore(text) == text


@given(texts)
def test_what_was_written_is_read_back(text: str) -> None:
    cell = neutralise(text)
    assert restore(cell) == text.replace("\0", " ").strip()
    seen = "".join(one for one in cell if unicodedata.category(one) not in ("Cc", "Cf", "Zs", "Zl", "Zp"))
    assert not seen.startswith(tuple(SIGNS))


@given(st.lists(texts, min_size=1, max_size=4))
def test_a_file_is_read_back_cell_by_cell(tmp_path_factory: pytest.TempPathFactory, reasons: list[str]) -> None:
    path: Path = tmp_path_factory.mktemp("csv") / "list.csv"
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(["email", "reason"])
    writer.writerows([neutralise("+ana@example.com"), neutralise(reason)] for reason in reasons)
    path.write_text(out.getvalue(), encoding="utf-8-sig", newline="")
    rows = list(Spreadsheet(path, read_cell=restore).rows())
    assert [row.to for row in rows] == ["+ana@example.com"] * len(reasons)
    assert [row.variables["reason"] for row in rows] == [reason.replace("\0", " ").strip() for reason in reasons]
