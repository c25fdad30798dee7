"""Whether mail is moving: what an operator's monitoring asks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.utils import timezone

from . import availability, duties, outbox
from .conf import mailer_settings
from .models import TransportStatus

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
    #: Mail backends that cannot be used now and that mail waits for.
    unavailable: list[TransportStatus]
    #: What is wrong, one sentence each; empty: nothing.
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
    patience = mailer_settings().SWEEP_INTERVAL * _MISSED_SWEEPS
    last_sweep = duties.last(duties.SWEEP)
    overdue = outbox.overdue(patience)
    unavailable = availability.unavailable()
    problems = []
    if last_sweep is None:
        problems.append("No worker has ever swept: start one with celery -A project worker.")
    elif timezone.now() - last_sweep > patience:
        problems.append(
            f"No worker has swept since {_moment(last_sweep)}: none runs, none serves the queue "
            f"{mailer_settings().QUEUE!r}, or none reaches the broker."
        )
    if overdue:
        counted = "1 message is due and has" if overdue == 1 else f"{overdue} messages are due and have"
        problems.append(f"{counted} not been looked at for {patience.total_seconds():.0f} seconds.")
    problems += [
        f"{availability.name_of(status)} is unavailable since {_moment(status.unavailable_since)}, "
        f"tried {'once' if status.failures == 1 else f'{status.failures} times'}, "
        f"next at {_moment(status.next_try_at)}: {status.reason}"
        for status in unavailable
    ]
    return Health(last_sweep, overdue, unavailable, problems)


def _moment(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S %Z}".strip()
