"""Whether mail is moving, for an operator's monitoring."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from uuid import UUID

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from . import outbox, periodic
from .conf import mailer_settings
from .delivery import availability
from .models import TaskFailure, TransportStatus, clock
from .models.transactions import explaining_missing_tables
from .outbox import Deferred, Queue
from .tracking import inbox

# A sweep that is late by this many intervals is missing.
_MISSED_SWEEPS = 4

# The workers purge once an hour; where much has come of age at once, for longer.
_PURGE_TOLERANCE = timedelta(hours=6)

# Batches that are named one by one.
_MOST_NAMED = 10

# A storage may be away for a while.
_FILES_TOLERANCE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class HeldBack:
    """A pause that is in force."""

    #: A value of :class:`congressy_mailer.models.PauseScope`.
    scope: str
    #: Name of the queue, mail backend, campaign or batch; empty if all sending is paused.
    name: str
    #: Description of what is paused, in the active language.
    label: str
    #: Reason of the pause.
    reason: str
    #: Person who paused.
    by: str
    #: Time at which the pause began.
    since: datetime
    #: Messages outside batches that workers have put back because of it, counted as in :attr:`Health.waiting`.
    messages: int
    #: Batches that have stopped because of it.
    batches: int


@dataclass(frozen=True, slots=True)
class Health:
    """State of the mailer."""

    #: When a worker last finished a sweep that it took from the broker. This proves more than a running worker process.
    last_sweep: datetime | None
    #: Messages that have been due for several sweep intervals.
    overdue: int
    #: Batches with mail left to send on which no task has worked for as long.
    overdue_batches: int
    #: Unavailable mail backends for which mail waits.
    unavailable: list[TransportStatus]
    #: Number of messages outside batches that wait for a worker, and the time since which the oldest waits.
    waiting: Queue
    #: Number of messages that were refused temporarily or cannot be composed yet, and the time of the next attempt.
    deferred: Deferred
    #: Number of batches with mail that may be sent now, and the time since which the oldest may.
    waiting_batches: Queue
    #: Batches with waiting mail of which nothing was sent for ``LONGEST_WAIT``.
    stuck_batches: list[UUID]
    #: Messages that were set aside and wait for a person.
    held: int
    #: Delivery tasks that fail repeatedly.
    failing_tasks: list[TaskFailure]
    #: Batches of SparkPost's events with events that could not be recorded.
    webhook_batches_set_aside: int
    #: When the purge should have dropped the oldest data or file that is overdue; ``None`` if nothing is overdue.
    purge_overdue_since: datetime | None
    #: Number of attachment files that the storage fails to delete, and the time since which it fails.
    undeleted_files: Queue
    #: Time since which no attachment file is deleted because another database uses the same folder; ``None`` if none
    #: does.
    installation_contested_since: datetime | None
    #: Pauses in force. A pause is not a problem, because a person has decided it.
    paused: list[HeldBack]
    #: Problems, one sentence each, in the active language; empty if there are none.
    problems: list[str]

    @property
    def ok(self) -> bool:
        """Whether mail is moving."""
        return not self.problems


@explaining_missing_tables()
def check_health() -> Health:
    """Read the state of the mailer from the database.

    Raises:
        django.db.OperationalError: the database is unreachable.
    """
    conf = mailer_settings()
    tolerance = conf.SWEEP_INTERVAL * _MISSED_SWEEPS
    undeleted, undeleted_since, storage_error = outbox.failing_files()
    installation = outbox.current_installation()
    health = Health(
        last_sweep=periodic.last_run(periodic.SWEEP),
        overdue=outbox.count_overdue(tolerance),
        overdue_batches=outbox.count_overdue_batches(tolerance),
        unavailable=availability.unavailable_backends(),
        waiting=outbox.waiting_messages(),
        deferred=outbox.deferred_messages(),
        waiting_batches=outbox.waiting_batches(),
        stuck_batches=outbox.stuck_batches(conf.LONGEST_WAIT),
        held=outbox.count_held(),
        failing_tasks=outbox.failing_tasks(),
        webhook_batches_set_aside=inbox.set_aside().count(),
        purge_overdue_since=outbox.purge_overdue_since(),
        undeleted_files=Queue(undeleted, undeleted_since),
        installation_contested_since=installation.contested_at,
        paused=held_back(),
        problems=[],
    )
    health.problems.extend(
        chain(
            _problems_of_the_sweep(health, tolerance),
            _problems_of_queues(health, conf.LONGEST_WAIT),
            _problems_for_a_person(health),
            _problems_of_the_purge(health, storage_error, installation.folder),
            _problems_of_clocks(),
            map(_outage_problem, health.unavailable),
        )
    )
    return health


def _problems_of_the_sweep(health: Health, tolerance: timedelta) -> Iterator[str]:
    if health.last_sweep is None:
        yield _("No worker has ever swept: start one with celery -A project worker.")
    elif clock.now() - health.last_sweep > tolerance:
        yield (
            _(
                "No worker has swept since %(since)s: none runs, none serves the queue %(queue)r, or none reaches the "
                "broker."
            )
            % {"since": format_time(health.last_sweep), "queue": mailer_settings().QUEUE}
        )
    if health.overdue:
        yield (
            ngettext(
                "%(count)d message is due and has not been looked at for %(seconds)d seconds.",
                "%(count)d messages are due and have not been looked at for %(seconds)d seconds.",
                health.overdue,
            )
            % {"count": health.overdue, "seconds": tolerance.total_seconds()}
        )
    if health.overdue_batches:
        yield (
            ngettext(
                "%(count)d batch has something left to send, and no task has worked at it for %(seconds)d s.",
                "%(count)d batches have something left to send, and no task has worked at them for %(seconds)d s.",
                health.overdue_batches,
            )
            % {"count": health.overdue_batches, "seconds": tolerance.total_seconds()}
        )


def _problems_of_queues(health: Health, longest_wait: timedelta) -> Iterator[str]:
    if health.waiting.oldest is not None and clock.now() - health.waiting.oldest > longest_wait:
        yield (
            ngettext(
                "%(count)d message waits in the queue %(queue)r, since %(since)s: too few workers serve it, or they "
                "are too slow.",
                "%(count)d messages wait in the queue %(queue)r, the oldest since %(since)s: too few workers serve "
                "it, or they are too slow.",
                health.waiting.count,
            )
            % {
                "count": health.waiting.count,
                "queue": mailer_settings().QUEUE,
                "since": format_time(health.waiting.oldest),
            }
        )
    yield from (
        _("Nothing of the batch %(batch)s was sent for %(minutes)d minutes, although something waits.")
        % {"batch": key, "minutes": longest_wait.total_seconds() / 60}
        for key in health.stuck_batches[:_MOST_NAMED]
    )
    if further := len(health.stuck_batches[_MOST_NAMED:]):
        yield (
            ngettext(
                "The same is true of %(count)d further batch.",
                "The same is true of %(count)d further batches.",
                further,
            )
            % {"count": further}
        )


def _problems_for_a_person(health: Health) -> Iterator[str]:
    if health.held:
        yield (
            ngettext(
                "%(count)d message is set aside (held) and waits for a person: the admin shows why.",
                "%(count)d messages are set aside (held) and wait for a person: the admin shows why.",
                health.held,
            )
            % {"count": health.held}
        )
    yield from (
        _("The task for %(task)s failed %(count)d times since %(since)s, last with %(error)s.")
        % {"task": task.task, "count": task.failures, "since": format_time(task.since), "error": task.error}
        for task in health.failing_tasks
    )
    if health.webhook_batches_set_aside:
        yield (
            ngettext(
                "%(count)d batch of SparkPost's events is set aside, since some could not be recorded: the admin shows "
                "why.",
                "%(count)d batches of SparkPost's events are set aside, since some could not be recorded: the admin "
                "shows why.",
                health.webhook_batches_set_aside,
            )
            % {"count": health.webhook_batches_set_aside}
        )


def _problems_of_the_purge(health: Health, storage_error: str, folder: str) -> Iterator[str]:
    if health.purge_overdue_since is not None and clock.now() - health.purge_overdue_since > _PURGE_TOLERANCE:
        yield (
            _(
                "Data that was due for the purge at %(since)s is still stored: no worker serves the queue %(queue)r, "
                "or the purge does not finish."
            )
            % {"since": format_time(health.purge_overdue_since), "queue": mailer_settings().BULK_QUEUE}
        )
    if health.undeleted_files.oldest is not None and clock.now() - health.undeleted_files.oldest > _FILES_TOLERANCE:
        yield (
            ngettext(
                "%(count)d attachment file cannot be deleted from the storage since %(since)s: %(error)s",
                "%(count)d attachment files cannot be deleted from the storage, the first since %(since)s: %(error)s",
                health.undeleted_files.count,
            )
            % {
                "count": health.undeleted_files.count,
                "since": format_time(health.undeleted_files.oldest),
                "error": storage_error,
            }
        )
    if health.installation_contested_since is not None:
        yield (
            _(
                "No attachment file is deleted since %(since)s: another database uses the folder %(folder)s, or this "
                'one was restored from a backup. Run "manage.py mailer installation --new" on a copy, and "--keep" '
                "on the original."
            )
            % {"since": format_time(health.installation_contested_since), "folder": folder}
        )


def _problems_of_clocks() -> Iterator[str]:
    difference = clock.difference()
    if abs(difference) >= clock.WORTH_TELLING:
        yield (
            _("The clock of this host differs from that of the database by %(seconds).1f s.")
            % {"seconds": abs(difference.total_seconds())}
        )


def held_back() -> list[HeldBack]:
    """What is paused now, the oldest pause first."""
    messages, batches = outbox.count_paused()
    return [
        HeldBack(
            scope=pause.scope,
            name=pause.name,
            label=str(pause),
            reason=pause.reason,
            by=pause.paused_by,
            since=pause.paused_at,
            messages=messages[pause.pk],
            batches=batches[pause.pk],
        )
        for pause in outbox.list_pauses()
    ]


def _outage_problem(status: TransportStatus) -> str:
    values = {
        "backend": status.using or "default",
        "domain": status.sender_domain,
        "since": format_time(status.unavailable_since),
        "count": status.failures,
        "next": format_time(status.next_try_at),
        "reason": status.reason,
    }
    if status.sender_domain:
        text = ngettext(
            "The mail backend %(backend)r for senders at %(domain)s is unavailable since %(since)s, tried once, "
            "next at %(next)s: %(reason)s",
            "The mail backend %(backend)r for senders at %(domain)s is unavailable since %(since)s, tried %(count)d "
            "times, next at %(next)s: %(reason)s",
            status.failures,
        )
    else:
        text = ngettext(
            "The mail backend %(backend)r is unavailable since %(since)s, tried once, next at %(next)s: %(reason)s",
            "The mail backend %(backend)r is unavailable since %(since)s, tried %(count)d times, next at %(next)s: "
            "%(reason)s",
            status.failures,
        )
    return text % values


def format_time(when: datetime) -> str:
    """A moment in the current time zone, to the second."""
    return f"{timezone.localtime(when):%Y-%m-%d %H:%M:%S %Z}".strip()
