"""Carrying out a claim: the chosen messages are read with what belongs to them, and without what cannot be read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from celery.exceptions import SoftTimeLimitExceeded
from django.db import DataError, Error
from django.db.models import DateTimeField, F, Prefetch, QuerySet, Value, prefetch_related_objects
from django.db.models.functions import Coalesce

from ..conf import mailer_settings
from ..models import Attachment, Batch, Event, Message, State, clock
from ..models.transactions import database, is_away, retry_on_conflict
from .claim_statement import HAS_ATTACHMENTS, IS_PAUSED, Choice, answer, claim_at_once
from .leases import lease_end
from .pausing import note_no_pauses
from .results import fail
from .rows import add_event, all_messages, claimed_row

logger = logging.getLogger("congressy_mailer.outbox")


def claim_chosen(chosen: Choice, token: str, batch: Batch | None = None) -> list[Message]:
    """Claim these, and read what they say.

    Args:
        chosen: which may be claimed.
        token: of the claim.
        batch: what they belong to, where that has been read.

    Returns:
        The messages in the order in which they should be sent.
    """
    now = clock.now()
    due_at = lease_end(now)
    values = {
        "state": State.SENDING, "token": token, "due_at": due_at, "handover_started_at": None, "blocked": False,
        "pause": None, "queued_at": now,
    }  # fmt: skip

    def held() -> QuerySet[Message]:
        return all_messages().filter(state=State.SENDING, sweep_at=due_at, token=token)

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
