"""Storing messages, and giving them out under a lease."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from celery.exceptions import SoftTimeLimitExceeded
from django.db import DataError, Error, connections
from django.db.models import DateTimeField, F, Prefetch, Q, QuerySet, Value, prefetch_related_objects
from django.db.models.functions import Coalesce

from .. import metrics
from ..conf import mailer_settings
from ..models import NO_BATCH, Attachment, Batch, Event, Message, State, clock
from ..models.choices import WAITING
from ..models.transactions import database, is_away, lock_free, retry_on_conflict, retry_statement
from .batches import make_due_by
from .claim_statement import HAS_ATTACHMENTS, IS_PAUSED, Choice, answer, choice, claim_at_once
from .cursors import CURSORS, BatchCursors
from .pausing import note_no_pauses
from .recovery import find_abandoned, recover
from .results import fail
from .rows import add_event, before_expiry_expression, claimed_row, rows

logger = logging.getLogger("congressy_mailer.outbox")

# What has just been published is left to a worker that is free: only if none takes it, it is taken out of turn.
_IDLE_WORKER_GRACE = timedelta(milliseconds=100)


def claim(ids: Sequence[UUID], token: str, *, redelivered: bool = False) -> list[Message]:
    """Take what may be sent of these messages, under a lease. Two claims never hold the same message.

    A message whose worker died while holding it is only taken when it is asked for alone: were it the cause, it
    would take the others with it again.

    Args:
        ids: what the broker says; ids of messages that are gone, not due or taken are passed over.
        token: from :func:`congressy_mailer.broker.processes.new_claim_token`.
        redelivered: the broker gave this task out before: perhaps because its process died with these messages.

    Returns:
        The messages taken, with their attachments fetched, in the order they should be sent.
    """
    if redelivered:
        recover(rows(find_abandoned(rows(ids))))
    now = clock.now()
    if len(ids) == 1:
        messages = _claim(_choice_of_one(ids[0], now), token)
    else:
        messages = _claim(choice(_claimable_together(ids, now).order_by("id")[: len(ids)]), token) if ids else []
    if len(messages) < len(set(ids)):
        expire(ids)
    return messages


def batch_with_content(key: UUID) -> Batch | None:
    """A batch, with what all of its messages say; ``None`` where it is gone."""
    batches = Batch.objects.using(database()).filter(pk=key)
    return batches.prefetch_related(Prefetch("attachments", Attachment.objects.using(database()))).first()


def claim_from_batch(batch: Batch, token: str, limit: int, cursors: BatchCursors = CURSORS) -> list[Message]:
    """Take what comes next of a batch; what was refused temporarily and is due goes first.

    What its worker died of is not among it: that is claimed alone, by :func:`claim`.

    Args:
        batch: from :func:`batch_with_content`.
        token: from :func:`congressy_mailer.broker.processes.new_claim_token`.
        limit: the most that is taken.
        cursors: how far the claims of this process have come.
    """
    now = clock.now()
    due = _messages().filter(deferred_batch=batch.pk, due_at__lte=now).order_by("due_at")
    in_order = _messages().filter(open_batch=batch.pk).order_by("priority", "id")
    queued = in_order.filter(state=State.QUEUED, due_at=None)
    scheduled = in_order.filter(state=State.SCHEDULED, send_at__lte=now)
    return (
        _claim(choice(due[:limit]), token, batch)
        or _claim_next(queued, batch, State.QUEUED, token, limit, cursors)
        or _claim_next(scheduled, batch, State.SCHEDULED, token, limit, cursors)
    )


def _claim_next(
    waiting: QuerySet[Message], batch: Batch, state: State, token: str, limit: int, cursors: BatchCursors
) -> list[Message]:
    """Claim the first of these after the cursor, else the first of all of them."""
    messages: list[Message] = []
    following = cursors.after(waiting, batch.pk, state, batch.priority)
    if following is not None:
        messages = _claim(choice(following[:limit]), token, batch)
    if not messages:
        cursors.restart(batch.pk, state)
        messages = _claim(choice(waiting[:limit]), token, batch)
    if messages:
        cursors.advance(batch.pk, state, messages[-1].id)
    return messages


def claim_waiting(token: str, limit: int, *, before: int | None = None, using: str | None = None) -> list[Message]:
    """Take what has been published, is in no batch, and has been left waiting: it goes before what is less urgent.

    Args:
        token: of the claim.
        limit: the most that is taken.
        before: only what has a lower number as its priority, which is more urgent.
        using: only what names this mail backend; empty: only what names none.
    """
    waiting = _waiting_alone()
    if before is not None:
        waiting = waiting.filter(priority__lt=before)
    if using is not None:
        waiting = waiting.filter(using=using)
    return _claim(choice(waiting.filter(_not_expired(clock.now())).order_by("priority", "id")[:limit]), token)


def has_waiting_messages() -> bool:
    """Whether :func:`claim_waiting` would claim a message."""
    return _waiting_alone().filter(_not_expired(clock.now())).exists()


def others_wait(using: str | None) -> bool:
    """Whether mail with tasks of its own waits that a task which claims more and more does not see.

    Args:
        using: the mail backend that the messages name which it claims of those in no batch; ``None``: it claims a
            batch's.
    """
    due = _messages().filter(state__in=(State.SCHEDULED, State.DEFERRED), sweep_at__lte=clock.now())
    return due.exists() or (using is not None and _waiting_alone().exclude(using=using).exists())


def _waiting_alone() -> QuerySet[Message]:
    cutoff = clock.now() - _IDLE_WORKER_GRACE
    return _messages().filter(open_batch=NO_BATCH, state=State.QUEUED, crashes=0, queued_at__lte=cutoff)


# By alias of the database: the text, and its parameters with these in place of a message's key, or a list of it, and of
# the time.
_KEY, _KEYS, _NOW = object(), object(), object()
_choices_of_one: dict[str, Choice] = {}


def _choice_of_one(key: UUID, now: datetime) -> Choice:
    """The choice of one message. To put its text together each time would take as long as to carry it out."""
    alias = database()
    connection = connections[alias]
    prepared = Message._meta.get_field("id").get_db_prep_value(key, connection)
    now_prepared = Message._meta.get_field("due_at").get_db_prep_value(now, connection)
    places: dict[object, object] = {_KEY: prepared, _KEYS: [prepared], _NOW: now_prepared}
    known = _choices_of_one.get(alias)
    if known is None:
        made = choice(_claimable([key], now).order_by("id")[:1])
        names = [next((name for name, value in places.items() if value == given), given) for given in made.parameters]
        known = _choices_of_one[alias] = Choice(made.sql, names)
    return Choice(known.sql, [places.get(given, given) for given in known.parameters])


def _claim(chosen: Choice, token: str, batch: Batch | None = None) -> list[Message]:
    """Claim these, and read what they say.

    Args:
        chosen: which may be claimed.
        token: of the claim.
        batch: what they belong to, where that has been read.

    Returns:
        The messages in the order in which they should be sent.
    """
    now = clock.now()
    due_at = _lease_end(now)
    values = {
        "state": State.SENDING, "token": token, "due_at": due_at, "handover_started_at": None, "blocked": False,
        "pause": None, "queued_at": now,
    }  # fmt: skip

    def held() -> QuerySet[Message]:
        return _messages().filter(state=State.SENDING, sweep_at=due_at, token=token)

    try:
        messages = claim_at_once(chosen, values, held)
        _read_related(messages, batch)
    except (SystemExit, KeyboardInterrupt, SoftTimeLimitExceeded):
        raise
    except BaseException as error:
        if is_away() or (isinstance(error, Error) and not held().exists()):
            # Nothing was claimed.
            raise
        # One of them cannot be read.
        messages = _read(held().prefetch_related(*_related(batch)), token)
    if batch is not None:
        for message in messages:
            message.batch = batch
    if messages and not any(answer(message, IS_PAUSED) for message in messages):
        note_no_pauses()
    return sorted(messages, key=lambda message: (message.priority, message.id))


_last_lease_end: datetime | None = None
_lease_lock = threading.Lock()


def _lease_end(now: datetime) -> datetime:
    """When a lease ends that begins now: another time for each claim of this process, since it is known by that."""
    global _last_lease_end
    end: datetime = now + mailer_settings().LEASE
    with _lease_lock:
        # Not for longer than a moment: the clock may have been set back.
        if _last_lease_end is not None and timedelta(0) <= _last_lease_end - end < timedelta(seconds=1):
            end = _last_lease_end + timedelta(microseconds=1)
        _last_lease_end = end
    return end


def _read_related(messages: Sequence[Message], batch: Batch | None) -> None:
    attachments, *of_batch = _related(batch)
    none = Attachment.objects.none()
    for message in messages:
        if not answer(message, HAS_ATTACHMENTS):
            # What prefetch_related_objects() does, which takes as long as a query.
            message._prefetched_objects_cache = {"attachments": none}  # type: ignore[attr-defined]
    prefetch_related_objects([message for message in messages if answer(message, HAS_ATTACHMENTS)], attachments)
    prefetch_related_objects([message for message in messages if message.batch_id is not None], *of_batch)


def _related(batch: Batch | None) -> list[Any]:
    """What is read with messages: attachments first, and their batch unless that has been read."""
    # Named, because a router may have related rows read from a replica that does not have them yet.
    attachments = Attachment.objects.using(database())
    related: list[Any] = [Prefetch("attachments", attachments)]
    if batch is None:
        related += [Prefetch("batch", Batch.objects.using(database())), Prefetch("batch__attachments", attachments)]
    return related


def _read(held: QuerySet[Message], token: str) -> list[Message]:
    """These messages; one that cannot be read is put aside, so that it does not keep the others from being sent."""
    try:
        return list(held)
    except (SystemExit, KeyboardInterrupt, SoftTimeLimitExceeded):
        raise
    except BaseException:
        if is_away():
            raise
    readable = []
    for key in held.prefetch_related(None).order_by("id").values_list("id", flat=True):
        try:
            readable += list(held.filter(id=key))
        except (SystemExit, KeyboardInterrupt, SoftTimeLimitExceeded):
            raise
        except BaseException as error:
            if is_away():
                raise
            _put_aside(key, token, error)
    return readable


@retry_on_conflict
def _put_aside(key: UUID, token: str, error: BaseException) -> None:
    """A stored value that no longer reads as what its column holds will not do so later; all else may."""
    damaged = isinstance(error, DataError | ValueError | TypeError | LookupError)
    conf = mailer_settings()
    now = clock.now()
    reason = f"Its row cannot be read: {type(error).__name__}"
    ours = claimed_row(key, token)
    logger.error("Message %s is put aside. %s", key, reason)
    if damaged or ours.filter(first_attempt_at__lt=now - conf.RETRY_FOR).exists():
        fail(token, key, reason)
    elif ours.update(
        state=State.DEFERRED, token="", due_at=now + conf.RETRY_BACKOFF_MAX, attempts=F("attempts") + 1, reason=reason,
        first_attempt_at=Coalesce("first_attempt_at", Value(now, DateTimeField())),
    ):  # fmt: skip
        add_event(key, Event.Type.DEFERRED, now, detail=reason)


def _messages() -> QuerySet[Message]:
    return Message.objects.using(database())


def _claimable_together(ids: Sequence[UUID], now: datetime) -> QuerySet[Message]:
    claimable = _claimable(ids, now)
    return claimable.filter(crashes=0) if len(set(ids)) > 1 else claimable


def _claimable(ids: Sequence[UUID], now: datetime) -> QuerySet[Message]:
    return rows(ids).filter(Q(state=State.QUEUED) | Q(state=State.DEFERRED, due_at__lte=now)).filter(_not_expired(now))


def _not_expired(now: datetime) -> Q:
    return Q(expires_at__isnull=True) | Q(expires_at__gt=now)


def needing_solo(ids: Sequence[UUID]) -> list[UUID]:
    """Those of these messages that may be claimed, but only each alone."""
    return list(_claimable(ids, clock.now()).filter(crashes__gt=0).order_by("id").values_list("id", flat=True))


def expire(ids: Iterable[UUID]) -> None:
    """End those of these messages that nobody holds and whose ``expires_at`` is over."""
    metrics.count_expired(_expire(ids))


@retry_on_conflict
def _expire(ids: Iterable[UUID]) -> list[Message]:
    now = clock.now()
    over = rows(ids).filter(state__in=WAITING, expires_at__lte=now).order_by("id")
    expired = list(lock_free(over).only("using", "route", "batch_id", "priority"))
    # The state is looked at again for servers without SKIP LOCKED, which have locked nothing.
    rows(message.id for message in expired).filter(state__in=WAITING).update(
        state=State.EXPIRED, due_at=None, finished_at=now, reason="It was not sent before its expires_at."
    )
    return expired


@retry_on_conflict
def start_handover(token: str, ids: Collection[UUID]) -> set[UUID]:
    """Mark claimed messages as being handed over, in one statement; returns those that the claim still holds.

    Only needed where a message that was begun must never be sent a second time.
    """
    held = rows(ids).filter(state=State.SENDING, token=token)
    if held.update(handover_started_at=clock.now()) == len(ids):
        return set(ids)
    return set(held.values_list("id", flat=True))


@retry_statement
def extend_claim(token: str, ids: Iterable[UUID]) -> int:
    """Hold claimed messages for another ``LEASE``; returns how many of them the claim still held.

    Only by the process that works on them at this moment: the server is slow, and the worker is not gone.

    Args:
        token: of the claim.
        ids: of the messages.
    """
    held = rows(ids).filter(state=State.SENDING, token=token)
    return held.update(due_at=_lease_end(clock.now()))


@retry_statement
def set_route(token: str, ids: Iterable[UUID], route: str) -> None:
    """Write down which mail backend claimed messages are about to go over.

    Before they are handed over: a message whose worker dies then must not go over another one afterwards.

    Args:
        token: of the claim.
        ids: of the messages.
        route: the backend's alias; empty: the one that the messages name.
    """
    rows(ids).filter(state=State.SENDING, token=token).update(route=route)


@retry_on_conflict
def release(token: str, messages: Iterable[Message], until: datetime | None = None) -> None:
    """Put claimed messages that were not handed over back on the queue; no attempt is counted.

    Args:
        token: of the claim.
        messages: as they were claimed.
        until: when they become due, and not before; ``None`` where the caller publishes them.
    """
    now = clock.now()
    due_at = until or now + mailer_settings().LOST_AFTER
    # These wait in the table for the tasks of the batch.
    batches = {message.id: message.batch_id for message in messages if message.waits_with_batch}
    if batches:
        _release(batches, token, due_at=None)
        for key in {key for key in batches.values() if key}:
            CURSORS.rewind(key, [message for message, batch in batches.items() if batch == key])
        make_due_by([key for key in batches.values() if key], by=due_at)
    if others := [message.id for message in messages if message.id not in batches]:
        blocked = until is not None and until > now
        _release(others, token, due_at=before_expiry_expression(due_at), blocked=blocked)


def release_claim(token: str, known: Collection[UUID] = ()) -> None:
    """Put back all messages that this claim holds, where it is not known which they are.

    Args:
        token: of the claim.
        known: those that it is known to hold, and keeps.
    """
    held = _messages().filter(state=State.SENDING, token=token)
    release(token, [message for message in held if message.id not in known], clock.now())


def _release(ids: Iterable[UUID], token: str, **values: object) -> None:
    claimed = rows(ids).filter(state=State.SENDING, token=token)
    claimed.update(state=State.QUEUED, token="", handover_started_at=None, **values)


@retry_on_conflict
def mark_published_again(ids: Sequence[UUID]) -> None:
    """These messages go to the end of the queue: a sweep that was published before is no sign that they are lost."""
    free = lock_free(rows(ids).filter(state=State.QUEUED).order_by("id"))
    due_at = before_expiry_expression(clock.now() + mailer_settings().LOST_AFTER)
    rows(free.values_list("id", flat=True)).update(due_at=due_at)


def mark_unpublished(ids: Iterable[UUID]) -> None:
    """Make these messages due at once, since the broker did not take their ids."""
    # Without this they are found all the same, only later; and what a host has wrapped around its connections may
    # raise anything.
    with suppress(Exception):
        _make_due_now(ids)


@retry_on_conflict
def _make_due_now(ids: Iterable[UUID]) -> None:
    rows(ids).filter(state=State.QUEUED).update(due_at=clock.now())
