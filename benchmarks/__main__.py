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
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import FrameType

from . import bulk, caller, composing, end_to_end, events, far, http, latency, link_throughput, round_trips, statements
from .agent import AgentError
from .bench import QUICK, Bench, Measurement, Sizes
from .budget import LEAST_SHARE, Budget, Cost
from .report import Report
from .speed import slowness
from .stage import MissingServerError, Python, Stage, this_python
from .systems import ALL, system

#: In the order in which they are made. What they cost was measured on the machine that :mod:`.speed` compares with.
MEASUREMENTS: dict[str, Measurement] = {
    "round_trips": Measurement(round_trips.measure, Cost(8, 2)),
    "composing": Measurement(composing.measure, Cost(5, 30)),
    "caller": Measurement(caller.measure, Cost(15, 30)),
    "link_throughput": Measurement(link_throughput.measure, Cost(25, 5, 160)),
    "far": Measurement(far.measure, Cost(25, 10, 60)),
    "http": Measurement(http.measure, Cost(15, 12, 6)),
    "end_to_end": Measurement(end_to_end.measure, Cost(50, 140)),
    "bulk": Measurement(bulk.measure, Cost(20, 90)),
    "latency": Measurement(latency.measure, Cost(40, 30, 40)),
    "statements": Measurement(statements.measure, Cost(25, 10, 25)),
    "events": Measurement(events.measure, Cost(5, 75)),
}
_RESULTS = Path("build/bench/results.json")
#: Of the whole run; what comes after the last measurement is among it.
_MAX_SECONDS = 570.0
_TO_CONCLUDE = 10.0


class OutOfTimeError(Exception):
    """A measurement has taken longer than it may."""


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
        bench = Bench(stage, pythons, QUICK, report)
        if not any(python.versions["django"].startswith("6.1") for python in pythons):
            report.miss("Anything on Django 6.1: no environment with it; it needs Python 3.12 or newer")
        machine["slowness"] = found = round(slowness(), 2)
        _say(f"This machine takes {found} times as long as the one that the sizes are made for.")
        plan = {name: MEASUREMENTS[name] for name in options.only or MEASUREMENTS}
        machine["measurements"] = measure_all(
            bench, plan, found, None if options.quick else Sizes(), lambda: began + _MAX_SECONDS - _TO_CONCLUDE
        )
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


def measure_all(
    bench: Bench,
    plan: Mapping[str, Measurement],
    slowness: float,
    full: Sizes | None,
    end: Callable[[], float],
) -> dict[str, dict[str, float]]:
    """Make all measurements, each within its time. One that fails says so, and the others are made all the same.

    Args:
        bench: the run; its sizes are set for each.
        plan: the measurements, by name, in their order.
        slowness: how many times slower than the one that costs are known of this machine is.
        full: sizes of which each is given a share; ``None``: those of the run, as they are.
        end: when the last one must be over, by ``time.monotonic()``.

    Returns:
        By name: seconds that each was given and has taken, and the share of the full sizes.
    """
    budget = Budget({name: measurement.cost for name, measurement in plan.items()}, slowness)
    made: dict[str, dict[str, float]] = {}
    for name, measurement in plan.items():
        allotment = budget.allot(name, end() - time.monotonic())
        share = LEAST_SHARE if full is None else allotment.share
        if full is not None:
            bench.sizes = full.scaled(share)
        _say(f"\n── {name} ── {share:.0%} of its sizes, {allotment.seconds:.0f} s at the most")
        began = time.monotonic()
        problem = _measure_within(allotment.seconds, partial(measurement.measure, bench))
        took = time.monotonic() - began
        if problem:
            bench.report.miss(f"{name}: {problem}")
            bench.stage.discard_places()
        budget.conclude(name, share, took)
        made[name] = {"seconds": round(took, 1), "at_most": round(allotment.seconds, 1), "share": round(share, 3)}
        _say(f"  ({took:.0f} s)")
    if full is not None and (smaller := {name: one["share"] for name, one in made.items() if one["share"] < 1}):
        shares = ", ".join(f"{name} {share:.0%}" for name, share in smaller.items())
        bench.report.note(f"So that all of it is over in time, these had a part of their full sizes: {shares}.")
    return made


def _measure_within(seconds: float, measure: Callable[[], None]) -> str:
    """Measure, and return what went wrong; empty: nothing."""

    def over(number: int, frame: FrameType | None) -> None:
        raise OutOfTimeError

    previous = signal.signal(signal.SIGALRM, over)
    # Not 0, which would be never.
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        measure()
    except OutOfTimeError:
        return f"its {seconds:.0f} s were over"
    except (AgentError, MissingServerError) as error:
        return str(error)
    except Exception as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {error}".splitlines()[0]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    return ""


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
