"""Every change of ``Message.state`` and every question about what is due. No other module writes a state.

The rules hold on PostgreSQL, MariaDB, MySQL and SQLite alike: each change is one conditional ``UPDATE`` that names
the state it starts from and, while a message is being sent, the token of the claim. Whoever comes second
changes nothing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial, wraps
from typing import ParamSpec, TypeVar
from uuid import UUID, uuid4

from django.db import DatabaseError, OperationalError, connections, router, transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from .conf import mailer_settings
from .exceptions import InvalidTransition
from .models import Attachment, Event, Message, State
from .retry import LONGEST_COUNTDOWN, delay
from .transports.base import Outcome

#: States that nothing leaves by itself.
FINAL = frozenset({State.SENT, State.FAILED, State.CANCELLED, State.EXPIRED, State.SUPPRESSED, State.HELD})

#: States from which a person may send a message again.
RETRYABLE = frozenset({State.FAILED, State.CANCELLED, State.EXPIRED, State.HELD})

_WAITING = (State.SCHEDULED, State.QUEUED, State.DEFERRED)

# One sweep takes no more than this; the next one comes soon enough.
_SWEEP_LIMIT = 1000

# Deadlock and serialisation failure (PostgreSQL), deadlock and lock wait timeout (MariaDB, MySQL).
_CONFLICTS = {"40P01", "40001", 1213, 1205}
_CONFLICT_TRIES = 8

_P = ParamSpec("_P")
_R = TypeVar("_R")


def database() -> str:
    """Alias of the database that the messages are written to."""
    return router.db_for_write(Message)


def _is_conflict(error: OperationalError) -> bool:
    cause = error.__cause__
    code = getattr(cause, "sqlstate", None) or (cause.args[0] if cause is not None and cause.args else None)
    return code in _CONFLICTS or "database is locked" in str(error)


def _without_conflicts(change: Callable[_P, _R]) -> Callable[_P, _R]:
    """Run the change in a transaction of its own, and again when the database broke it off to end a deadlock."""

    @wraps(change)
    def changed(*args: _P.args, **options: _P.kwargs) -> _R:
        for attempt in range(_CONFLICT_TRIES):
            try:
                with transaction.atomic(using=database()):
                    return change(*args, **options)
            except OperationalError as error:
                # Inside somebody's transaction it is the whole of it that has to be run again, not our part.
                inside = connections[database()].in_atomic_block
                if inside or attempt == _CONFLICT_TRIES - 1 or not _is_conflict(error):
                    raise
                time.sleep(random.uniform(0, 0.02 * 2**attempt))  # noqa: S311
        raise AssertionError("unreachable")

    return changed


def add(message: Message, attachments: Sequence[Attachment] = ()) -> None:
    """Store a new message in the caller's transaction, ``scheduled`` or ``queued``.

    Raises:
        django.db.IntegrityError: its ``idempotency_key`` exists already.
    """
    now = timezone.now()
    message.created_at = now
    if message.send_at is not None and message.send_at > now:
        message.state = State.SCHEDULED
        message.due_at = message.send_at
    else:
        message.state = State.QUEUED
        message.queued_at = now
        message.due_at = _no_later_than(message, now + mailer_settings().LOST_AFTER)
    if not attachments and not message.idempotency_key:
        message.save(force_insert=True, using=database())
        return
    # A savepoint: the caller's transaction must outlive an idempotency_key that exists already.
    with transaction.atomic(using=database()):
        message.save(force_insert=True, using=database())
        Attachment.objects.using(database()).bulk_create(attachments)


def _no_later_than(message: Message, when: datetime) -> datetime:
    """A message that expires must be looked at by then."""
    return min(when, message.expires_at) if message.expires_at is not None else when


def _messages(ids: Iterable[UUID]) -> QuerySet[Message]:
    # Sorted: updates that lock rows in the same order do not deadlock.
    return Message.objects.using(database()).filter(id__in=sorted(ids))


def new_token(owner: str) -> str:
    """A token for one claim. A task that runs again after its process died has the same owner, and a new token."""
    return f"{owner}:{uuid4().hex[:12]}"


def claim(ids: Sequence[UUID], token: str, *, redelivered: bool = False) -> list[Message]:
    """Take what may be sent of these messages, under a lease. Two claims never hold the same message.

    Args:
        ids: what the broker says; ids of messages that are gone, not due or taken are passed over.
        token: from :func:`new_token`.
        redelivered: the broker gave this task out before, so that what its owner still holds was left by a
            process that died.

    Returns:
        The messages taken, with their attachments fetched, in the order they should be sent.
    """
    if redelivered:
        _recover(_messages(ids).filter(state=State.SENDING, token__startswith=_owner(token)))
    if not _claim_rows(ids, token):
        _expire(ids)
        return []
    claimed = _messages(ids).filter(state=State.SENDING, token=token).prefetch_related("attachments")
    messages = sorted(claimed, key=lambda message: (message.priority, message.id))
    if len(messages) < len(set(ids)):
        _expire(ids)
    return messages


def _owner(token: str) -> str:
    return token.rpartition(":")[0] + ":"


@_without_conflicts
def _claim_rows(ids: Sequence[UUID], token: str) -> int:
    now = timezone.now()
    return (
        _messages(ids)
        .filter(Q(state=State.QUEUED) | Q(state=State.DEFERRED, due_at__lte=now))
        .filter(Q(expires_at__isnull=True) | Q(expires_at__gt=now))
        .update(state=State.SENDING, token=token, due_at=now + mailer_settings().LEASE)
    )


@_without_conflicts
def _expire(ids: Iterable[UUID]) -> None:
    now = timezone.now()
    _messages(ids).filter(state__in=_WAITING, expires_at__lte=now).update(
        state=State.EXPIRED, due_at=None, finished_at=now, reason="It was not sent before its expires_at."
    )


def _recover(abandoned: QuerySet[Message]) -> list[UUID]:
    """Put messages whose worker died back on the queue, or aside; returns those that are queued again."""
    conf = mailer_settings()
    queued: list[UUID] = []
    now = timezone.now()
    for message in abandoned.only("id", "token", "crashes").order_by("id"):
        hold = conf.ON_CRASH == "hold"
        reason = "Its worker died while holding it; whether the mail server took it is not known." if hold else ""
        changed = _change(
            message.id,
            Q(state=State.SENDING, token=message.token),
            Event.Type.CRASHED,
            state=State.HELD if hold else State.QUEUED,
            due_at=None if hold else now + conf.LOST_AFTER,
            finished_at=now if hold else None,
            crashes=F("crashes") + 1,
            token="",
            reason=reason,
        )
        if changed and not hold:
            queued.append(message.id)
    return queued


@_without_conflicts
def _change(key: UUID, condition: Q, event: Event.Type, **values: object) -> bool:
    """One message's change together with the event that tells of it."""
    if not _messages([key]).filter(condition).update(**values):
        return False
    Event.objects.using(database()).create(
        message_id=key, type=event, at=timezone.now(), detail=str(values.get("reason", ""))
    )
    return True


@_without_conflicts
def release(token: str, ids: Iterable[UUID]) -> None:
    """Put claimed messages that were not begun back on the queue; no attempt is counted."""
    due_at = timezone.now() + mailer_settings().LOST_AFTER
    _messages(ids).filter(state=State.SENDING, token=token).update(state=State.QUEUED, token="", due_at=due_at)


@_without_conflicts
def postpone(token: str, key: UUID, reason: str) -> timedelta | None:
    """Put a claimed message aside that this worker cannot compose yet: tried again like a temporary refusal."""
    message = _messages([key]).filter(state=State.SENDING, token=token).first()
    return _defer(message, reason, None) if message is not None else None


@_without_conflicts
def fail(token: str, key: UUID, reason: str) -> None:
    """End a claimed message that can never be sent."""
    now = timezone.now()
    changed = (
        _messages([key])
        .filter(state=State.SENDING, token=token)
        .update(state=State.FAILED, token="", due_at=None, finished_at=now, reason=reason)
    )
    if changed:
        _tell(key, Event.Type.FAILED, now, detail=reason)


@_without_conflicts
def record(token: str, message: Message, outcome: Outcome) -> timedelta | None:
    """Write down what became of a claimed message, unless the claim is no longer ours.

    Returns:
        How long until it should be tried again; ``None`` where it is final, or too far ahead for the broker.
    """
    # Read again: what the message remembers of earlier attempts may not be what this process fetched.
    held = _messages([message.id]).filter(state=State.SENDING, token=token)
    now = timezone.now()
    reply = str(outcome.reply)
    partly = bool(outcome.deferred or outcome.rejected)
    sent_at = message.sent_at or (now if outcome.accepted else None)
    if outcome.deferred:
        message.remaining = list(outcome.deferred)
        message.sent_at = sent_at
        reason = "; ".join(f"{recipient}: {said}" for recipient, said in outcome.deferred.items())
        if outcome.in_doubt:
            reason += " (in doubt: the server may have taken it)"
        if not held.exists():
            return None
        wait = _defer(message, reason, reply)
    else:
        wait = None
        state = State.SENT if sent_at is not None else State.FAILED
        reason = "; ".join(f"{recipient}: {said}" for recipient, said in outcome.rejected.items())
        changed = held.update(
            state=state, token="", due_at=None, finished_at=now, sent_at=sent_at, attempts=F("attempts") + 1,
            reply=reply, reason=reason, remaining=None,
        )  # fmt: skip
        if not changed:
            return None
        if message.sensitive and state == State.SENT:
            _forget_content(message.id)
    if partly:
        _tell_recipients(message.id, outcome, now)
    return wait


def _defer(message: Message, reason: str, reply: str | None) -> timedelta | None:
    """Try again later, or give up once ``RETRY_FOR`` is over."""
    conf = mailer_settings()
    now = timezone.now()
    attempts = message.attempts + 1
    wait = delay(attempts, conf.RETRY_BACKOFF, conf.RETRY_BACKOFF_MAX)
    held = _messages([message.id]).filter(state=State.SENDING, token=message.token)
    values: dict[str, object] = {"attempts": attempts, "remaining": message.remaining, "sent_at": message.sent_at}
    if reply is not None:
        values["reply"] = reply
    if now + wait > (message.queued_at or message.created_at) + conf.RETRY_FOR:
        given_up = f"Given up after {conf.RETRY_FOR}: {reason}"
        state = State.SENT if message.sent_at else State.FAILED
        if held.update(state=state, token="", due_at=None, finished_at=now, reason=given_up, **values):
            _tell(message.id, Event.Type.FAILED, now, detail=given_up)
        return None
    due_at = _no_later_than(message, now + wait)
    if not held.update(state=State.DEFERRED, token="", due_at=due_at, reason=reason, **values):
        return None
    if reply is None:
        _tell(message.id, Event.Type.DEFERRED, now, detail=reason)
    return wait if wait <= LONGEST_COUNTDOWN else None


def _tell(key: UUID, event: Event.Type, at: datetime, recipient: str = "", detail: str = "") -> None:
    Event.objects.using(database()).create(message_id=key, type=event, at=at, recipient=recipient, detail=detail)


def _tell_recipients(key: UUID, outcome: Outcome, at: datetime) -> None:
    said = [(Event.Type.ACCEPTED, recipient, str(outcome.reply)) for recipient in outcome.accepted]
    said += [(Event.Type.DEFERRED, recipient, str(reply)) for recipient, reply in outcome.deferred.items()]
    said += [(Event.Type.REJECTED, recipient, str(reply)) for recipient, reply in outcome.rejected.items()]
    Event.objects.using(database()).bulk_create(
        Event(message_id=key, type=event, at=at, recipient=recipient, detail=detail)
        for event, recipient, detail in said
    )


def _forget_content(key: UUID) -> None:
    """Drop what a sensitive message said."""
    _messages([key]).update(context=None, subject="", text="", html="", mime=None)
    for attachment in Attachment.objects.using(database()).filter(message_id=key):
        path, storage = str(attachment.file.name), attachment.file.storage
        attachment.delete()
        # A file that cannot be deleted now is found by the next purge.
        transaction.on_commit(partial(storage.delete, path), using=database(), robust=True)


def sweep() -> list[UUID]:
    """Find what is due and not moving, and make it ready to be published.

    Scheduled and deferred messages whose time has come, published ones that nobody claimed, and claimed ones
    whose lease is over. Several sweeps at once share the work: each row is taken by one of them.

    Returns:
        Ids to be published.
    """
    now = timezone.now()
    due = Message.objects.using(database()).filter(due_at__lte=now).order_by("due_at")
    rows = list(due.values_list("id", "state", "expires_at", "queued_at")[:_SWEEP_LIMIT])
    _expire([key for key, _, expires_at, _ in rows if expires_at is not None and expires_at <= now])
    ready = _recover(_messages([key for key, state, _, _ in rows if state == State.SENDING]).filter(due_at__lte=now))
    lost_after = mailer_settings().LOST_AFTER
    ages: dict[timedelta, list[UUID]] = {}
    for key, state, _, queued_at in rows:
        if state in _WAITING:
            # A queue that is hours long is no loss: the older a message, the longer until it is published again.
            age = now - queued_at if state == State.QUEUED and queued_at is not None else timedelta(0)
            steps = max(1, age // lost_after)
            ages.setdefault(lost_after * (1 << (steps.bit_length() - 1)), []).append(key)
    for until_lost, ids in ages.items():
        ready += _take_due(ids, now, until_lost)
    return ready


@_without_conflicts
def _take_due(ids: Sequence[UUID], now: datetime, until_lost: timedelta) -> list[UUID]:
    token = new_token("sweep")
    due = _messages(ids).filter(state__in=_WAITING, due_at__lte=now)
    fresh = due.filter(queued_at__isnull=True)
    fresh.update(queued_at=now)
    due.update(state=State.QUEUED, token=token, due_at=now + until_lost)
    return list(_messages(ids).filter(state=State.QUEUED, token=token).values_list("id", flat=True))


def unpublished(ids: Iterable[UUID]) -> None:
    """The broker did not take these ids: let the next sweep see to them."""
    # Without this they are found all the same, only later.
    with suppress(DatabaseError):
        _publish_again(ids)


@_without_conflicts
def _publish_again(ids: Iterable[UUID]) -> None:
    _messages(ids).filter(state=State.QUEUED).update(due_at=timezone.now())


def cancel(key: UUID) -> bool:
    """Take a message back that no worker holds; returns whether it could be."""
    now = timezone.now()
    return bool(_messages([key]).filter(state__in=_WAITING).update(state=State.CANCELLED, due_at=None, finished_at=now))


def retry(key: UUID) -> None:
    """Queue a message again that failed, expired, was cancelled or held, for the recipients that have no copy.

    Raises:
        InvalidTransition: it is in another state, or its content has been dropped.
    """
    _queue_again(key, RETRYABLE)


def resend(key: UUID) -> None:
    """Queue a message again that is final, for all its recipients: whoever has it gets a second copy.

    Raises:
        InvalidTransition: it is in another state, or its content has been dropped.
    """
    _queue_again(key, FINAL, remaining=None, sent_at=None)


def _queue_again(key: UUID, states: frozenset[State], **values: object) -> None:
    now = timezone.now()
    # A sensitive message that was sent has nothing left to say.
    whole = Q(sensitive=False) | Q(sent_at__isnull=True)
    changed = _change(
        key,
        Q(state__in=states) & whole,
        Event.Type.RETRIED,
        state=State.QUEUED,
        due_at=now + mailer_settings().LOST_AFTER,
        queued_at=now,
        finished_at=None,
        expires_at=None,
        crashes=0,
        reason="",
        **values,
    )
    if changed:
        return
    message = _messages([key]).only("state").first()
    if message is None:
        raise InvalidTransition(f"Message {key} is gone.")
    if message.state in states:
        raise InvalidTransition(f"Message {key} is sensitive: its content was dropped when it was sent.")
    raise InvalidTransition(
        f"Message {key} is {message.state}; it can be queued again only when it is {', '.join(sorted(states))}."
    )
