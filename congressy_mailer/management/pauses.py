"""``manage.py mailer pause`` and ``resume``: stop and go, for all workers at once."""

from __future__ import annotations

import getpass
from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..exceptions import InvalidOption
from ..health import HeldBack, held_back
from ..pausing import pause, resume
from .console import format_date, format_number, say

_TARGETS = ("queue", "using", "campaign", "batch")


def add_arguments(parser: ArgumentParser, *, pauses: bool) -> None:
    """What can be said behind ``mailer pause`` and ``mailer resume``.

    Args:
        parser: of the subcommand.
        pauses: it is ``pause``.
    """
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--queue", help=_("Only mail sent by the tasks of this queue."))
    which.add_argument("--using", metavar=_("ALIAS"), help=_('Only this mail backend; "default" for the default one.'))
    which.add_argument("--campaign", help=_("Only mail of this campaign."))
    which.add_argument("--batch", metavar="ID", help=_("Only this batch."))
    if pauses:
        parser.add_argument("--reason", default="", help=_("Reason, shown to other operators."))
    parser.add_argument(
        "--by", default="", help=_("Your name, shown to other operators (default: the user of the terminal).")
    )


def run(command: BaseCommand, options: Mapping[str, Any], *, pauses: bool) -> None:
    """Do it.

    Raises:
        CommandError: what is named is not there; for ``resume``, it was not paused (exit status 1).
    """
    target = {name: options[name] for name in _TARGETS if options[name] is not None}
    by = options["by"] or _user()
    try:
        if pauses:
            pause(**target, reason=options["reason"], by=by)
        elif not resume(**target, by=by):
            raise CommandError(_("It was not paused."))
    except InvalidOption as error:
        raise CommandError(str(error), returncode=2) from error
    if not pauses:
        say(command, _("Resumed. What waited is sent from now on."), command.style.SUCCESS)
    for held in held_back():
        say(command, describe(held), command.style.WARNING)


def describe(held: HeldBack) -> str:
    """One line about a pause."""
    values = {"what": held.label, "since": format_date(held.since), "by": held.by or "?", "reason": held.reason}
    line = _("Paused: %(what)s, since %(since)s, by %(by)s.") % values
    if held.reason:
        line = _("Paused: %(what)s, since %(since)s, by %(by)s: %(reason)s") % values
    waiting = [
        ngettext("%(count)s message waits", "%(count)s messages wait", held.messages)
        % {"count": format_number(held.messages)},
        ngettext("%(count)s batch waits", "%(count)s batches wait", held.batches)
        % {"count": format_number(held.batches)},
    ]
    return f"{line} ({', '.join(waiting)})"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # In a container there may be no name for the user's number.
        return ""
