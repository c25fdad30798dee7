"""``manage.py mailer installation``: whose attachment files a database deletes, where another is its copy."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from .. import outbox
from ..health import format_time
from ..replies import error_text


def add_arguments(parser: ArgumentParser) -> None:
    """What can be said behind ``mailer installation``."""
    decision = parser.add_mutually_exclusive_group()
    decision.add_argument(
        "--new",
        action="store_true",
        help=_("Declare this database a copy: it gets a new folder, and deletes no file of the original."),
    )
    decision.add_argument(
        "--keep", action="store_true", help=_("Declare this database the original: it keeps the folder.")
    )


def run(command: BaseCommand, options: Mapping[str, Any]) -> None:
    """Decide what was asked for, and say how it is.

    Raises:
        CommandError: the storage cannot be written.
    """
    if options["new"]:
        outbox.begin_new_installation()
    if options["keep"]:
        try:
            outbox.keep_installation()
        except Exception as error:
            text = _("The storage cannot be written: %(error)s")
            raise CommandError(text % {"error": error_text(error)}) from error
    installation = outbox.current_installation()
    text = _("Installation %(key)s. Its attachment files are in the folder %(folder)s.")
    command.stdout.write(text % {"key": installation.key, "folder": installation.folder})
    if installation.contested_at is not None:
        text = _("None is deleted since %(since)s: another database uses the folder. See --new and --keep.")
        command.stdout.write(command.style.WARNING(text % {"since": format_time(installation.contested_at)}))
