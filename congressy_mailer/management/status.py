"""``manage.py mailer status``: how the mail is, on one screen."""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from kombu.exceptions import OperationalError

from .. import metrics, outbox
from ..broker.depths import queue_depths
from ..conf import mailer_settings
from ..health import Health, check_health
from ..metrics.counters import ACCEPTED, DEFERRED, FAILED
from ..models import State, clock
from ..replies import error_text
from ..transports.destinations import destinations
from .console import format_date, format_duration, format_number, say
from .pauses import describe

# Seconds that the broker may take: the screen is to be there at once.
_BROKER_TIMEOUT = 0.5

#: The last minutes that are added up.
_PERIODS = (1, 5, 60)


@dataclass(frozen=True, slots=True)
class Status:
    """Everything that the screen shows."""

    at: datetime
    health: Health
    #: Messages by state, those that something is still to become of; counted up to ``COUNTED`` of each kind.
    states: dict[str, int]
    #: Tasks in the broker by queue; ``None``: it cannot be asked.
    tasks: dict[str, int] | None
    #: Why the broker cannot be asked.
    broker_error: str
    #: By period in minutes: how many messages were accepted, deferred and failed.
    outcomes: dict[int, dict[str, int]] = field(default_factory=dict)
    #: By alias of each mail backend: where it leads.
    backends: dict[str, str] = field(default_factory=dict)


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of ``mailer status``."""
    parser.add_argument("--json", action="store_true", dest="as_json", help=_("Write it as one JSON object."))
    parser.add_argument(
        "--watch",
        nargs="?",
        type=float,
        const=2.0,
        metavar=_("SECONDS"),
        help=_("Refresh every so many seconds (default: 2), until Ctrl-C."),
    )


def run(command: BaseCommand, options: Mapping[str, Any]) -> None:
    """Show it."""
    while True:
        status = read_status()
        if options["as_json"]:
            command.stdout.write(json.dumps(asdict(status), default=_as_json))
        else:
            if options["watch"] is not None and command.stdout.isatty():
                # Home, and clear the screen.
                command.stdout.write("\x1b[H\x1b[2J", ending="")
            _show(command, status)
        if options["watch"] is None:
            return
        command.stdout.flush()
        time.sleep(max(options["watch"], 0.2))


def read_status() -> Status:
    """Ask the database, and the broker as far as it answers at once."""
    conf = mailer_settings()
    tasks: dict[str, int] | None = None
    error = ""
    try:
        tasks = queue_depths((conf.QUEUE, conf.BULK_QUEUE), _BROKER_TIMEOUT)
    except (OperationalError, ImproperlyConfigured) as raised:
        error = error_text(raised)
    now = clock.now()
    return Status(
        at=now,
        health=check_health(),
        states={state.value: count for state, count in outbox.count_open().items()},
        tasks=tasks,
        broker_error=error,
        outcomes=_outcomes(now),
        backends={alias: found.text for alias, found in destinations().items()},
    )


def _outcomes(now: datetime) -> dict[int, dict[str, int]]:
    this_minute = now.replace(second=0, microsecond=0)
    counted = metrics.minutes(this_minute - timedelta(minutes=max(_PERIODS)))
    result = {}
    for period in _PERIODS:
        found: Counter[str] = Counter()
        for minute, counts in counted.items():
            # The minute that has just begun tells nothing yet.
            if this_minute - timedelta(minutes=period) <= minute < this_minute:
                for (*_key, name), count in counts.items():
                    found["deferred" if name.startswith(DEFERRED) else name] += count
        result[period] = {name: found[name] for name in (ACCEPTED, "deferred", FAILED)}
    return result


def _show(command: BaseCommand, status: Status) -> None:
    health = status.health
    if health.problems:
        count = len(health.problems)
        text = ngettext("%(count)d problem:", "%(count)d problems:", count) % {"count": count}
        say(command, text, command.style.ERROR)
        for problem in health.problems:
            say(command, f"  - {problem}")
    else:
        say(command, _("No problem found."), command.style.SUCCESS)
    for held in health.paused:
        say(command, describe(held), command.style.WARNING)
    for line in _lines(status):
        say(command, line.rstrip())


def _lines(status: Status) -> Iterator[str]:
    conf, health = mailer_settings(), status.health
    yield ""
    rows = [[_("Queue"), _("waiting"), _("oldest"), _("tasks in the broker")]]
    for name, waiting in ((conf.QUEUE, health.waiting), (conf.BULK_QUEUE, health.waiting_batches)):
        most = outbox.COUNTED_BATCHES if name == conf.BULK_QUEUE else outbox.COUNTED
        count = _count(waiting.count, most)
        if name == conf.BULK_QUEUE:
            count = ngettext("%(count)s batch", "%(count)s batches", waiting.count) % {"count": count}
        age = "-" if waiting.oldest is None else format_duration(status.at - waiting.oldest)
        tasks = "?" if status.tasks is None else format_number(status.tasks[name])
        rows.append([name, count, age, tasks])
    yield from _table(rows)
    if status.broker_error:
        yield _("The broker cannot be queried: %(error)s") % {"error": status.broker_error[:200]}
    yield ""
    rows = [[_("Messages"), *(str(State(state).label) for state in status.states)]]
    rows.append(["", *(_count(count) for count in status.states.values())])
    yield from _table(rows)
    if health.deferred.next_try is not None:
        yield _("Next try of what is deferred: %(next)s") % {"next": format_date(health.deferred.next_try)}
    yield ""
    names = {ACCEPTED: _("accepted"), "deferred": _("deferred"), FAILED: _("failed")}
    rows = [[_("Last"), *(_("%(count)d min") % {"count": period} for period in status.outcomes)]]
    rows += [
        [text, *(format_number(found[name]) for found in status.outcomes.values())] for name, text in names.items()
    ]
    yield from _table(rows)
    yield ""
    unavailable = {one.using or outbox.DEFAULT_BACKEND for one in health.unavailable if not one.sender_domain}
    for alias, found in destinations().items():
        if not found.is_real:
            yield _("Mail backend %(alias)s: mail %(where)s") % {"alias": alias, "where": found.shown}
            continue
        state = _("unavailable") if alias in unavailable else _("usable")
        text = _("Mail backend %(alias)s: %(state)s, %(where)s")
        yield text % {"alias": alias, "state": state, "where": found.details["server"]}
    swept = format_date(health.last_sweep) if health.last_sweep else "-"
    yield _("Last sweep: %(moment)s") % {"moment": swept}


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        first, *others = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "   ".join([first, *others])


def _count(count: int, most: int = outbox.COUNTED) -> str:
    """Where counting stopped, that there may be more."""
    return f"{format_number(count)}{'+' if count and count % most == 0 else ''}"


def _as_json(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else str(value)
