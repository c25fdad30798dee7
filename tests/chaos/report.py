"""What a run says at its end."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable

from tests.chaos.tally import Tally

_MOST_LINES = 20


def _say_surroundings(tally: Tally, say: Callable[[str], None]) -> None:
    say(
        f"\n  clocks apart: not run, since {tally.no_clocks}" if tally.no_clocks else
        f"\n  clocks apart: {', '.join(tally.clocks)}"
    )  # fmt: skip
    _say_table("transactions that the host held open", tally.held_open, say)
    say(
        f"  the longest for {tally.longest_held:.1f} s; longest statement of a worker meanwhile "
        f"{tally.longest_wait * 1000:.0f} ms; {len(tally.waited_for_host)} went on when one ended"
    )
    say(f"\n  files of attachments: {tally.files}, {len(tally.files_lost)} of them lost")
    say(
        f"  a project beside it on the same broker and storage: {tally.neighbours} mails with a file each, "
        f"{len(tally.neighbours_lost)} lost, {tally.neighbours_repeated} copies too many, "
        f"{tally.neighbours_files_left} files left by its purge"
    )


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
    say(
        f"\n  at most {tally.connections} connections at a time, and {tally.most_by_a_kill} mails repeated by a kill; "
        f"of mails whose reply had been read {len(tally.repeated_after_reply)} were repeated"
    )
    _say_surroundings(tally, say)
    if tally.held:
        say("\n  held, for a person to decide:")
    for line in tally.held:
        say(f"  {line}")
    for title, lines in (
        ("LOST", tally.lost),
        ("THERE WITHOUT A COMMIT", tally.never_committed),
        ("LOST", tally.neighbours_lost),
        ("NOT FINISHED", tally.unfinished),
        ("FILE LOST", tally.files_lost),
        ("CLOCK APART AND NOBODY TOLD", tally.clocks_untold),
        ("waited for the host", tally.waited_for_host),
        ("SENT TWICE WITHOUT A KILL", tally.unexplained),
        ("SENT TWICE THOUGH THE REPLY HAD BEEN READ", tally.repeated_after_reply),
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
