"""Finding what is due and not moving."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Q

from ..broker.claim_owners import new_claim_token
from ..conf import mailer_settings
from ..models import Message, State, clock
from ..models.choices import WAITING
from ..models.transactions import lock_free, retry_on_conflict
from .expiry import before_expiry_expression, expire
from .recovery import find_abandoned, recover
from .rows import all_messages, rows
from .waiting import COUNTED

# One sweep takes no more than this in each state; the next one comes soon enough.
_LIMIT = 1000


def sweep(drained_until: datetime | None = None) -> list[UUID]:
    """Find what is due and not moving, and make it ready to be published.

    Scheduled and deferred messages whose time has come, published ones that the broker has lost, and claimed ones
    whose lease is over, or whose process was on this host and is gone. Several sweeps at once share the work: each
    row is taken by one of them.

    Args:
        drained_until: the queue has been drained of everything published until then, since a task of that time has
            come through it. Messages that were published before and are still queued were lost, however long the
            queue is. ``None``: nothing is known of the queue, and queued messages are left alone.

    Returns:
        Ids to be published.
    """
    now = clock.now()
    candidates = list(_due(now, drained_until))
    ready: list[UUID] = []
    # Nothing is written, and no lock is taken, where there is nothing to do: almost always.
    if expired := [
        message.id for message in candidates if message.expires_at is not None and message.expires_at <= now
    ]:
        expire(expired)
    if expired_leases := [message.id for message in candidates if message.state == State.SENDING]:
        ready += recover(rows(expired_leases).filter(due_at__lte=now))
    # Without waiting for the lease: a worker that was killed and has been started again finds what it held.
    if abandoned := find_abandoned(all_messages().filter(state=State.SENDING, sweep_at__isnull=False)):
        ready += recover(rows(abandoned))
    if waiting := [message.id for message in candidates if message.state in WAITING]:
        ready += _claim_due(waiting, now, drained_until)
    return ready


def _due(now: datetime, drained_until: datetime | None) -> Iterator[Message]:
    """State by state, so that each is a range of one index, and a long queue does not hide the rest."""
    for state, until in _due_limits(now, drained_until).items():
        due = all_messages().filter(state=state, sweep_at__lte=until).order_by("sweep_at")
        yield from due.only("id", "state", "expires_at")[:_LIMIT]


def _due_limits(now: datetime, drained_until: datetime | None) -> dict[State, datetime]:
    limits = {State.SCHEDULED: now, State.DEFERRED: now, State.SENDING: now}
    if drained_until is not None:
        limits[State.QUEUED] = min(now, drained_until)
    return limits


@retry_on_conflict
def _claim_due(ids: Sequence[UUID], now: datetime, drained_until: datetime | None) -> list[UUID]:
    token = new_claim_token("sweep")
    conditions = Q()
    for state, until in _due_limits(now, drained_until).items():
        if state in WAITING:
            conditions |= Q(state=state, due_at__lte=until)
    due = rows(lock_free(rows(ids).filter(conditions).order_by("id")).values_list("id", flat=True))
    due.filter(queued_at__isnull=True).update(queued_at=now)
    due_at = before_expiry_expression(now + mailer_settings().LOST_AFTER)
    due.update(state=State.QUEUED, token=token, due_at=due_at, blocked=False, pause=None)
    return list(rows(ids).filter(state=State.QUEUED, token=token).values_list("id", flat=True))


def count_overdue(by: timedelta) -> int:
    """How many messages should have been looked at for longer than this, counted up to :data:`.waiting.COUNTED` of each
    state. Those in the queue are not counted."""
    due = (
        all_messages().filter(state=state, sweep_at__lte=clock.now() - by) for state in _due_limits(clock.now(), None)
    )
    return sum(late[:COUNTED].count() for late in due)
