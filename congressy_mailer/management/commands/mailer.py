"""``manage.py mailer``: what an operator asks for."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError
from django.utils import timezone
from django.utils.translation import gettext as _

from ... import outbox, suppressions
from ...conf import mailer_settings
from ...health import check_health
from .. import bulk_send, suppression_list, webhooks
from ..console import EXIT_INTERRUPTED


class Command(BaseCommand):
    """``mailer health``, ``purge``, ``send-bulk``, ``sparkpost`` and ``suppressions``."""

    # A probe asks often, and about the mail: what is wrong elsewhere must not answer for it. Whatever sends asks itself
    # whether mail can leave.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        # Here, and not in ``help``: the language is not known when the class is made.
        parser.description = _("Look after the mail: its health, and what is old. Send to many.")
        commands = parser.add_subparsers(dest="command", required=True, title=_("commands"))
        health = commands.add_parser(
            "health", help=_("Say whether mail is moving. Exit status 1 where it is not: for monitoring and probes.")
        )
        health.add_argument("--json", action="store_true", dest="as_json", help=_("Write it as one JSON object."))
        commands.add_parser(
            "purge", help=_("Drop at once what is older than KEEP_CONTENT and KEEP_MESSAGES. The workers do it hourly.")
        )
        bulk_help = _("Send a mail to each address in a spreadsheet. The columns are the variables of the template.")
        bulk_send.add_arguments(commands.add_parser("send-bulk", help=bulk_help, description=bulk_help))
        sparkpost = commands.add_parser("sparkpost", help=_("What SparkPost is to do for the mail."))
        parts = sparkpost.add_subparsers(dest="part", required=True, title=_("commands"))
        webhook_help = _("The webhook that SparkPost posts its events to: create, list, update, test, delete.")
        webhooks.add_arguments(parts.add_parser("webhook", help=webhook_help, description=webhook_help))

        suppressions_help = _("Look after the suppression list: the addresses that get no mail.")
        suppression_list.add_arguments(
            commands.add_parser("suppressions", help=suppressions_help, description=suppressions_help)
        )

    def handle(self, *args: Any, command: str, **options: Any) -> None:
        try:
            if command == "health":
                self._health(options["as_json"])
            elif command == "send-bulk":
                bulk_send.run(self, options)
            elif command == "suppressions":
                suppression_list.run(self, options)
            elif command == "sparkpost":
                webhooks.run(self, options)
            else:
                self._purge()
        except KeyboardInterrupt:
            raise SystemExit(EXIT_INTERRUPTED) from None
        except DatabaseError as error:
            raise CommandError(_("The database cannot be asked: %(error)s") % {"error": error}) from error

    def _health(self, as_json: bool) -> None:
        health = check_health()
        if as_json:
            self.stdout.write(json.dumps({"ok": health.ok, **asdict(health)}, default=_as_json))
        if not health.ok:
            raise CommandError("\n".join(health.problems))
        if not as_json:
            details = {"moment": f"{health.last_sweep:%Y-%m-%d %H:%M:%S %Z}"}
            self.stdout.write(self.style.SUCCESS(_("Mail is moving. Last sweep: %(moment)s.") % details))
            conf = mailer_settings()
            for name, queue in ((conf.QUEUE, health.waiting), (conf.BULK_QUEUE, health.waiting_batches)):
                self.stdout.write(_waiting(name, queue))

    def _purge(self) -> None:
        while outbox.purge() or suppressions.purge():
            self.stdout.write(".", ending="")
            self.stdout.flush()
        outbox.remove_orphans(None)
        self.stdout.write(self.style.SUCCESS(_("Purged.")))


def _waiting(name: str, queue: outbox.Queue) -> str:
    if queue.oldest is None:
        return _("%(queue)s: nothing waits.") % {"queue": name}
    seconds = round((timezone.now() - queue.oldest).total_seconds())
    details = {"queue": name, "count": queue.count, "seconds": seconds}
    return _("%(queue)s: %(count)d waiting, the oldest for %(seconds)d s.") % details


def _as_json(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
