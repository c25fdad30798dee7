"""What the demo prints, on a terminal with a progress bar, elsewhere in plain lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from testbed.processes import Process

console = Console(highlight=False, markup=False, emoji=False)


class Bars(Protocol):
    """Progress of the two things that go on at the same time."""

    def registered(self, count: int) -> None:
        """So many people have registered."""

    def finished(self, count: int, queued: int) -> None:
        """So many mails of those queued so far have reached their end."""


@contextmanager
def progress(people: int) -> Iterator[Bars]:
    """Show progress while the block runs."""
    if not console.is_terminal:
        yield _PlainLines(people)
        return
    with Progress(
        TextColumn("  {task.description:<12}"),
        BarColumn(bar_width=36),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    ) as bars:
        yield _RichBars(bars, people)


class _RichBars:
    def __init__(self, bars: Progress, people: int) -> None:
        self._bars = bars
        self._registered = bars.add_task("registered", total=people)
        self._finished = bars.add_task("mails done", total=people)

    def registered(self, count: int) -> None:
        self._bars.update(self._registered, completed=count)

    def finished(self, count: int, queued: int) -> None:
        self._bars.update(self._finished, completed=count, total=queued)


class _PlainLines:
    """A line for every quarter of the way."""

    def __init__(self, people: int) -> None:
        self._people = people
        self._said: dict[str, int] = {}

    def registered(self, count: int) -> None:
        self._say("registered", count, self._people)

    def finished(self, count: int, queued: int) -> None:
        # Of all that will be, as far as is known: a mail for each person, at least.
        self._say("mails done", count, max(queued, self._people))

    def _say(self, what: str, count: int, total: int) -> None:
        quarter = 4 * count // total
        if quarter > self._said.get(what, 0):
            self._said[what] = quarter
            console.print(f"  {what}: {count} of {total}")


def say(text: str = "") -> None:
    """One line, which may be longer than the terminal is wide."""
    console.print(text, soft_wrap=True)


def say_facts(facts: Mapping[str, str]) -> None:
    """Lines of a name and a fact."""
    width = max(map(len, facts))
    for name, fact in facts.items():
        say(f"  {name:<{width}}  {fact}")


def say_kinds(kinds: Sequence[tuple[str, str, int]]) -> None:
    """The table of what was sent: purpose, subject and count of each kind."""
    table = Table()
    table.add_column("Mail")
    table.add_column("Its subject, in Portuguese")
    table.add_column("Mails", justify="right")
    for purpose, subject, count in kinds:
        table.add_row(purpose, subject, str(count))
    console.print(table)


def say_states(states: Counter[str]) -> None:
    """The table of states."""
    table = Table()
    table.add_column("State in the outbox")
    table.add_column("Mails", justify="right")
    for state, count in states.most_common():
        table.add_row(state, str(count))
    table.add_section()
    table.add_row("all", str(states.total()))
    console.print(table)


def say_outcomes(outcomes: Mapping[str, int]) -> None:
    """The table of what became of the mails."""
    table = Table()
    table.add_column("As SparkPost reports")
    table.add_column("Mails", justify="right")
    for what, count in outcomes.items():
        table.add_row(what, str(count))
    console.print(table)


def say_log(process: Process) -> None:
    """The end of a process's log."""
    say(f"The end of the log of the {process.name}:")
    for line in process.output().splitlines()[-40:]:
        say(f"    {line}")
