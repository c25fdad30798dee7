"""A short run of the chaos suite: the whole one is ``make chaos``."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("on_crash", ["resend", "hold"])
def test_nothing_is_lost_and_nothing_repeated_but_by_a_kill(on_crash: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--database", "sqlite", "--on-crash", on_crash, "--messages", "600",
         "--seed", "20261", "--seconds", "45", "--keep", str(tmp_path / "run")],
        cwd=_ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    found = re.fullmatch(
        r"chaos: db=sqlite( on_crash=hold)? messages=600 kills=(\d+) lost=0 duplicated=(\d+) window=(\d+)ms", last
    )
    assert found, last
    assert int(found[2]) > 0
    assert int(found[4]) <= 100
    if on_crash == "hold":
        assert int(found[3]) == 0
