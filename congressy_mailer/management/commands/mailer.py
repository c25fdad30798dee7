"""``manage.py mailer``: what an operator asks for."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ... import outbox
from ...health import check_health


class Command(BaseCommand):
    """``mailer health`` and ``mailer purge``."""

    help = "Look after the mail: its health, and what is old."

    def add_arguments(self, parser: CommandParser) -> None:
        commands = parser.add_subparsers(dest="command", required=True, title="commands")
        commands.add_parser(
            "health", help="Say whether mail is moving. Exit status 1 where it is not: for monitoring and probes."
        )
        commands.add_parser(
            "purge", help="Drop at once what is older than KEEP_CONTENT and KEEP_MESSAGES. The workers do it hourly."
        )

    def handle(self, *args: Any, command: str, **options: Any) -> None:
        {"health": self._health, "purge": self._purge}[command]()

    def _health(self) -> None:
        health = check_health()
        if not health.ok:
            raise CommandError("\n".join(health.problems))
        self.stdout.write(self.style.SUCCESS(f"Mail is moving. Last sweep: {health.last_sweep:%Y-%m-%d %H:%M:%S %Z}."))

    def _purge(self) -> None:
        while outbox.purge():
            self.stdout.write(".", ending="")
            self.stdout.flush()
        outbox.remove_orphans(None)
        self.stdout.write(self.style.SUCCESS("Purged."))
