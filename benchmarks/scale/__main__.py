"""``python -m benchmarks.scale [--rows N] [--on SERVER …] [--only NAME …]``: see :mod:`benchmarks.scale`.

The exit status is 1 where something could not be measured; where a goal is missed, with ``--check`` alone.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import django

from ..report import Report
from .databases import Databases, Sides

#: Messages in the large database of each server, unless it is said how many.
ROWS = {"postgresql": 10_000_000, "mariadb": 2_000_000, "sqlite": 1_000_000}
SMALL = 10_000
_RESULTS = Path("build/scale/results.json")
#: Of everything together.
_MAX_SECONDS = 2400


class OutOfTimeError(Exception):
    """The measurements took longer than they may."""


def main() -> int:
    """Measure what was asked for, and return the exit status."""
    names = ["work", "held", "storing", "seen"]
    parser = argparse.ArgumentParser("python -m benchmarks.scale", description=__doc__, allow_abbrev=False)
    parser.add_argument("--on", action="append", choices=ROWS, help="only on this server (may be repeated)")
    parser.add_argument("--only", action="append", choices=names, help="only this (may be repeated)")
    parser.add_argument("--rows", type=int, help="messages in the large database (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=_RESULTS, help=f"file for the results (default: {_RESULTS})")
    parser.add_argument("--check", action="store_true", help="end with an error where a goal is missed")
    options = parser.parse_args()
    # So that everything ends in order.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    signal.signal(signal.SIGALRM, _over)
    signal.alarm(_MAX_SECONDS)
    began = time.monotonic()
    report = Report(_say)
    try:
        with Databases(options.on or list(ROWS)) as databases:
            for what in databases.missing:
                report.miss(what)
            for sides in databases.sides:
                _measure(sides, options.rows or ROWS[sides.vendor], options.only or names, report)
    except OutOfTimeError:
        report.miss(f"The rest: {_MAX_SECONDS} s were over")
    signal.alarm(0)
    machine = {
        "system": platform.system(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "django": django.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(time.monotonic() - began),
    }
    report.write(options.results, machine)
    _say(f"\n{report.table()}\n\n{machine['seconds']} s on {machine['cores']} cores")
    missed = options.check and any(line.verdict.startswith("no") for line in report.lines)
    return 1 if report.not_measured or missed else 0


def _measure(sides: Sides, rows: int, names: list[str], report: Report) -> None:
    # They import the models, which need the databases.
    from . import held, seen, storing, work
    from .history import fill

    measurements: dict[str, Callable[[Sides, int, Report], None]] = {
        "work": work.measure, "held": held.measure, "storing": storing.measure,
        "seen": seen.measure,
    }  # fmt: skip
    for alias, count in ((sides.small, SMALL), (sides.large, rows)):
        began = time.monotonic()
        _say(f"\n── {sides.vendor}: {count:,} finished messages ──")
        fill(alias, count)
        _say(f"  stored in {time.monotonic() - began:.0f} s")
    for name in names:
        try:
            measurements[name](sides, rows, report)
        except OutOfTimeError:
            raise
        except Exception as error:
            traceback.print_exc()
            report.miss(f"{sides.vendor}, {name}: {type(error).__name__}: {error}".splitlines()[0])


def _over(number: int, frame: FrameType | None) -> None:
    raise OutOfTimeError


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
