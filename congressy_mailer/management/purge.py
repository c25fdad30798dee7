"""``manage.py mailer purge``: what the workers drop hourly, dropped at once."""

from __future__ import annotations

from django.core.management.base import BaseCommand
from django.utils.translation import gettext as _

from ..delivery.upkeep import purge_some


def run(command: BaseCommand) -> None:
    """Drop what is older than the settings keep, with a dot for each part."""
    dots = 0
    ended: set[str] = set()
    while purge_some(ended):
        command.stdout.write(".", ending="")
        command.stdout.flush()
        dots += 1
    if dots:
        command.stdout.write("")
    command.stdout.write(command.style.SUCCESS(_("Purged.")))
