"""Watching a batch until it is sent."""

from __future__ import annotations

import time

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from ..health import check_health
from ..models import Batch, State
from ..models.progress import Progress
from .console import format_number, progress_bar, say, warn

# Seconds between two looks.
_POLL_SECONDS = 0.5


def show_progress(command: BaseCommand, batch: Batch) -> None:
    """Show the progress of a batch until all of it is sent, or the user presses Ctrl-C.

    Raises:
        CommandError: it has come to its end, and none of it was sent.
    """
    progress = batch.progress()
    if not progress.done:
        # Better than a bar that does not move.
        for problem in check_health().problems:
            warn(command, problem)
    try:
        with progress_bar(command, _("Sending"), progress.total) as advance:
            advance(progress.finished)
            while not progress.done:
                time.sleep(_POLL_SECONDS)
                before, progress = progress, batch.progress()
                advance(progress.finished - before.finished)
    except KeyboardInterrupt:
        say(command, _("The mails go on being sent. The same command with --wait shows them again."))
        return
    _report(command, progress)


def _report(command: BaseCommand, progress: Progress) -> None:
    """What became of it."""
    states = [State(state) for state in State if state in progress.states]
    summary = ", ".join(f"{state.label}: {format_number(progress.states[state])}" for state in states)
    if progress.sent == progress.total:
        say(command, summary, command.style.SUCCESS)
    elif progress.sent:
        warn(command, summary)
    else:
        raise CommandError(summary)
