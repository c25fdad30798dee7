"""``manage.py mailer health``: whether mail is moving, for monitoring and probes. What decides it: ``health.py``."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone
from django.utils.translation import gettext as _

from ..conf import mailer_settings
from ..health import Health, check_health, format_time
from ..models import PauseScope
from ..outbox import Queue
from ..transports.destinations import Destination, destinations
from . import pauses
from .console import say


def add_arguments(parser: ArgumentParser) -> None:
    """What can be said behind ``mailer health``."""
    parser.add_argument("--json", action="store_true", dest="as_json", help=_("Write it as one JSON object."))


def run(command: BaseCommand, options: Mapping[str, Any]) -> None:
    """Say whether mail is moving.

    Raises:
        CommandError: it is not; the exit status is 1.
    """
    health = check_health()
    # No failure: mail moves, and in development it is to go nowhere. Mail of production that is lost so is seen.
    unsent = {alias: found for alias, found in destinations().items() if not found.is_real}
    if options["as_json"]:
        backends = {alias: found.text for alias, found in unsent.items()}
        found = {"ok": health.ok, **asdict(health), "reaches_nobody": backends}
        command.stdout.write(json.dumps(found, default=_as_json))
    else:
        for held in health.paused:
            say(command, pauses.describe(held), command.style.WARNING)
        if health.ok:
            _show_queues(command, health)
        _show_what_reaches_nobody(command, unsent)
        if health.ok:
            _show_deferred(command, health)
    if not health.ok:
        raise CommandError("\n".join(health.problems))


def _show_queues(command: BaseCommand, health: Health) -> None:
    details = {"moment": format_time(health.last_sweep) if health.last_sweep else ""}
    is_moving = all(held.scope != PauseScope.ALL for held in health.paused)
    text = _("Mail is moving. Last sweep: %(moment)s") if is_moving else _("Last sweep: %(moment)s")
    command.stdout.write(command.style.SUCCESS(text % details))
    conf = mailer_settings()
    for name, queue in ((conf.QUEUE, health.waiting), (conf.BULK_QUEUE, health.waiting_batches)):
        command.stdout.write(_waiting(name, queue))


def _show_what_reaches_nobody(command: BaseCommand, backends: Mapping[str, Destination]) -> None:
    for alias, found in backends.items():
        text = _("Mail backend %(alias)s: mail %(where)s") % {"alias": alias, "where": found.shown}
        command.stdout.write(command.style.WARNING(text))


def _show_deferred(command: BaseCommand, health: Health) -> None:
    if health.deferred.next_try is not None:
        text = _("%(count)d deferred, tried again from %(next)s: the admin shows why.")
        values = {"count": health.deferred.count, "next": format_time(health.deferred.next_try)}
        command.stdout.write(text % values)


def _waiting(name: str, queue: Queue) -> str:
    if queue.oldest is None:
        return _("%(queue)s: nothing waits.") % {"queue": name}
    seconds = round((timezone.now() - queue.oldest).total_seconds())
    details = {"queue": name, "count": queue.count, "seconds": seconds}
    return _("%(queue)s: %(count)d waiting, the oldest for %(seconds)d s.") % details


def _as_json(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
