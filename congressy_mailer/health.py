"""Whether mail is moving: what an operator's monitoring asks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

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
    #: Mail backends that cannot be used now.
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
            f"No worker has swept since {last_sweep:%Y-%m-%d %H:%M:%S %Z}: none runs, none serves the queue "
            f"{mailer_settings().QUEUE!r}, or none reaches the broker."
        )
    if overdue:
        problems.append(f"{overdue} messages are due and have not been looked at for {_spoken(patience)}.")
    problems += [
        f"{status} is unavailable since {status.unavailable_since:%Y-%m-%d %H:%M:%S %Z}, tried {status.failures} "
        f"times, next at {status.next_try_at:%H:%M:%S}: {status.reason}"
        for status in unavailable
    ]
    return Health(last_sweep, overdue, unavailable, problems)


def _spoken(span: timedelta) -> str:
    return f"{span.total_seconds():.0f} seconds"
