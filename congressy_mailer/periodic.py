"""When the periodic tasks of the workers last ran: for health, and so that one worker runs each for all."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from . import outbox
from .models import PeriodicTask

#: Looking for what is due; it has run once a worker has taken a task for it from the broker and finished it.
SWEEP = "sweep"
#: Dropping what is old.
PURGE = "purge"
#: Deleting attachment files without a row; its time is the last day that was looked through.
ORPHANS = "orphans"
#: Bringing the suppression list together with SparkPost's.
SYNC = "sync"
#: Having SparkPost list what has changed on its suppression list; its time is when the last listing began that
#: came to its end.
FETCH_CHANGES = "fetch changes"
#: The same for a listing of everything.
FETCH_EVERYTHING = "fetch everything"


def last_run(name: str) -> datetime | None:
    """When the task last ran; ``None``: never."""
    return _rows(name).values_list("last_run_at", flat=True).first()


def mark_run(name: str, at: datetime | None = None) -> None:
    """Write down that the task ran, now or up to a time."""
    last_run_at = at or timezone.now()
    if not _rows(name).update(last_run_at=last_run_at):
        _create(name, last_run_at)


def claim_run(name: str, every: timedelta) -> bool:
    """Claim the task's next run; returns whether it is due and no other worker has claimed it."""
    now = timezone.now()
    last_run_at = last_run(name)
    if last_run_at is None:
        return _create(name, now)
    # A clock that went wrong for a while must not put it off until the time that it showed.
    is_due = not now - every < last_run_at <= now + every
    # Looked at before it is written, since almost always it is not time yet.
    return is_due and bool(_rows(name).filter(last_run_at=last_run_at).update(last_run_at=now))


def _rows(name: str) -> QuerySet[PeriodicTask]:
    return PeriodicTask.objects.using(outbox.database()).filter(name=name)


def _create(name: str, at: datetime) -> bool:
    try:
        with transaction.atomic(using=outbox.database()):
            PeriodicTask.objects.using(outbox.database()).create(name=name, last_run_at=at)
    except IntegrityError:
        # Another worker did it at the same moment.
        return False
    return True
