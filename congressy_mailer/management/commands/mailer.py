"""``manage.py mailer``: what an operator asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error
from django.utils.translation import gettext as _

from ...exceptions import NotMigrated
from ...models.transactions import explaining_missing_tables
from .. import (
    bulk_send,
    doctor,
    forget,
    health,
    importing,
    installation,
    messages,
    pauses,
    purge,
    send_test,
    status,
    suppression_list,
    unsubscribe_check,
    webhooks,
)
from ..command_line import complete
from ..console import EXIT_INTERRUPTED


class Command(BaseCommand):
    """The subcommands of ``mailer``, each in a module of :mod:`congressy_mailer.management`."""

    # A probe asks often, and about the mail: what is wrong elsewhere must not answer for it. Whatever sends asks itself
    # whether mail can leave.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        # Here, and not in ``help``: the language is not known when the class is made.
        parser.description = _(
            "Watch and manage the mail: its state and health, single messages, pauses, bulk mail, suppressions, "
            "SparkPost."
        )
        commands = parser.add_subparsers(dest="command", required=True, title=_("commands"))
        health_help = _("Report whether mail is moving. Exit status 1 if it is not, for monitoring and probes.")
        health.add_arguments(commands.add_parser("health", help=health_help))
        status_help = _("Show on one screen what waits, what was sent, what is paused and what is wrong.")
        status.add_arguments(commands.add_parser("status", help=status_help))
        doctor_help = _("Test each part of a mail's way without sending a mail, and say what to do.")
        doctor.add_arguments(commands.add_parser("doctor", help=doctor_help))
        show_help = _("Show what happened to a message, or list the messages to an address.")
        messages.add_show_arguments(commands.add_parser("show", help=show_help))
        moves = {
            "retry": _("Send failed, expired, cancelled or suppressed messages again, to recipients without a copy."),
            "cancel": _("Cancel messages that are not being sent yet."),
            "release": _("Send messages that were set aside (held)."),
        }
        for name, move_help in moves.items():
            messages.add_arguments(commands.add_parser(name, help=move_help), command=name)
        send_test_help = _("Send a test mail to an address, and report its outcome.")
        send_test.add_arguments(commands.add_parser("send-test", help=send_test_help))
        forget_help = _("Erase what is stored about a person, or write it out as JSON (LGPD, GDPR).")
        forget.add_arguments(commands.add_parser("forget", help=forget_help))
        commands.add_parser(
            "purge",
            help=_("Purge at once what is older than KEEP_CONTENT and KEEP_MESSAGES. The workers do so hourly."),
        )
        pause_help = _("Stop all sending, or a part of it, in all workers until it is resumed. Nothing is lost.")
        pauses.add_arguments(commands.add_parser("pause", help=pause_help), pauses=True)
        resume_help = _("Resume what was paused. Exit status 1 if it was not paused.")
        pauses.add_arguments(commands.add_parser("resume", help=resume_help), pauses=False)
        installation_help = _(
            "Show which installation this database belongs to, and the folder of its attachment files."
        )
        installation.add_arguments(commands.add_parser("installation", help=installation_help))
        import_help = _("Import mail that another package has queued, before that package is removed.")
        importing.add_arguments(commands.add_parser("import", help=import_help, description=import_help))
        bulk_help = _("Send a mail to each address in a spreadsheet. The columns are the variables of the template.")
        bulk_send.add_arguments(commands.add_parser("send-bulk", help=bulk_help, description=bulk_help))
        sparkpost = commands.add_parser(
            "sparkpost", help=_("Manage SparkPost's webhook, and verify its List-Unsubscribe header.")
        )
        parts = sparkpost.add_subparsers(dest="part", required=True, title=_("commands"))
        webhook_help = _("The webhook that SparkPost posts its events to: create, list, update, test, delete.")
        webhooks.add_arguments(parts.add_parser("webhook", help=webhook_help, description=webhook_help))
        verify_help = _("Send one real mail and show the List-Unsubscribe that it must have, or check a received mail.")
        unsubscribe_check.add_arguments(
            parts.add_parser("verify-unsubscribe", help=verify_help, description=verify_help)
        )

        suppressions_help = _("Manage the suppression list: the addresses that get no mail.")
        suppression_list.add_arguments(
            commands.add_parser("suppressions", help=suppressions_help, description=suppressions_help)
        )
        complete(parser)

    def handle(self, *args: Any, command: str, **options: Any) -> None:
        try:
            with explaining_missing_tables():
                self._run(command, options)
        except KeyboardInterrupt:
            raise SystemExit(EXIT_INTERRUPTED) from None
        except NotMigrated as error:
            raise CommandError(str(error)) from error
        except CommandError as error:
            if type(error) is CommandError:
                raise
            # Django would print the name of our class, which means nothing to the reader.
            raise CommandError(str(error), returncode=error.returncode) from error
        except Error as error:
            raise CommandError(_("The database cannot be queried: %(error)s") % {"error": error}) from error

    def _run(self, command: str, options: Mapping[str, Any]) -> None:
        if command == "health":
            health.run(self, options)
        elif command in ("pause", "resume"):
            pauses.run(self, options, pauses=command == "pause")
        elif command == "status":
            status.run(self, options)
        elif command == "doctor":
            doctor.run(self, options)
        elif command == "show":
            messages.show(self, options)
        elif command in ("retry", "cancel", "release"):
            messages.run(self, options, command)
        elif command == "send-test":
            send_test.run(self, options)
        elif command == "forget":
            forget.run(self, options)
        elif command == "installation":
            installation.run(self, options)
        elif command == "import":
            importing.run(self, options)
        elif command == "send-bulk":
            bulk_send.run(self, options)
        elif command == "suppressions":
            suppression_list.run(self, options)
        elif command == "sparkpost":
            (webhooks if options["part"] == "webhook" else unsubscribe_check).run(self, options)
        else:
            purge.run(self)
