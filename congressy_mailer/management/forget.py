"""``manage.py mailer forget``: what is stored about a person, written out or erased."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import personal_data
from ..exceptions import InvalidAddress
from .console import format_number, progress_bar, say, warn


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of ``mailer forget``."""
    parser.add_argument("address", metavar=_("ADDRESS"), help=_("The person's address."))
    parser.add_argument("--export", action="store_true", help=_("Write the stored data as JSON, and erase nothing."))
    parser.add_argument("--yes", action="store_true", help=_("Do not ask for confirmation."))


def run(command: BaseCommand, options: Mapping[str, Any]) -> None:
    """Do it.

    Raises:
        CommandError: it is no address, or the question was not answered by yes (exit status 2); or mail is being sent
            at this moment (1).
    """
    address = options["address"]
    try:
        if options["export"]:
            command.stdout.write(json.dumps(personal_data.export(address), ensure_ascii=False, indent=2, default=str))
            return
        count = personal_data.count_messages(address)
        _confirm(command, options, address, count)
        with progress_bar(command, _("Messages"), count) as looked_at:
            erasure = personal_data.erase(address, progress=looked_at)
    except InvalidAddress as error:
        raise CommandError(str(error), returncode=2) from error
    lines = {
        "messages": _("Messages erased: %(count)s."),
        "shared_messages": _("Messages to others as well, without the address now: %(count)s."),
        "events": _("Events of other mails erased: %(count)s."),
        "webhook_batches": _("Batches of SparkPost's events emptied: %(count)s."),
        "suppressions": _("Entries of the suppression list erased: %(count)s."),
        "hashed_suppressions": _("Entries of the suppression list kept as a hash, against further mail: %(count)s."),
    }
    found = asdict(erasure)
    for name, text in lines.items():
        if found[name]:
            say(command, text % {"count": format_number(found[name])})
    if erasure.being_sent:
        text = ngettext(
            "%(count)s message is being sent at this moment: run it again.",
            "%(count)s messages are being sent at this moment: run it again.",
            erasure.being_sent,
        )
        raise CommandError(text % {"count": format_number(erasure.being_sent)})
    say(command, _("Nothing more is stored about this person here."), command.style.SUCCESS)
    warn(command, _("SparkPost and your backups have data of their own."))


def _confirm(command: BaseCommand, options: Mapping[str, Any], address: str, count: int) -> None:
    if options["yes"]:
        return
    if not sys.stdin.isatty():
        raise CommandError(_("Without a terminal to ask for confirmation, --yes is required."), returncode=2)
    text = ngettext(
        "Erase %(count)s message and all else that is stored about %(address)s? [y/N] ",
        "Erase %(count)s messages and all else that is stored about %(address)s? [y/N] ",
        count,
    )
    answer = input(text % {"count": format_number(count), "address": address})
    # In either language.
    if answer.strip().lower() not in ("y", "yes", "s", "sim"):
        raise CommandError(_("Nothing was erased."), returncode=2)
