"""What a run says at its end."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable

from tests.chaos.tally import Tally

_MOST_LINES = 20


def conclude(tally: Tally, faults: Counter[str], options: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Say what was done and what came of it; returns the exit status."""
    say("\n  times  fault")
    for name, times in sorted(faults.items()):
        say(f"  {times:5}  {name}")
    for title, counted in (
        ("states in the outbox", tally.states),
        ("copies too many, by what was killed at that moment", tally.repeated),
        ("failed and held, by reason", tally.reasons),
    ):
        _say_table(title, counted, say)
    if tally.held:
        say("\n  held, for a person to decide:")
    for line in tally.held:
        say(f"  {line}")
    for title, lines in (
        ("LOST", tally.lost),
        ("THERE WITHOUT A COMMIT", tally.never_committed),
        ("NOT FINISHED", tally.unfinished),
        ("SENT TWICE WITHOUT A KILL", tally.unexplained),
    ):
        for line in lines[:_MOST_LINES]:
            say(f"  {title}: {line}")
        if len(lines) > _MOST_LINES:
            say(f"  {title}: {len(lines) - _MOST_LINES} more")
    say(last_line(tally, options))
    return 0 if tally.passed else 1


def last_line(tally: Tally, options: argparse.Namespace) -> str:
    where = f"db={options.database}"
    if options.broker != "redis":
        where += f" broker={options.broker}"
    if options.on_crash != "resend":
        where += f" on_crash={options.on_crash}"
    return (
        f"chaos: {where} messages={options.messages} kills={len(tally.kills)} lost={len(tally.lost)} "
        f"duplicated={tally.duplicated} window={tally.window * 1000:.0f}ms"
    )


def _say_table(title: str, counted: Counter[str], say: Callable[[str], None]) -> None:
    if counted:
        say(f"\n  {title}:")
    for name, count in counted.most_common(_MOST_LINES):
        say(f"  {count:5}  {name}")
