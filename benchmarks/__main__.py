"""``python -m benchmarks [--only NAME …] [--quick] [--python PATH …]``: see :mod:`benchmarks`.

The exit status is 0 also where a goal is missed, and 1 where something could not be measured.
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

from . import bulk, caller, composing, end_to_end, events, far, latency, link_throughput, round_trips
from .agent import AgentError
from .bench import QUICK, Bench, Sizes
from .report import Report
from .stage import MissingServerError, Python, Stage, this_python
from .systems import ALL, system

MEASUREMENTS: dict[str, Callable[[Bench], None]] = {
    "round_trips": round_trips.measure,
    "composing": composing.measure,
    "caller": caller.measure,
    "link_throughput": link_throughput.measure,
    "far": far.measure,
    "end_to_end": end_to_end.measure,
    "bulk": bulk.measure,
    "latency": latency.measure,
    "events": events.measure,
}
_RESULTS = Path("build/bench/results.json")
#: Of all measurements together.
_MAX_SECONDS = 570


class OutOfTimeError(Exception):
    """The measurements took longer than they may."""


def main() -> int:
    """Measure what was asked for, and return the exit status."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__, allow_abbrev=False)
    parser.add_argument("--only", action="append", choices=MEASUREMENTS, help="only this (may be repeated)")
    parser.add_argument("--quick", action="store_true", help="small sizes: to see that everything works, not how fast")
    parser.add_argument("--python", action="append", default=[], help="interpreter of a further environment")
    parser.add_argument("--results", type=Path, default=_RESULTS, help=f"file for the results (default: {_RESULTS})")
    options = parser.parse_args()
    # So that everything ends in order.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))

    pythons = [this_python(), *(Python.at(path) for path in options.python)]
    machine = _machine(pythons)
    _say(_title(machine))
    report = Report(_say)
    began = time.monotonic()
    with Stage() as stage:
        bench = Bench(stage, pythons, QUICK if options.quick else Sizes(), report)
        if not any(python.versions["django"].startswith("6.1") for python in pythons):
            report.miss("Anything on Django 6.1: no environment with it; it needs Python 3.12 or newer")
        _measure(bench, options.only or list(MEASUREMENTS))
    machine["seconds"] = round(time.monotonic() - began)
    for key in ALL:
        report.notes.append(f"{system(key).name}: {system(key).configuration}.")
    report.write(options.results, machine)
    _say(f"\n{report.table()}\n\n{_title(machine)}; {machine['seconds']} s")
    for text in report.notes:
        _say(text)
    for what in report.not_measured:
        _say(f"NOT MEASURED  {what}")
    if options.quick:
        _say("These sizes are too small for the numbers to mean anything.")
    return 1 if report.not_measured else 0


def _measure(bench: Bench, names: list[str]) -> None:
    def over(number: int, frame: FrameType | None) -> None:
        raise OutOfTimeError

    signal.signal(signal.SIGALRM, over)
    signal.alarm(_MAX_SECONDS)
    for name in names:
        _say(f"\n── {name} ──")
        began = time.monotonic()
        try:
            MEASUREMENTS[name](bench)
        except OutOfTimeError:
            bench.report.miss(f"{', '.join(names[names.index(name) :])}: {_MAX_SECONDS} s were over")
            break
        except (AgentError, MissingServerError) as error:
            bench.report.miss(f"{name}: {error}")
        except Exception as error:
            traceback.print_exc()
            bench.report.miss(f"{name}: {type(error).__name__}: {error}".splitlines()[0])
        _say(f"  ({time.monotonic() - began:.0f} s)")
    signal.alarm(0)


def _machine(pythons: list[Python]) -> dict[str, object]:
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "environments": [dict(python.versions) for python in pythons],
        "date": time.strftime("%Y-%m-%d"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _title(machine: dict[str, object]) -> str:
    environments = machine["environments"]
    assert isinstance(environments, list)
    versions = " and ".join(
        f"Python {found['python']} with Django {found['django']} and Celery {found['celery']}" for found in environments
    )
    return f"{versions}; {machine['cores']} cores"


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
