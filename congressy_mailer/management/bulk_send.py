"""``manage.py mailer send-bulk``: a mail for each row of a spreadsheet."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2s, sha256
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections
from django.template import TemplateSyntaxError
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import outbox
from ..bulk import send_bulk
from ..conf.tenants import tenants_key
from ..content.templates import render
from ..exceptions import MailerError
from ..mime.attachments import LoadedAttachment
from ..mime.writer import MailContent
from ..models import Batch
from ..submission.fields import MailFields, mail_fields
from ..submission.mail_request import MailRequest
from ..submission.recipients import Recipient
from .bulk_progress import show_progress
from .bulk_report import (
    SheetSummary,
    report_already_stored,
    report_dry_run,
    report_duplicates,
    report_invalid_rows,
    report_resumed,
    show_preview,
    summarise,
    summary_line,
)
from .console import EXIT_INTERRUPTED, format_date, format_number, progress_bar, say, warn, wrap
from .spreadsheet import Row, Spreadsheet


def add_arguments(parser: CommandParser) -> None:
    """The arguments of ``mailer send-bulk``."""
    parser.add_argument("template", metavar=_("TEMPLATE"), help=_("Name of the template, such as event/reminder."))
    parser.add_argument(
        "file", metavar=_("FILE"), help=_("The recipients, as CSV; its first row names the columns."), type=Path
    )
    parser.add_argument("--subject", default="", metavar=_("TEXT"), help=_("Subject, instead of the template's."))
    parser.add_argument(
        "--email-column",
        default="",
        metavar=_("COLUMN"),
        help=_("Column of the addresses, if it is not found by name."),
    )
    parser.add_argument("--name-column", default="", metavar=_("COLUMN"), help=_("Column of the recipients' names."))
    parser.add_argument(
        "--context",
        action="append",
        default=[],
        type=_parse_variable,
        metavar=_("NAME=VALUE"),
        help=_("A variable with the same value in all mails. May be repeated."),
    )
    parser.add_argument("--language", metavar=_("CODE"), help=_("Language of the mails, such as pt-br."))
    parser.add_argument("--from", dest="from_email", metavar=_("ADDRESS"), help=_("Sender."))
    parser.add_argument(
        "--reply-to", action="append", metavar=_("ADDRESS"), help=_("Address for replies. May be repeated.")
    )
    parser.add_argument(
        "--transactional",
        action="store_true",
        help=_("The mails answer something that their recipients did. Without this option they are marketing."),
    )
    parser.add_argument(
        "--list",
        dest="list_id",
        metavar=_("LIST"),
        help=_("Id in LISTS of the mails' list. Addresses that have left it get no mail."),
    )
    parser.add_argument(
        "--campaign", metavar=_("TEXT"), help=_("SparkPost's campaign, by which its events are distinguished.")
    )
    parser.add_argument(
        "--attach",
        action="append",
        default=[],
        metavar=_("FILE"),
        type=Path,
        help=_("A file to attach to every mail. May be repeated."),
    )
    parser.add_argument(
        "--key",
        metavar=_("KEY"),
        help=_(
            "Identifies this sending: nobody gets two mails with the same key. By default it is derived from the file, "
            "the template's name and the options that change the mails."
        ),
    )
    parser.add_argument(
        "--dry-run", action="store_true", help=_("Read the whole file and show the first mail; store nothing.")
    )
    parser.add_argument(
        "--no-input", "--noinput", action="store_false", dest="ask", help=_("Do not ask for confirmation.")
    )
    parser.add_argument(
        "--wait", action="store_true", help=_("Wait until the mails are sent. Ctrl-C ends only the waiting.")
    )


def _parse_variable(argument: str) -> tuple[str, str]:
    name, equals, value = argument.partition("=")
    if not equals or not name.isidentifier() or name.startswith("_"):
        raise ArgumentTypeError(_('"%(given)s" is not of the form NAME=VALUE.') % {"given": argument})
    return name, value


def run(command: BaseCommand, options: Mapping[str, Any]) -> None:
    """Do what is asked for.

    Raises:
        CommandError: nothing could be sent.
        SystemExit: the user has pressed Ctrl-C.
    """
    command.check(tags=["congressy_mailer"])
    sheet = Spreadsheet(options["file"], email_column=options["email_column"], name_column=options["name_column"])
    mail = {
        "template": options["template"],
        "subject": options["subject"],
        "context": _shared_context(options["context"], sheet),
        "language": options["language"],
        "from_email": options["from_email"],
        "reply_to": options["reply_to"],
        "attachments": options["attach"],
        "transactional": options["transactional"],
        "list_id": options["list_id"],
        "campaign": options["campaign"],
    }
    fields, attachments = _check_mail(mail)
    summary = summarise(sheet)
    say(command, summary_line(sheet, summary))
    if summary.first_valid is None:
        report_invalid_rows(command, summary)
        if summary.invalid:
            raise CommandError(_("No mail can be sent: every row is left out."))
        raise CommandError(_("No mail can be sent: there is no row with an address."))
    if options["dry_run"]:
        show_preview(command, sheet, mail, _render_row(mail, fields, summary.first_valid), summary.first_valid.to)
        report_invalid_rows(command, summary)
        report_dry_run(command, summary)
        return
    key = options["key"] if options["key"] is not None else _default_key(mail, sheet, attachments)
    batch = _find_batch(mail, key)
    if batch is not None and batch.stored_at is not None:
        report_already_stored(command, batch)
    else:
        if batch is not None:
            report_resumed(command, batch)
        if options["ask"] and sys.stdin.isatty() and not _confirm(command, mail, summary):
            say(command, _("Nothing was sent."))
            return
        batch = _store(command, sheet, summary, mail, key)
        report_invalid_rows(command, summary)
        if summary.invalid:
            warn(
                command,
                _(
                    "Once they are corrected, send only them, in a separate file: a changed file is sent to everybody "
                    "in it."
                ),
            )
    if options["wait"]:
        show_progress(command, batch)


def _shared_context(variables: Sequence[tuple[str, str]], sheet: Spreadsheet) -> dict[str, str]:
    context: dict[str, str] = {}
    for name, value in variables:
        if name in context:
            raise CommandError(_("--context %(name)s is given twice.") % {"name": name})
        if name in sheet.variables:
            raise CommandError(
                _('--context %(name)s: the column "%(column)s" is that variable. Give it another name.')
                % {"name": name, "column": sheet.variables[name]}
            )
        context[name] = value
    return context


def _check_mail(mail: Mapping[str, Any]) -> tuple[MailFields, list[LoadedAttachment]]:
    """The arguments of send_bulk(), checked now: errors are reported before the user is asked anything."""
    try:
        return mail_fields(MailRequest(**mail))
    except (MailerError, TemplateSyntaxError) as error:
        raise CommandError(str(error)) from error


def _default_key(mail: Mapping[str, Any], sheet: Spreadsheet, attachments: Sequence[LoadedAttachment]) -> str:
    """The same where the same is said to the same people."""
    identity = [
        *(mail[name] for name in ("template", "subject", "context", "language", "from_email", "reply_to")),
        [(one.filename, one.sha256) for one in attachments],
        sheet.sha256,
        sheet.email_column,
        sheet.name_column,
    ]
    digest = sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return f"{mail['template'][:150]} {digest[:32]}"


def _find_batch(mail: Mapping[str, Any], key: str) -> Batch | None:
    """What an earlier run with this key has stored.

    Raises:
        CommandError: it is not to be continued.
    """
    batch = Batch.objects.using(outbox.database()).filter(key=tenants_key(key)).first()
    if batch is None:
        return None
    if batch.template != mail["template"]:
        raise CommandError(
            _('The key "%(key)s" was used with the template "%(template)s". Give another one, with --key.')
            % {"key": key, "template": batch.template}
        )
    if batch.cancelled_at is not None:
        raise CommandError(
            _("This was cancelled on %(date)s. To send it anyway, give it a new key with --key.")
            % {"date": format_date(batch.cancelled_at)}
        )
    return batch


def _confirm(command: BaseCommand, mail: Mapping[str, Any], summary: SheetSummary) -> bool:
    question = ngettext(
        "Send '%(template)s' to %(count)s recipient? [y/N]",
        "Send '%(template)s' to %(count)s recipients? [y/N]",
        summary.valid,
    )
    question %= {"template": mail["template"], "count": format_number(summary.valid)}
    try:
        answer = input(f"{wrap(command.stdout, question)} ")
    except (EOFError, KeyboardInterrupt):
        # The question has no line end of its own.
        print()
        return False
    return answer.strip().lower() in {"y", "yes", _("y"), _("yes")}


def _store(command: BaseCommand, sheet: Spreadsheet, summary: SheetSummary, mail: Mapping[str, Any], key: str) -> Batch:
    """Store what no earlier run has stored.

    Raises:
        CommandError: it was cancelled meanwhile.
        SystemExit: the user has pressed Ctrl-C.
    """
    try:
        with progress_bar(command, _("Storing"), summary.valid) as advance:
            batch = send_bulk(_recipients(sheet, advance), **mail, key=key, on_invalid="skip")
    except MailerError as error:
        raise CommandError(str(error)) from error
    except KeyboardInterrupt:
        # Its answer may still be on the way, and would be taken for that to the next question.
        connections[outbox.database()].close()
        warn(command, _interruption_message(key, summary))
        sys.exit(EXIT_INTERRUPTED)
    if batch.cancelled_at is not None:
        raise CommandError(_("This was cancelled while it was being stored."))
    total = batch.progress().total
    stored = ngettext("%(count)s mail is on its way.", "%(count)s mails are on their way.", total)
    say(command, stored % {"count": format_number(total)}, command.style.SUCCESS)
    say(command, _("The same command sends nobody a second mail. To send all of it again, add --key with a new key."))
    say(command, _("Key: %(key)s") % {"key": key})
    if batch.skipped:
        report_duplicates(command, sheet, batch)
    return batch


def _recipients(sheet: Spreadsheet, advance: Callable[[int], None]) -> Iterator[Recipient]:
    for row in sheet.rows():
        if not row.problem:
            # The address identifies the person, not the display name; cut to the length of a key.
            key = blake2s(row.address.encode()).hexdigest()
            yield Recipient(to=row.to, context=row.variables, key=key)
            advance(1)


def _interruption_message(key: str, summary: SheetSummary) -> str:
    batch = Batch.objects.using(outbox.database()).filter(key=tenants_key(key)).first()
    stored = batch.progress().total if batch else 0
    if not stored:
        return _("Interrupted. Nothing was stored.")
    return _(
        "Interrupted. %(stored)s of %(total)s mails are stored, and will be sent. The same command goes on with the "
        "rest."
    ) % {"stored": format_number(stored), "total": format_number(summary.valid)}


def _render_row(mail: Mapping[str, Any], fields: MailFields, row: Row) -> MailContent:
    """The mail for one row.

    Raises:
        CommandError: the template fails.
    """
    try:
        return render(
            mail["template"],
            {**mail["context"], **row.variables},
            subject=fields.subject,
            language=fields.language,
            timezone=fields.timezone,
        )
    except MailerError as error:
        raise CommandError(_("Row %(row)d: %(error)s") % {"row": row.number, "error": error}) from error
