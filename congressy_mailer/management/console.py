"""What people see of a command that takes a while: numbers and dates in their way, warnings, a bar on a terminal."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from typing import TextIO, cast

import click
from django.core.management.base import BaseCommand, OutputWrapper
from django.utils.formats import date_format, number_format
from django.utils.timezone import localtime

#: Exit status after Ctrl-C, as a shell tells of it: 128 and the number of SIGINT.
EXIT_INTERRUPTED = 130

# Times that a bar is drawn again while it fills, so that drawing takes no time worth mentioning.
_STEPS = 500


def format_number(value: int) -> str:
    """1,234 or 1.234, as the active language has it."""
    return number_format(value, force_grouping=True)


def format_date(moment: datetime) -> str:
    """A moment as the active language and the current time zone have it."""
    return date_format(localtime(moment), "SHORT_DATETIME_FORMAT")


def format_duration(duration: timedelta) -> str:
    """A length of time in its two largest units: 3 d 4 h, 5 min 10 s."""
    seconds = max(round(duration.total_seconds()), 0)
    for unit, name, smaller, smaller_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= unit:
            return f"{seconds // unit} {name} {seconds % unit // smaller} {smaller_name}"
    return f"{seconds} s"


def say(command: BaseCommand, text: str, style: Callable[[str], str] | None = None) -> None:
    """A result."""
    command.stdout.write(wrap(command.stdout, text), style)


def warn(command: BaseCommand, text: str) -> None:
    """A warning, apart from the results."""
    command.stderr.write(wrap(command.stderr, text), command.style.WARNING)


def wrap(stream: OutputWrapper, text: str) -> str:
    """A line of text in as many as the terminal needs, so that no word is cut; as it is where there is no terminal."""
    if not stream.isatty():
        return text
    indent = text[: len(text) - len(text.lstrip())]
    columns = shutil.get_terminal_size().columns
    # What is in a list stands out from what follows it.
    further = f"{indent}  " if indent else ""
    return textwrap.fill(text, columns, subsequent_indent=further, break_long_words=False, break_on_hyphens=False)


@contextmanager
def progress_bar(command: BaseCommand, label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on the terminal that the errors go to; nothing where that is none.

    Args:
        command: whose terminal it is.
        label: what is going on, in a word.
        total: how much there is of it.

    Returns:
        What to call with how much more has been done.
    """
    if not command.stderr.isatty():
        yield lambda more: None
        return
    progress = click.progressbar(
        length=total,
        label=label,
        # The stream itself: Django's wrapper would end every piece of the line as a line of its own.
        file=cast(TextIO, command.stderr._out),
        show_pos=True,
        fill_char="█",
        empty_char="░",
        bar_template="%(label)s %(bar)s %(info)s",
        # The rest of the terminal's width.
        width=0,
        update_min_steps=max(1, total // _STEPS),
    )
    with ExitStack() as stack:
        # Its line ends also where Ctrl-C comes while it is drawn for the first time.
        stack.push(progress)
        yield progress.__enter__().update
