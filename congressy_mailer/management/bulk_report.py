"""What a spreadsheet holds, and what people are told of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.core.management.base import BaseCommand
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..mime.writer import Rendered
from ..models import Batch
from .console import date_of, number, say, warn
from .spreadsheet import ENCODINGS, Row, Spreadsheet

# Rows that are left out of which each is explained.
_EXPLAINED = 20


@dataclass(slots=True)
class Found:
    """What the file holds."""

    #: Rows that a mail can be made of.
    good: int = 0
    #: Rows that none can be made of.
    bad: int = 0
    #: The first that one can be made of.
    first: Row | None = None
    #: The first that none can be made of.
    explained: list[Row] = field(default_factory=list)


def looked_through(sheet: Spreadsheet) -> Found:
    """Read the whole file.

    Raises:
        SpreadsheetError: the table is broken somewhere.
    """
    found = Found()
    for row in sheet.rows():
        if not row.problem:
            found.good += 1
            found.first = found.first or row
        else:
            found.bad += 1
            if found.bad <= _EXPLAINED:
                found.explained.append(row)
    return found


def described(sheet: Spreadsheet, found: Found) -> str:
    """The file in a line, so that people see whether it was understood."""
    rows = found.good + found.bad
    delimiters = {";": _("separated by semicolons"), ",": _("separated by commas"), "\t": _("separated by tabs")}
    wrong = ngettext("%(count)s of them wrong", "%(count)s of them wrong", found.bad) % {"count": number(found.bad)}
    told = [
        ngettext("%(count)s row", "%(count)s rows", rows) % {"count": number(rows)},
        *([wrong] if found.bad else []),
        ENCODINGS[sheet.encoding],
        delimiters.get(sheet.delimiter, _("one column")),
    ]
    return f"{sheet.path.name}: {', '.join(told)}."


def show_first(command: BaseCommand, sheet: Spreadsheet, mail: Mapping[str, Any], rendered: Rendered, to: str) -> None:
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
    # As it is: whoever wrote it has chosen its lines.
    command.stdout.write(f"\n{rendered.text.strip()}\n")


def tell_not_stored(command: BaseCommand, found: Found) -> None:
    """What would become of the file."""
    would = ngettext(
        "Nothing was stored. %(count)s mail would be sent.",
        "Nothing was stored. %(count)s mails would be sent.",
        found.good,
    )
    say(command, would % {"count": number(found.good)})


def tell_continued(command: BaseCommand, batch: Batch) -> None:
    """That some of it is done."""
    stored = {"stored": number(batch.progress().total)}
    say(command, _("An earlier run was interrupted after %(stored)s mails. This goes on with the rest.") % stored)


def tell_done(command: BaseCommand, batch: Batch) -> None:
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
        % {"date": date_of(batch.stored_at), "count": number(total)},
    )


def tell_left_out(command: BaseCommand, found: Found) -> None:
    """Rows that no mail could be made of."""
    if found.bad:
        head = ngettext("%(count)s row is left out:", "%(count)s rows are left out:", found.bad)
        lines = [
            _("  row %(row)d, %(problem)s") % {"row": row.number, "problem": row.problem} for row in found.explained
        ]
        _tell_rows(command, head, lines, found.bad)


def tell_repeated(command: BaseCommand, sheet: Spreadsheet, batch: Batch) -> None:
    """Rows that were left out since their address has a mail already."""
    repeated = "\n".join(str(problem["recipient"]) for problem in batch.problems).casefold()
    seen: set[str] = set()
    lines: list[str] = []
    for row in sheet.rows():
        # Few rows are looked at more closely, so that few addresses are remembered, however many there are.
        if row.problem or row.address not in repeated:
            continue
        if row.address in seen and len(lines) < _EXPLAINED:
            lines.append(_("  row %(row)d, %(address)s") % {"row": row.number, "address": row.address})
        seen.add(row.address)
    head = ngettext(
        "%(count)s row has an address that another row has, and is left out:",
        "%(count)s rows have an address that another row has, and are left out:",
        batch.skipped,
    )
    _tell_rows(command, head, lines, batch.skipped)


def _tell_rows(command: BaseCommand, head: str, lines: Sequence[str], total: int) -> None:
    warn(command, head % {"count": number(total)})
    for line in lines:
        warn(command, line)
    if more := total - len(lines):
        warn(command, ngettext("  and %(count)s more", "  and %(count)s more", more) % {"count": number(more)})
