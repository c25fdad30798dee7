"""Messages whose worker died, or broke down, while holding them.

What its journal says was accepted is recorded as that; only of the others it is not known what became of them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from django.db.models import F, Q, QuerySet

from .. import metrics, signals
from ..broker.claim_owners import owner_is_gone
from ..conf import mailer_settings
from ..models import Event, Message, State, clock
from ..models.transactions import database, lock_free, retry_on_conflict
from .backoff import FLOOR
from .batches import cancelled_batches
from .journal_folder import acceptances_of
from .results import record_noted
from .rows import change, rows

logger = logging.getLogger("congressy_mailer.outbox")

# Messages of one transaction.
_CHUNK = 500

_OUTCOME_UNKNOWN = "Its worker died while handing it over; whether the mail server took it is not known."


def find_abandoned(messages: QuerySet[Message]) -> list[UUID]:
    """Those of these messages that are held by a process which is gone for certain."""
    claims = messages.filter(state=State.SENDING).order_by("id").values_list("id", "token")
    return [key for key, token in claims if owner_is_gone(token)]


def recover(messages: QuerySet[Message]) -> list[UUID]:
    """Put messages whose worker died back on the queue, or aside; returns those that are queued again.

    Those that a mail server has taken, as the worker's journal says, are recorded as sent.
    """
    held = messages.filter(state=State.SENDING).order_by("id")
    queued: list[UUID] = []
    # In chunks, each in a transaction of its own: a worker may have died with a whole slice.
    while chunk := _recover_chunk(held):
        queued += [key for key, state in chunk.items() if state == State.QUEUED]
        _announce(chunk)
    return queued


def _announce(chunk: Mapping[UUID, State]) -> None:
    """Count what has come to its end, and tell receivers of signals."""
    ended = {key for key, state in chunk.items() if state in (State.SENT, State.HELD)}
    for message in rows(ended) if ended else ():
        if message.state == State.SENT:
            metrics.count_sent([message])
            signals.sent.send_robust(Message, message=message)
        elif message.state == State.HELD:
            metrics.count_state(message)
            signals.held.send_robust(Message, message=message)


@retry_on_conflict
def _recover_chunk(held: QuerySet[Message]) -> dict[UUID, State]:
    """The state that each is in now; what another process is changing at this moment is left to it."""
    now = clock.now()
    columns = ("id", "token", "batch_id", "detached", "crashes", "handover_started_at")
    locked = list(lock_free(held).only(*columns)[:_CHUNK])
    noted = _record_noted({message.id: message.token for message in locked})
    found = [message for message in locked if message.id not in noted]
    cancelled = cancelled_batches(message.batch_id for message in found if not message.detached)
    reasons = {message.id: _reason_to_hold(message) for message in found}
    states = {
        message.id: State.CANCELLED if message.batch_id in cancelled and not message.detached
        else State.HELD if reasons[message.id] else State.QUEUED
        for message in found
    }  # fmt: skip
    for state, reason in sorted({(states[key], reasons[key]) for key in states}):
        ids = [key for key in states if (states[key], reasons[key]) == (state, reason)]
        # The state is asked again for servers without SKIP LOCKED, whose rows are not locked.
        rows(ids).filter(state=State.SENDING).update(
            **_after_crash(state, reason, now, now + mailer_settings().LOST_AFTER)
        )
    # Without signals: a receiver of the host's for all models would decide whether this is recorded.
    Event.objects.using(database()).bulk_create(
        Event(message_id=key, type=Event.Type.CRASHED, at=now, detail=reasons[key]) for key in states
    )
    return states | noted


def _record_noted(claims: Mapping[UUID, str]) -> dict[UUID, State]:
    """Record what the journals of those who made these claims say; returns the state that each message is in now."""
    states = {
        key: state
        for key, acceptance in sorted(acceptances_of(claims).items())
        if (state := record_noted(acceptance)) is not None
    }
    if states:
        logger.info(
            "A mail server has taken %d messages whose worker has died since, as its journal says: they are not sent "
            "again.",
            len(states),
        )
    return states


def _reason_to_hold(message: Message) -> str:
    conf = mailer_settings()
    if conf.ON_CRASH == "hold" and message.handover_started_at is not None:
        return _OUTCOME_UNKNOWN
    if message.crashes + 1 >= conf.MAX_CRASHES:
        return f"Its worker died {message.crashes + 1} times while holding it: it may be the cause."
    return ""


def record_crash(token: str, message: Message, error: str) -> None:
    """Composing a claimed message broke its worker, or used up its time: try again alone, or put it aside.

    Its new state is set in ``message`` as well.

    Args:
        token: of the claim.
        message: as it was claimed.
        error: what happened, for people.
    """
    crashes = message.crashes + 1
    hold = crashes >= mailer_settings().MAX_CRASHES
    state = message.state = State.HELD if hold else State.QUEUED
    reason = f"It broke its worker {crashes} times: {error}" if hold else error
    now = clock.now()
    # A message that was claimed alone comes back soon; the sweep publishes it.
    changes = _after_crash(state, reason, now, now + FLOOR)
    change(message.id, Q(state=State.SENDING, token=token), Event.Type.CRASHED, **changes)


def _after_crash(state: State, reason: str, now: datetime, due_at: datetime) -> dict[str, object]:
    open_again = state == State.QUEUED
    return {
        "state": state, "due_at": due_at if open_again else None, "finished_at": None if open_again else now,
        "crashes": F("crashes") + 1, "token": "", "handover_started_at": None, "reason": reason,
    }  # fmt: skip
