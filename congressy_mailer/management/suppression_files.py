"""The suppression list from a file, and into one."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import suppressions
from ..exceptions import InvalidOption
from ..mime.addresses import comparable_address
from ..suppressions.entries import Entry
from ..suppressions.lists import check_list_id
from ..suppressions.rules import Scope, Source, scopes_of
from .console import format_number, say, warn
from .spreadsheet import Row, Spreadsheet

#: Columns of an export; an import reads the address and whatever it finds of the next three.
COLUMNS = ("email", "scope", "list_id", "reason", "source", "created_at")

# Entries that are stored at once.
_CHUNK = 1000

# Rows that are left out of which each is explained.
_MAX_EXPLAINED = 20


def import_csv(command: BaseCommand, options: Mapping[str, Any]) -> None:
    """Put the addresses in a file on the list. What is wrong is told row by row, and the others go on it.

    Raises:
        CommandError: the file cannot be read, or some of its rows were left out.
    """
    sheet = Spreadsheet(options["file"], email_column=options["email_column"])
    # What is wrong with the options is wrong with every row.
    _scopes(options["scope"], options["list_id"])
    added = rows = 0
    entries: list[Entry] = []
    problems: list[str] = []
    for row in sheet.rows():
        rows += 1
        try:
            entries += _entries(row, options)
        except InvalidOption as error:
            problems.append(_("  row %(row)d, %(problem)s") % {"row": row.number, "problem": error})
        if len(entries) >= _CHUNK:
            added += len(suppressions.add(entries))
            entries.clear()
    added += len(suppressions.add(entries))
    read = ngettext("%(count)s row read.", "%(count)s rows read.", rows) % {"count": format_number(rows)}
    new = ngettext("%(count)s entry is new.", "%(count)s entries are new.", added) % {"count": format_number(added)}
    say(command, f"{read} {new}", command.style.SUCCESS)
    if problems:
        for problem in problems[:_MAX_EXPLAINED]:
            warn(command, problem)
        head = ngettext("%(count)s row is left out.", "%(count)s rows are left out.", len(problems))
        raise CommandError(head % {"count": format_number(len(problems))})


def _entries(row: Row, options: Mapping[str, Any]) -> list[Entry]:
    """
    Raises:
        InvalidOption: it makes no entry.
    """
    if row.problem:
        raise InvalidOption(row.problem)
    list_id = row.variables.get("list_id") or options["list_id"]
    scope = row.variables.get("scope") or (None if list_id else options["scope"])
    reason = row.variables.get("reason") or options["reason"]
    address, now = comparable_address(row.to), timezone.now()
    return [
        Entry(at=now, source=Source.IMPORT, reason=reason, address=address, scope=one, list_id=list_id)
        for one in _scopes(scope, list_id)
    ]


def _scopes(scope: str | None, list_id: str) -> tuple[Scope, ...]:
    return scopes_of(scope, check_list_id(list_id, transactional=False))


def export_csv(command: BaseCommand, path: str) -> None:
    """Write the list as CSV.

    Args:
        command: whose output it may go to.
        path: of the file; ``-`` for the standard output.

    Raises:
        CommandError: the file cannot be written.
    """
    if path == "-":
        _write(command.stdout, "\n")  # type: ignore[arg-type]
        return
    file = Path(path)
    # Whole or not at all; and nobody else's business.
    part = file.with_name(f".{file.name}.part")
    try:
        with open(
            os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8-sig", newline=""
        ) as out:
            count = _write(out, "\r\n")
        part.replace(file)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise CommandError(
            _("%(file)s cannot be written: %(error)s") % {"file": path, "error": error.strerror or error}
        ) from error
    written = ngettext("%(count)s entry written.", "%(count)s entries written.", count)
    say(command, written % {"count": format_number(count)}, command.style.SUCCESS)


def _write(file: TextIO, end: str) -> int:
    count = 0
    writer = csv.writer(file, lineterminator=end)
    writer.writerow(COLUMNS)
    for cells in _cells():
        writer.writerow(cells)
        count += 1
    return count


def _cells() -> Iterator[list[str]]:
    for row in suppressions.active().order_by("address", "scope", "list_id").iterator(_CHUNK):
        yield [row.address, row.scope, row.list_id, _escape_formula(row.reason), row.source, row.created_at.isoformat()]


def _escape_formula(text: str) -> str:
    """A spreadsheet program would take what begins so for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
