"""What was measured, in lines: what, ours, the other's, the ratio, the goal, and whether it is reached."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal


@dataclass(frozen=True)
class Goal:
    """What is to be reached."""

    #: What it is said of: our value itself, or its ratio to the other's.
    of: Literal["ours", "ratio"]
    #: At least or at most so much; one of the two.
    at_least: float | None = None
    at_most: float | None = None

    def __str__(self) -> str:
        sign, value = ("≥", self.at_least) if self.at_least is not None else ("≤", self.at_most)
        return f"{sign} {_number(value)}{' ×' if self.of == 'ratio' else ''}"

    def missed_by(self, value: float) -> float:
        """How far a value is from the goal, as a share of the goal; 0 where it is reached."""
        if self.at_least is not None:
            return max(0.0, 1 - value / self.at_least)
        assert self.at_most is not None
        if self.at_most == 0:
            return float(value > 0)
        return max(0.0, value / self.at_most - 1)


@dataclass(frozen=True)
class Line:
    """One comparison."""

    #: The measurement that it belongs to.
    measurement: str
    what: str
    ours: float
    #: Whom ours is compared with; empty: nobody.
    other: str
    other_value: float | None
    unit: str
    goal: Goal | None = None
    #: Ours, or the other, has not come to its end in the time that was waited, which stands in its place.
    ours_at_least: bool = False
    other_at_least: bool = False
    #: Each run, for those who want to see how much they differ.
    runs: dict[str, list[float]] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Ours over the other's."""
        return self.ours / self.other_value if self.other_value else None

    @property
    def missed_by(self) -> float | None:
        """How far it is from its goal; ``None`` where it has none."""
        if self.goal is None:
            return None
        value = self.ours if self.goal.of == "ours" else self.ratio
        return self.goal.missed_by(value) if value is not None else None

    @property
    def verdict(self) -> str:
        missed = self.missed_by
        if missed is None:
            return ""
        # What is less than the last digit that is shown is not missed.
        return "yes" if missed < 0.005 else f"no, by {missed:.0%}"

    def cells(self) -> list[str]:
        ours = f"{'> ' * self.ours_at_least}{_number(self.ours)} {self.unit}"
        other = ratio = ""
        if self.other_value is not None:
            other = f"{self.other} {'> ' * self.other_at_least}{_number(self.other_value)}"
        if self.ratio is not None and not (self.ours_at_least and self.other_at_least):
            ratio = f"{'> ' * self.ours_at_least}{'< ' * self.other_at_least}{_number(self.ratio)}"
        goal = "" if self.goal is None else str(self.goal)
        return [self.what, ours.strip(), other, ratio, goal, self.verdict]


@dataclass
class Report:
    """All lines, and what could not be measured."""

    say: Callable[[str], None]
    lines: list[Line] = field(default_factory=list)
    not_measured: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, line: Line) -> None:
        self.lines.append(line)
        what, ours, other, ratio, goal, verdict = line.cells()
        text = f"  {what}: {ours}" + (f"; {other}" if other else "") + (f"; ratio {ratio}" if ratio else "")
        self.say(text + (f"; goal {goal}: {verdict}" if goal else ""))

    def miss(self, what: str) -> None:
        """Say that something could not be measured."""
        self.not_measured.append(what)
        self.say(f"  NOT MEASURED  {what}")

    def note(self, text: str) -> None:
        """Say something that belongs to the numbers."""
        if text not in self.notes:
            self.notes.append(text)
            self.say(f"  {text}")

    def table(self) -> str:
        """All lines beneath each other."""
        rows = [["what", "ours", "other", "ratio", "goal", "reached"], *(line.cells() for line in self.lines)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        )

    def markdown(self) -> str:
        """The same as documentation has it."""
        rows = [
            ["What", "Ours", "Beside", "Ratio", "Goal", "Reached"],
            ["---"] * 6,
            *(line.cells() for line in self.lines),
        ]
        return "".join(f"| {' | '.join(row)} |\n" for row in rows)

    def write(self, path: Path, machine: dict[str, Any]) -> None:
        """Write everything down as JSON, and the table beside it as Markdown."""
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            asdict(line) | {"ratio": line.ratio, "missed_by": line.missed_by, "goal": line.goal and str(line.goal)}
            for line in self.lines
        ]
        found = {"machine": machine, "lines": lines, "notes": self.notes, "not_measured": self.not_measured}
        path.with_suffix(".md").write_text(self.markdown())
        path.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")


def alternate(runs: int, measured: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Measure several things in turns, so that what else happens on the machine happens to all of them.

    Returns:
        The values of each.
    """
    values: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(runs):
        for name, measure in measured.items():
            values[name].append(measure())
    return values


def medians(values: dict[str, list[float]]) -> dict[str, float]:
    """The median of each, where it has any value."""
    return {name: median(found) for name, found in values.items() if found}


def percentile(values: Iterable[float], share: float) -> float:
    """The value that this share of all values does not exceed."""
    ordered: Sequence[float] = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
