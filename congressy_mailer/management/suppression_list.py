"""``manage.py mailer suppressions``: the addresses that get no mail, to be seen, changed and brought together."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import suppressions
from ..exceptions import MailerError, SparkPostError
from ..mime.addresses import comparable_address, normalise_address
from ..models import Suppression
from ..suppressions import suppress, unsuppress
from ..suppressions.rules import Scope
from ..suppressions.sync import SyncResult, sync
from .console import format_date, format_number, say
from .suppression_files import export_csv, import_csv

# Seconds of one part of a run, so that people see that something happens.
_PART_SECONDS = 5.0


def add_arguments(parser: CommandParser) -> None:
    """The arguments of ``mailer suppressions``."""
    actions = parser.add_subparsers(dest="action", required=True, title=_("actions"))
    list_parser = actions.add_parser("list", help=_("List its entries, newest first."))
    list_parser.add_argument("address", nargs="?", metavar=_("ADDRESS"), help=_("Only entries of this address."))
    list_parser.add_argument(
        "--limit", type=_positive, default=50, metavar=_("NUMBER"), help=_("Most entries (default: %(default)s).")
    )
    add_parser = actions.add_parser("add", help=_("Add an address."))
    add_parser.add_argument("address", metavar=_("ADDRESS"), help=_("The address."))
    _add_scope_arguments(add_parser)
    add_parser.add_argument("--reason", default="", metavar=_("TEXT"), help=_("Reason, as text for people."))
    remove_parser = actions.add_parser("remove", help=_("Remove an address. Exit status 1 if it was not listed."))
    remove_parser.add_argument("address", metavar=_("ADDRESS"), help=_("The address."))
    _add_scope_arguments(remove_parser)
    import_parser = actions.add_parser("import", help=_("Add the addresses in a CSV file."))
    import_parser.add_argument(
        "file",
        type=Path,
        metavar=_("FILE"),
        help=_("CSV file whose first row names the columns; scope, list_id, reason and source are optional."),
    )
    _add_scope_arguments(import_parser)
    import_parser.add_argument("--reason", default="", metavar=_("TEXT"), help=_("Reason for rows without one."))
    import_parser.add_argument(
        "--email-column",
        default="",
        metavar=_("COLUMN"),
        help=_("Column of the addresses, if it is not found by name."),
    )
    export_parser = actions.add_parser("export", help=_("Write the list as CSV, which import can read."))
    export_parser.add_argument("file", metavar=_("FILE"), help=_("File to write; - is the standard output."))
    sync_parser = actions.add_parser(
        "sync", help=_("Synchronise with SparkPost's list now. The workers also do so periodically.")
    )
    sync_parser.add_argument("--full", action="store_true", help=_("Read SparkPost's whole list, not only changes."))


def _positive(argument: str) -> int:
    if not argument.isdecimal() or int(argument) < 1:
        raise ArgumentTypeError(_('"%(given)s" is not a whole number from 1.') % {"given": argument})
    return int(argument)


def _add_scope_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "--scope",
        choices=[Scope.TRANSACTIONAL.value, Scope.NON_TRANSACTIONAL.value],
        help=_("Kind of mail (default: all mail, unless --list is given)."),
    )
    parser.add_argument("--list", dest="list_id", default="", metavar=_("LIST"), help=_("Only mail of this list."))


def run(command: BaseCommand, options: Mapping[str, Any]) -> None:
    """Do what is asked for.

    Raises:
        CommandError: it could not be done, or not all of it.
    """
    try:
        match options["action"]:
            case "list":
                _list(command, options["address"], options["limit"])
            case "add":
                _add(command, options)
            case "remove":
                _remove(command, options)
            case "import":
                import_csv(command, options)
            case "export":
                export_csv(command, options["file"])
            case _:
                _sync(command, options["full"])
    except MailerError as error:
        raise CommandError(str(error)) from error


def _list(command: BaseCommand, address: str | None, limit: int) -> None:
    entries = suppressions.active()
    if address is not None:
        entries = entries.filter(address=comparable_address(normalise_address(address, _("ADDRESS"))))
    total = entries.count()
    for row in entries.order_by("-created_at", "id")[:limit]:
        say(command, _line(row))
    text = ngettext("%(count)s entry.", "%(count)s entries.", total)
    say(command, text % {"count": format_number(total)})


def _line(row: Suppression) -> str:
    where = f"{row.get_scope_display()} {row.list_id}".strip()
    reason = f": {row.reason}" if row.reason else ""
    return f"{row.address}  {where}  {format_date(row.created_at)}  {row.get_source_display()}{reason}"


def _add(command: BaseCommand, options: Mapping[str, Any]) -> None:
    address = options["address"]
    if suppress(address, scope=options["scope"], list_id=options["list_id"], reason=options["reason"]):
        say(command, _("%(address)s is on the suppression list now.") % {"address": address}, command.style.SUCCESS)
    else:
        say(command, _("%(address)s was on the suppression list already.") % {"address": address})


def _remove(command: BaseCommand, options: Mapping[str, Any]) -> None:
    address = options["address"]
    if not unsuppress(address, scope=options["scope"], list_id=options["list_id"]):
        compared = comparable_address(normalise_address(address, _("ADDRESS")))
        if suppressions.active().filter(address=compared, source=suppressions.Source.COMPLIANCE).exists():
            raise CommandError(
                _("SparkPost's compliance team has put %(address)s there. Only SparkPost can take it off.")
                % {"address": address}
            )
        raise CommandError(_("%(address)s was not on the suppression list for this mail.") % {"address": address})
    say(command, _("%(address)s gets this mail again.") % {"address": address}, command.style.SUCCESS)


def _sync(command: BaseCommand, full: bool) -> None:
    total = SyncResult()
    while not total.complete:
        try:
            result = sync(full=full, seconds=_PART_SECONDS)
        except SparkPostError as error:
            if total == SyncResult():
                raise CommandError(str(error)) from error
            _report(command, total)
            raise CommandError(
                _("%(error)s Nothing was undone: the next run continues there.") % {"error": error}
            ) from error
        full = False
        for name in ("fetched", "imported", "removed", "exported", "deleted", "refused"):
            setattr(total, name, getattr(total, name) + getattr(result, name))
        total.complete = result.complete
    _report(command, total)
    say(command, _("The two lists are the same now."), command.style.SUCCESS)


def _report(command: BaseCommand, result: SyncResult) -> None:
    summary = _(
        "From SparkPost: %(fetched)s read, %(imported)s added here, %(removed)s removed here. To SparkPost: "
        "%(exported)s added, %(deleted)s deleted, %(refused)s refused."
    )
    names = ("fetched", "imported", "removed", "exported", "deleted", "refused")
    say(command, summary % {name: format_number(getattr(result, name)) for name in names})
