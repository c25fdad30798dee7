"""Which messages a claim takes, and in what order: those of a task, what comes next of a batch, or what waits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connections
from django.db.models import Prefetch, Q, QuerySet

from ..models import NO_BATCH, Attachment, Batch, Message, State, clock
from ..models.transactions import database
from .claim_reading import claim_chosen
from .claim_statement import Choice, choice
from .cursors import CURSORS, BatchCursors
from .expiry import expire, not_expired
from .recovery import find_abandoned, recover
from .rows import all_messages, rows

# A message published less than this ago is left to an idle worker; a busy one takes it only after that.
_IDLE_WORKER_GRACE = timedelta(milliseconds=100)


def claim(ids: Sequence[UUID], token: str, *, redelivered: bool = False) -> list[Message]:
    """Take what may be sent of these messages, under a lease. Two claims never hold the same message.

    A message whose worker died while holding it is only taken when it is asked for alone: were it the cause, it
    would take the others with it again.

    Args:
        ids: what the broker says; ids of messages that are gone, not due or taken are passed over.
        token: from :func:`congressy_mailer.broker.claim_owners.new_claim_token`.
        redelivered: the broker has delivered this task before; its process may have died holding these messages.

    Returns:
        The messages taken, with their attachments fetched, in the order they should be sent.
    """
    if redelivered:
        recover(rows(find_abandoned(rows(ids))))
    now = clock.now()
    if len(ids) == 1:
        messages = claim_chosen(_choice_of_one(ids[0], now), token)
    else:
        messages = claim_chosen(choice(_claimable_together(ids, now).order_by("id")[: len(ids)]), token) if ids else []
    if len(messages) < len(set(ids)):
        expire(ids)
    return messages


def batch_with_content(key: UUID) -> Batch | None:
    """A batch, with what all of its messages say; ``None`` where it is gone."""
    batches = Batch.objects.using(database()).filter(pk=key)
    return batches.prefetch_related(Prefetch("attachments", Attachment.objects.using(database()))).first()


def claim_from_batch(batch: Batch, token: str, limit: int, cursors: BatchCursors = CURSORS) -> list[Message]:
    """Take what comes next of a batch; what was refused temporarily and is due goes first.

    A message whose worker died is not among them (``open_batch`` leaves it out): :func:`claim` takes it alone.

    Args:
        batch: from :func:`batch_with_content`.
        token: from :func:`congressy_mailer.broker.claim_owners.new_claim_token`.
        limit: the most that is taken.
        cursors: how far the claims of this process have come.
    """
    now = clock.now()
    due = all_messages().filter(deferred_batch=batch.pk, due_at__lte=now).order_by("due_at")
    in_order = all_messages().filter(open_batch=batch.pk).order_by("priority", "id")
    queued = in_order.filter(state=State.QUEUED, due_at=None)
    scheduled = in_order.filter(state=State.SCHEDULED, send_at__lte=now)
    return (
        claim_chosen(choice(due[:limit]), token, batch)
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
        messages = claim_chosen(choice(following[:limit]), token, batch)
    if not messages:
        cursors.restart(batch.pk, state)
        messages = claim_chosen(choice(waiting[:limit]), token, batch)
    if messages:
        cursors.advance(batch.pk, state, messages[-1].id)
    return messages


def claim_waiting(token: str, limit: int, *, before: int | None = None, using: str | None = None) -> list[Message]:
    """Take what has been published, is in no batch, and has been left waiting: it goes before what is less urgent.

    Args:
        token: of the claim.
        limit: the most that is taken.
        before: only messages whose priority is below this number; lower is more urgent.
        using: only what names this mail backend; empty: only what names none.
    """
    waiting = _waiting_alone()
    if before is not None:
        waiting = waiting.filter(priority__lt=before)
    if using is not None:
        waiting = waiting.filter(using=using)
    return claim_chosen(choice(waiting.filter(not_expired(clock.now())).order_by("priority", "id")[:limit]), token)


def has_waiting_messages() -> bool:
    """Whether :func:`claim_waiting` would claim a message."""
    return _waiting_alone().filter(not_expired(clock.now())).exists()


def others_wait(using: str | None) -> bool:
    """Whether mail waits that a task which keeps claiming does not reach: scheduled or deferred mail, or other mail.

    Args:
        using: the backend whose single mails the task claims; ``None``: it claims those of a batch.
    """
    due = all_messages().filter(state__in=(State.SCHEDULED, State.DEFERRED), sweep_at__lte=clock.now())
    return due.exists() or (using is not None and _waiting_alone().exclude(using=using).exists())


def _waiting_alone() -> QuerySet[Message]:
    cutoff = clock.now() - _IDLE_WORKER_GRACE
    return all_messages().filter(open_batch=NO_BATCH, state=State.QUEUED, crashes=0, queued_at__lte=cutoff)


# By database alias: the SQL and its parameters, in which these stand for a message's key, the list of it, and the time.
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


def _claimable_together(ids: Sequence[UUID], now: datetime) -> QuerySet[Message]:
    claimable = _claimable(ids, now)
    return claimable.filter(crashes=0) if len(set(ids)) > 1 else claimable


def _claimable(ids: Sequence[UUID], now: datetime) -> QuerySet[Message]:
    return rows(ids).filter(Q(state=State.QUEUED) | Q(state=State.DEFERRED, due_at__lte=now)).filter(not_expired(now))


def needing_solo(ids: Sequence[UUID]) -> list[UUID]:
    """Those of these messages that may be claimed, but only each alone."""
    return list(_claimable(ids, clock.now()).filter(crashes__gt=0).order_by("id").values_list("id", flat=True))
