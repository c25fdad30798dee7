"""``manage.py mailer import``: what another package has queued, on the way to removing that package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..exceptions import MailerError
from ..importers.django_mailer import DjangoMailerQueue, import_refused_addresses
from ..importers.post_office import PostOfficeQueue
from ..importers.post_office_templates import write_templates
from ..importers.queue import Imported, ImportRefused, Queue
from .console import format_number, progress_bar, say, warn


def add_arguments(parser: CommandParser) -> None:
    """Which package, and what of it."""
    packages = parser.add_subparsers(dest="package", required=True, title=_("packages"))
    post_office = packages.add_parser(
        "post-office", help=_("Import queued mail of django-post_office, and its templates as files.")
    )
    post_office.add_argument(
        "--templates",
        type=Path,
        metavar=_("DIRECTORY"),
        help=_("Write its templates to this directory. Existing files are not changed."),
    )
    django_mailer = packages.add_parser(
        "django-mailer", help=_("Import queued mail of django-mailer, and its don't-send list.")
    )
    for package in (post_office, django_mailer):
        package.add_argument("--dry-run", action="store_true", help=_("Read everything, and change nothing."))


def run(command: BaseCommand, options: Mapping[str, Any]) -> None:
    """Import what is asked for, and say what became of it.

    Raises:
        CommandError: nothing could be imported, or something is left where it was.
    """
    dry_run = options["dry_run"]
    try:
        if options["package"] == "post-office":
            left = _write_templates(command, options["templates"], dry_run=dry_run) if options["templates"] else 0
            left += _import_queue(command, PostOfficeQueue(), dry_run=dry_run)
        else:
            left = _import_addresses(command, dry_run=dry_run)
            left += _import_queue(command, DjangoMailerQueue(), dry_run=dry_run)
    except (ImportRefused, MailerError, OSError) as error:
        raise CommandError(str(error)) from error
    if dry_run:
        say(command, _("Nothing was changed."))
    if left:
        raise CommandError(
            ngettext("%(count)s is left where it was.", "%(count)s are left where they were.", left)
            % {"count": format_number(left)}
        )


def _write_templates(command: BaseCommand, folder: Path, *, dry_run: bool) -> int:
    result = write_templates(folder, dry_run=dry_run)
    for path in result.written:
        say(command, f"  {path}")
    count = len(result.written)
    if dry_run:
        text = ngettext("%(count)s file would be written.", "%(count)s files would be written.", count)
    else:
        text = ngettext("%(count)s file was written.", "%(count)s files were written.", count)
    say(command, text % {"count": format_number(count)}, command.style.SUCCESS)
    if result.known:
        text = ngettext("%(count)s file was there already.", "%(count)s files were there already.", result.known)
        say(command, text % {"count": format_number(result.known)})
    for problem in result.left:
        warn(command, _("  template %(problem)s") % {"problem": problem})
    return len(result.left)


def _import_addresses(command: BaseCommand, *, dry_run: bool) -> int:
    count, problems = import_refused_addresses(dry_run=dry_run)
    if dry_run:
        text = ngettext(
            "%(count)s address would come onto the suppression list.",
            "%(count)s addresses would come onto the suppression list.",
            count,
        )
    else:
        text = ngettext(
            "%(count)s address is new on the suppression list.",
            "%(count)s addresses are new on the suppression list.",
            count,
        )
    say(command, text % {"count": format_number(count)}, command.style.SUCCESS)
    for problem in problems:
        warn(command, f"  {problem}")
    return len(problems)


def _import_queue(command: BaseCommand, queue: Queue, *, dry_run: bool) -> int:
    with progress_bar(command, _("Importing"), queue.rows().count()) as advance:
        result = queue.import_all(dry_run=dry_run, advance=advance)
    say(command, _summary(result, dry_run=dry_run), command.style.SUCCESS)
    if result.known:
        text = ngettext(
            "%(count)s mail had been imported before.", "%(count)s mails had been imported before.", result.known
        )
        say(command, text % {"count": format_number(result.known)})
    for problem in result.left:
        warn(command, f"  {problem}")
    return len(result.left)


def _summary(result: Imported, *, dry_run: bool) -> str:
    if dry_run:
        text = ngettext("%(count)s mail would be imported.", "%(count)s mails would be imported.", result.imported)
    else:
        text = ngettext(
            "%(count)s mail is in the outbox now.", "%(count)s mails are in the outbox now.", result.imported
        )
    return text % {"count": format_number(result.imported)}
