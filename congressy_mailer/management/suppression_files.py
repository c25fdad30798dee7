"""The suppression list from a file, and into one."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import suppressions
from ..exceptions import InvalidOption
from ..mime.addresses import comparable_address
from ..suppressions.entries import REMOTE_SOURCES, Entry
from ..suppressions.lists import check_list_id
from ..suppressions.rules import Scope, Source, scopes_of
from .console import format_number, say, warn
from .formulas import neutralise, restore
from .spreadsheet import Row, Spreadsheet

#: Columns of an export; an import reads the address, and those of the next four that are there.
COLUMNS = ("email", "scope", "list_id", "reason", "source", "created_at")

# Entries that are stored at once.
_CHUNK = 1000

#: Rows that are left out of which each is explained.
MAX_EXPLAINED = 20


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What became of a file."""

    #: Rows that were read.
    rows: int
    #: Entries that are new.
    added: int
    #: Of each row that was left out, which and why.
    problems: list[str]


def import_file(path: Path, options: Mapping[str, Any]) -> ImportResult:
    """Add the addresses in a file to the list. Invalid rows are reported one by one, and the others are added.

    Args:
        path: of a table as spreadsheet programs export it.
        options: ``email_column``, and what counts where no column says so: ``scope``, ``list_id`` and ``reason``.

    Raises:
        SpreadsheetError: the file cannot be read.
        InvalidOption: an option makes no sense.
    """
    sheet = Spreadsheet(path, email_column=options["email_column"], read_cell=restore)
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
    return ImportResult(rows, added, problems)


def import_summary(result: ImportResult) -> str:
    """What became of a file, in a sentence or two."""
    read = ngettext("%(count)s row read.", "%(count)s rows read.", result.rows) % {"count": format_number(result.rows)}
    new = ngettext("%(count)s entry is new.", "%(count)s entries are new.", result.added)
    return f"{read} {new % {'count': format_number(result.added)}}"


def left_out_summary(result: ImportResult) -> str:
    """How many rows were left out."""
    head = ngettext("%(count)s row is left out.", "%(count)s rows are left out.", len(result.problems))
    return head % {"count": format_number(len(result.problems))}


def import_csv(command: BaseCommand, options: Mapping[str, Any]) -> None:
    """Put the addresses in a file on the list, and say what became of it.

    Raises:
        CommandError: the file cannot be read, or some of its rows were left out.
    """
    result = import_file(options["file"], options)
    say(command, import_summary(result), command.style.SUCCESS)
    if result.problems:
        for problem in result.problems[:MAX_EXPLAINED]:
            warn(command, problem)
        raise CommandError(left_out_summary(result))


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
    source = _SOURCES.get(str(row.variables.get("source", "")).strip().lower(), Source.IMPORT)
    address, now = comparable_address(row.to), timezone.now()
    return [
        Entry(at=now, source=source, reason=reason, address=address, scope=one, list_id=list_id)
        for one in _scopes(scope, list_id)
    ]


# Those that an export writes. What SparkPost's list had when it was exported is no word of SparkPost's any more.
_SOURCES: Mapping[str, Source] = {
    **{source.value: source for source in set(Source) - REMOTE_SOURCES},
    Source.SPARKPOST_UNSUBSCRIBE.value: Source.UNSUBSCRIBE,
}


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
    # Written as a whole or not at all, and readable by its owner only.
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
    writer = csv.writer(file, lineterminator=end)
    count = -1
    for count, row in enumerate(export_rows()):  # noqa: B007
        writer.writerow(row)
    return count


def export_rows() -> Iterator[list[str]]:
    """The rows of an export, the first of which names the columns. No cell is a formula."""
    yield [neutralise(cell) for cell in COLUMNS]
    for cells in _cells():
        yield [neutralise(cell) for cell in cells]


def _cells() -> Iterator[list[str]]:
    for row in suppressions.active().order_by("address", "scope", "list_id", "source").iterator(_CHUNK):
        yield [row.address, row.scope, row.list_id, row.reason, row.source, row.created_at.isoformat()]
