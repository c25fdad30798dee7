"""When the workers last did what they do by themselves: for health, and so that one of them does it for all."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from . import outbox
from .models import Duty

#: Looking for what is due; done means that a worker took a task from the broker for it and came to its end.
SWEEP = "sweep"
#: Dropping what is old.
PURGE = "purge"
#: Deleting attachment files without a row; its time is the last day that was looked through.
ORPHANS = "orphans"
#: Bringing the suppression list together with SparkPost's.
SYNC = "sync"
#: Having SparkPost list what has changed on its suppression list; its time is when the last listing began that came to
#: its end.
CHANGES_LISTED = "changes listed"
#: The same for a listing of everything.
EVERYTHING_LISTED = "everything listed"


def last(name: str) -> datetime | None:
    """When it was last done; ``None``: never."""
    return _duties(name).values_list("at", flat=True).first()


def done(name: str, at: datetime | None = None) -> None:
    """Write down that it was done, now or up to a time."""
    when = at or timezone.now()
    if not _duties(name).update(at=when):
        _create(name, when)


def take(name: str, every: timedelta) -> bool:
    """Whether it is time again and nobody else has taken it on."""
    now = timezone.now()
    when = last(name)
    if when is None:
        return _create(name, now)
    # A clock that went wrong for a while must not put it off until the time that it showed.
    due = not now - every < when <= now + every
    # Looked at before it is written, since almost always it is not time yet.
    return due and bool(_duties(name).filter(at=when).update(at=now))


def _duties(name: str) -> QuerySet[Duty]:
    return Duty.objects.using(outbox.database()).filter(name=name)


def _create(name: str, at: datetime) -> bool:
    try:
        with transaction.atomic(using=outbox.database()):
            Duty.objects.using(outbox.database()).create(name=name, at=at)
    except IntegrityError:
        # Another worker did it at the same moment.
        return False
    return True
