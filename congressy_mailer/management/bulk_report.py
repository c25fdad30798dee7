"""The report on a spreadsheet: what it holds, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.core.management.base import BaseCommand
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..mime.writer import MailContent
from ..models import Batch
from .console import format_date, format_number, say, warn
from .spreadsheet import ENCODINGS, Row, Spreadsheet

# Rows that are left out of which each is explained.
_MAX_EXPLAINED = 20


@dataclass(slots=True)
class SheetSummary:
    """What the file holds."""

    #: Rows that a mail can be made of.
    valid: int = 0
    #: Rows that none can be made of.
    invalid: int = 0
    #: The first that one can be made of.
    first_valid: Row | None = None
    #: The first that none can be made of.
    explained: list[Row] = field(default_factory=list)


def summarise(sheet: Spreadsheet) -> SheetSummary:
    """Read the whole file.

    Raises:
        SpreadsheetError: the table is broken somewhere.
    """
    summary = SheetSummary()
    for row in sheet.rows():
        if not row.problem:
            summary.valid += 1
            summary.first_valid = summary.first_valid or row
        else:
            summary.invalid += 1
            if summary.invalid <= _MAX_EXPLAINED:
                summary.explained.append(row)
    return summary


def summary_line(sheet: Spreadsheet, summary: SheetSummary) -> str:
    """The file in a line, so that people see whether it was understood."""
    rows = summary.valid + summary.invalid
    delimiters = {";": _("separated by semicolons"), ",": _("separated by commas"), "\t": _("separated by tabs")}
    invalid = ngettext("%(count)s of them wrong", "%(count)s of them wrong", summary.invalid) % {
        "count": format_number(summary.invalid)
    }
    parts = [
        ngettext("%(count)s row", "%(count)s rows", rows) % {"count": format_number(rows)},
        *([invalid] if summary.invalid else []),
        ENCODINGS[sheet.encoding],
        delimiters.get(sheet.delimiter, _("one column")),
    ]
    return f"{sheet.path.name}: {', '.join(parts)}."


def show_preview(
    command: BaseCommand, sheet: Spreadsheet, mail: Mapping[str, Any], rendered: MailContent, to: str
) -> None:
    """The variables that the template has, and one of the mails."""
    heading = command.style.MIGRATE_HEADING
    say(command, _("Variables of the template:"), heading)
    for variable, column in sheet.variables.items():
        say(command, _('  {{ %(variable)s }}: column "%(column)s"') % {"variable": variable, "column": column})
    for name, value in mail["context"].items():
        say(command, f"  {{{{ {name} }}}}: {value}")
    say(command, _("The first mail:"), heading)
    say(command, _("To: %(to)s") % {"to": to})
    say(command, _("Subject: %(subject)s") % {"subject": rendered.subject})
    # Unwrapped: the author of the text has chosen its line breaks.
    command.stdout.write(f"\n{rendered.text.strip()}\n")


def report_dry_run(command: BaseCommand, summary: SheetSummary) -> None:
    """What would become of the file."""
    text = ngettext(
        "Nothing was stored. %(count)s mail would be sent.",
        "Nothing was stored. %(count)s mails would be sent.",
        summary.valid,
    )
    say(command, text % {"count": format_number(summary.valid)})


def report_resumed(command: BaseCommand, batch: Batch) -> None:
    """That some of it is done."""
    stored = {"stored": format_number(batch.progress().total)}
    say(command, _("An earlier run was interrupted after %(stored)s mails. This goes on with the rest.") % stored)


def report_already_stored(command: BaseCommand, batch: Batch) -> None:
    """That there is nothing left to do."""
    assert batch.stored_at is not None
    total = batch.progress().total
    say(
        command,
        ngettext(
            "This was stored on %(date)s, %(count)s mail. Nothing is sent again; for that, add --key with a new key.",
            "This was stored on %(date)s, %(count)s mails. Nothing is sent again; for that, add --key with a new key.",
            total,
        )
        % {"date": format_date(batch.stored_at), "count": format_number(total)},
    )


def report_invalid_rows(command: BaseCommand, summary: SheetSummary) -> None:
    """Rows that no mail could be made of."""
    if summary.invalid:
        head = ngettext("%(count)s row is left out:", "%(count)s rows are left out:", summary.invalid)
        lines = [
            _("  row %(row)d, %(problem)s") % {"row": row.number, "problem": row.problem} for row in summary.explained
        ]
        _report_rows(command, head, lines, summary.invalid)


def report_duplicates(command: BaseCommand, sheet: Spreadsheet, batch: Batch) -> None:
    """Rows that were left out since their address has a mail already."""
    duplicates = "\n".join(str(problem["recipient"]) for problem in batch.problems).casefold()
    seen: set[str] = set()
    lines: list[str] = []
    for row in sheet.rows():
        # Few rows are looked at more closely, so that few addresses are remembered, however many there are.
        if row.problem or row.address not in duplicates:
            continue
        if row.address in seen and len(lines) < _MAX_EXPLAINED:
            lines.append(_("  row %(row)d, %(address)s") % {"row": row.number, "address": row.address})
        seen.add(row.address)
    head = ngettext(
        "%(count)s row has an address that another row has, and is left out:",
        "%(count)s rows have an address that another row has, and are left out:",
        batch.skipped,
    )
    _report_rows(command, head, lines, batch.skipped)


def _report_rows(command: BaseCommand, head: str, lines: Sequence[str], total: int) -> None:
    warn(command, head % {"count": format_number(total)})
    for line in lines:
        warn(command, line)
    if more := total - len(lines):
        warn(command, ngettext("  and %(count)s more", "  and %(count)s more", more) % {"count": format_number(more)})
