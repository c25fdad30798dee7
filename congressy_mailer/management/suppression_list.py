"""``manage.py mailer suppressions``: the addresses that get no mail, to be seen, changed and brought together."""

from __future__ import annotations

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
from ..suppressions.sync import Synced, sync
from .console import date_of, number, say
from .suppression_files import export_to, import_from

# Seconds of one part of a run, so that people see that something happens.
_PART = 5.0


def add_arguments(parser: CommandParser) -> None:
    """What may be asked for."""
    actions = parser.add_subparsers(dest="action", required=True, title=_("actions"))
    shown = actions.add_parser("list", help=_("Show who is on it."))
    shown.add_argument("address", nargs="?", metavar=_("ADDRESS"), help=_("Only what is there of this address."))
    shown.add_argument("--limit", type=int, default=50, metavar=_("NUMBER"), help=_("The most that is shown."))
    added = actions.add_parser("add", help=_("Put an address on it."))
    added.add_argument("address", metavar=_("ADDRESS"))
    _add_scope(added)
    added.add_argument("--reason", default="", metavar=_("TEXT"), help=_("Why, for people."))
    removed = actions.add_parser("remove", help=_("Take an address off it. Exit status 1 where nothing was there."))
    removed.add_argument("address", metavar=_("ADDRESS"))
    _add_scope(removed)
    imported = actions.add_parser("import", help=_("Put the addresses in a CSV file on it."))
    imported.add_argument(
        "file",
        type=Path,
        metavar=_("FILE"),
        help=_("Its first row names the columns; those called scope, list_id and reason are read too."),
    )
    _add_scope(imported)
    imported.add_argument("--reason", default="", metavar=_("TEXT"), help=_("Why, where no column says so."))
    imported.add_argument(
        "--email-column",
        default="",
        metavar=_("COLUMN"),
        help=_("Column of the addresses, if it is not found by name."),
    )
    exported = actions.add_parser("export", help=_("Write it as CSV, as it can be imported."))
    exported.add_argument("file", metavar=_("FILE"), help=_("Where to; - is the standard output."))
    brought = actions.add_parser(
        "sync", help=_("Bring it together with SparkPost's now. The workers do it by themselves.")
    )
    brought.add_argument(
        "--full", action="store_true", help=_("Have SparkPost list everything, and not only what has changed.")
    )


def _add_scope(parser: CommandParser) -> None:
    parser.add_argument(
        "--scope",
        choices=[Scope.TRANSACTIONAL.value, Scope.NON_TRANSACTIONAL.value],
        help=_("Which mail; all of it where neither this nor a list is given."),
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
                import_from(command, options)
            case "export":
                export_to(command, options["file"])
            case _:
                _sync(command, options["full"])
    except MailerError as error:
        raise CommandError(str(error)) from error


def _list(command: BaseCommand, address: str | None, limit: int) -> None:
    listed = suppressions.active()
    if address is not None:
        listed = listed.filter(address=comparable_address(normalise_address(address, _("ADDRESS"))))
    total = listed.count()
    for row in listed.order_by("-created_at", "id")[: max(limit, 0)]:
        say(command, _line(row))
    entries = ngettext("%(count)s entry.", "%(count)s entries.", total)
    say(command, entries % {"count": number(total)})


def _line(row: Suppression) -> str:
    where = f"{row.get_scope_display()} {row.list_id}".strip()
    reason = f": {row.reason}" if row.reason else ""
    return f"{row.address}  {where}  {date_of(row.created_at)}  {row.get_source_display()}{reason}"


def _add(command: BaseCommand, options: Mapping[str, Any]) -> None:
    address = options["address"]
    if suppress(address, scope=options["scope"], list_id=options["list_id"], reason=options["reason"]):
        say(command, _("%(address)s gets no such mail any more.") % {"address": address}, command.style.SUCCESS)
    else:
        say(command, _("%(address)s was on the list already.") % {"address": address})


def _remove(command: BaseCommand, options: Mapping[str, Any]) -> None:
    address = options["address"]
    if not unsuppress(address, scope=options["scope"], list_id=options["list_id"]):
        compared = comparable_address(normalise_address(address, _("ADDRESS")))
        if suppressions.active().filter(address=compared, source=suppressions.Source.COMPLIANCE).exists():
            raise CommandError(
                _("SparkPost's compliance team has put %(address)s there. Only SparkPost can take it off.")
                % {"address": address}
            )
        raise CommandError(_("Nothing of the kind was there of %(address)s.") % {"address": address})
    say(command, _("%(address)s gets such mail again.") % {"address": address}, command.style.SUCCESS)


def _sync(command: BaseCommand, full: bool) -> None:
    total = Synced()
    while not total.done:
        try:
            part = sync(full=full, seconds=_PART)
        except SparkPostError as error:
            _tell(command, total)
            raise CommandError(
                _("%(error)s What is done is done; the next run goes on there.") % {"error": f"{error} "}
            ) from error
        full = False
        for name in ("listed", "taken_over", "gone", "told", "deleted", "refused"):
            setattr(total, name, getattr(total, name) + getattr(part, name))
        total.done = part.done
    _tell(command, total)
    say(command, _("The two lists say the same."), command.style.SUCCESS)


def _tell(command: BaseCommand, synced: Synced) -> None:
    told = _(
        "Of SparkPost's list: %(listed)s looked at, %(taken_over)s taken over, %(gone)s gone. Told SparkPost: "
        "%(told)s added, %(deleted)s deleted, %(refused)s refused."
    )
    names = ("listed", "taken_over", "gone", "told", "deleted", "refused")
    say(command, told % {name: number(getattr(synced, name)) for name in names})
