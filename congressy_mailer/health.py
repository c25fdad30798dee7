"""Whether mail is moving: what an operator's monitoring asks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from . import outbox, periodic
from .conf import mailer_settings
from .delivery import availability
from .models import TaskFailure, TransportStatus
from .outbox import Queue

# A sweep that is late by this many intervals is missing.
_MISSED_SWEEPS = 4


@dataclass(frozen=True, slots=True)
class Health:
    """How the mailer is."""

    #: When a worker last swept. A worker process that exists proves nothing; one that takes its own sweep from the
    #: broker and finishes it does.
    last_sweep: datetime | None
    #: Messages that should have been looked at several sweeps ago.
    overdue: int
    #: Batches with something left to send that no task has worked at for as long.
    overdue_batches: int
    #: Mail backends that cannot be used now and that mail waits for.
    unavailable: list[TransportStatus]
    #: Messages in no batch that wait for a worker: how many, and since when the oldest does.
    waiting: Queue
    #: Batches with something left that may be sent now: how many, and since when the oldest could.
    waiting_batches: Queue
    #: Batches of which nothing was sent for ``LONGEST_WAIT`` although something waits.
    stuck_batches: list[UUID]
    #: Messages that were set aside, and wait for a person.
    held: int
    #: Delivery tasks that end in an error again and again.
    failing_tasks: list[TaskFailure]
    #: What is wrong, one sentence each, in the language in force; empty: nothing.
    problems: list[str]

    @property
    def ok(self) -> bool:
        """Whether mail is moving."""
        return not self.problems


def check_health() -> Health:
    """Look at the database for what the workers have left there.

    Raises:
        django.db.OperationalError: the database is away.
    """
    tolerance = mailer_settings().SWEEP_INTERVAL * _MISSED_SWEEPS
    last_sweep = periodic.last_run(periodic.SWEEP)
    overdue = outbox.count_overdue(tolerance)
    overdue_batches = outbox.count_overdue_batches(tolerance)
    unavailable = availability.unavailable_backends()
    longest_wait = mailer_settings().LONGEST_WAIT
    waiting = outbox.waiting_messages()
    waiting_batches = outbox.waiting_batches()
    stuck_batches = outbox.stuck_batches(longest_wait)
    held = outbox.count_held()
    failing_tasks = outbox.failing_tasks()
    problems = []
    if last_sweep is None:
        problems.append(_("No worker has ever swept: start one with celery -A project worker."))
    elif timezone.now() - last_sweep > tolerance:
        problems.append(
            _(
                "No worker has swept since %(since)s: none runs, none serves the queue %(queue)r, or none reaches the "
                "broker."
            )
            % {"since": _format_time(last_sweep), "queue": mailer_settings().QUEUE}
        )
    if overdue:
        problems.append(
            ngettext(
                "%(count)d message is due and has not been looked at for %(seconds)d seconds.",
                "%(count)d messages are due and have not been looked at for %(seconds)d seconds.",
                overdue,
            )
            % {"count": overdue, "seconds": tolerance.total_seconds()}
        )
    if overdue_batches:
        problems.append(
            ngettext(
                "%(count)d batch has something left to send, and no task has worked at it for %(seconds)d s.",
                "%(count)d batches have something left to send, and no task has worked at them for %(seconds)d s.",
                overdue_batches,
            )
            % {"count": overdue_batches, "seconds": tolerance.total_seconds()}
        )
    if waiting.oldest is not None and timezone.now() - waiting.oldest > longest_wait:
        problems.append(
            ngettext(
                "%(count)d message waits in the queue %(queue)r, since %(since)s: too few workers serve it, or they "
                "are too slow.",
                "%(count)d messages wait in the queue %(queue)r, the oldest since %(since)s: too few workers serve "
                "it, or they are too slow.",
                waiting.count,
            )
            % {"count": waiting.count, "queue": mailer_settings().QUEUE, "since": _format_time(waiting.oldest)}
        )
    problems += [
        _("Nothing of the batch %(batch)s was sent for %(minutes)d minutes, although something waits.")
        % {"batch": key, "minutes": longest_wait.total_seconds() / 60}
        for key in stuck_batches
    ]
    if held:
        problems.append(
            ngettext(
                "%(count)d message is set aside (held) and waits for a person: the admin shows why.",
                "%(count)d messages are set aside (held) and wait for a person: the admin shows why.",
                held,
            )
            % {"count": held}
        )
    problems += [
        _("The task for %(task)s failed %(count)d times since %(since)s, last with %(error)s.")
        % {"task": task.task, "count": task.failures, "since": _format_time(task.since), "error": task.error}
        for task in failing_tasks
    ]
    problems += [_outage_problem(status) for status in unavailable]
    return Health(
        last_sweep=last_sweep,
        overdue=overdue,
        overdue_batches=overdue_batches,
        unavailable=unavailable,
        waiting=waiting,
        waiting_batches=waiting_batches,
        stuck_batches=stuck_batches,
        held=held,
        failing_tasks=failing_tasks,
        problems=problems,
    )


def _outage_problem(status: TransportStatus) -> str:
    values = {
        "backend": status.using or "default",
        "domain": status.sender_domain,
        "since": _format_time(status.unavailable_since),
        "count": status.failures,
        "next": _format_time(status.next_try_at),
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


def _format_time(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S %Z}".strip()
