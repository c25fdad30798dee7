"""When the periodic tasks of the workers last ran: for health, and so that one worker runs each for all.

A worker's timer begins the sweep (``worker.py``), and the sweep all others (``delivery/sweep.py``).
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet

from . import outbox
from .broker.claim_owners import owner_is_gone
from .models import PeriodicTask, clock

#: Looking for what is due; it has run once a worker has taken a task for it from the broker and finished it.
SWEEP = "sweep"
#: Adding up what all workers have counted.
FOLD = "fold counts"
#: Dropping what is old.
PURGE = "purge"
#: Bringing the suppression list together with SparkPost's.
SYNC = "sync"
#: Telling operators what fails; its time is when the last summary was sent.
FAILURE_SUMMARY = "failure summary"
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
    last_run_at = at or clock.now()
    if not _rows(name).update(last_run_at=last_run_at):
        _create(name, last_run_at)


def claim_run(name: str, every: timedelta) -> bool:
    """Claim the task's next run; returns whether it is due and no other worker has claimed it."""
    now = clock.now()
    last_run_at = last_run(name)
    if last_run_at is None:
        return _create(name, now)
    # A clock that went wrong for a while must not put it off until the time that it showed.
    is_due = not now - every < last_run_at <= now + every
    # Looked at before it is written, since almost always it is not time yet.
    return is_due and bool(_rows(name).filter(last_run_at=last_run_at).update(last_run_at=now))


def postpone_run(name: str, wait: timedelta, every: timedelta) -> None:
    """Have the task's next run be due after a wait, which may be shorter or longer than its interval.

    Args:
        name: of the task.
        wait: at most two intervals; a longer one counts as two.
        every: the task's interval.
    """
    mark_run(name, clock.now() + min(wait, 2 * every) - every)


# A task that takes long goes on in further ones, a chain of them: one works at a time, and each publishes the next.


def begin_part(name: str, token: str, lease: timedelta) -> bool:
    """Take the lease under which one task of a chain works.

    Args:
        name: of the periodic task.
        token: of the Celery task that works at it.
        lease: how long it counts unless it is renewed.

    Returns:
        ``False`` where another one works at it.
    """
    if last_run(name) is None:
        _create(name, clock.now())
    now = clock.now()
    free = Q(token="") | Q(lease_until=None) | Q(lease_until__lt=now)
    return bool(_rows(name).filter(free).update(token=token, lease_until=now + lease))


def renew_part(name: str, token: str, lease: timedelta) -> bool:
    """Go on under the lease; returns whether it still counts."""
    return bool(_rows(name).filter(token=token).update(lease_until=clock.now() + lease))


def hand_over(name: str, token: str, lease: timedelta) -> None:
    """End one task of a chain whose next one is being published. Unless that works by the end of the lease, it is
    lost."""
    _rows(name).filter(token=token).update(token="", lease_until=clock.now() + lease)


def end_chain(name: str, token: str) -> None:
    """Nothing is left to do."""
    _rows(name).filter(token=token).update(token="", lease_until=None)


def claim_broken_chain(name: str, lease: timedelta) -> bool:
    """Claim a chain that does not go on, since its worker has died or its next task was lost.

    Returns:
        Whether it is to be published again, by this worker and no other.
    """
    now = clock.now()
    chain = _rows(name).filter(lease_until__isnull=False).first()
    if chain is None or chain.lease_until is None:
        return False
    if chain.lease_until >= now and not owner_is_gone(chain.token):
        return False
    same = _rows(name).filter(token=chain.token, lease_until=chain.lease_until)
    return bool(same.update(token="", lease_until=now + lease))


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
