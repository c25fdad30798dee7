"""Short transactions on rows in one order: what every change of the outbox stands on."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import wraps
from typing import ParamSpec, TypeVar
from uuid import UUID

from django.db import OperationalError, connections, router, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from ..models import Event, Message, State

#: States in which no worker holds a message and something is still to be done.
WAITING = (State.SCHEDULED, State.QUEUED, State.DEFERRED)

# Deadlock and serialisation failure (PostgreSQL), deadlock and lock wait timeout (MariaDB, MySQL).
_CONFLICTS = {"40P01", "40001", 1213, 1205}
_CONFLICT_TRIES = 8

_P = ParamSpec("_P")
_R = TypeVar("_R")


def database() -> str:
    """Alias of the database that the messages are written to."""
    return router.db_for_write(Message)


def rows(ids: Iterable[UUID]) -> QuerySet[Message]:
    """These messages, whatever their state."""
    # Sorted: updates that lock rows in the same order do not deadlock.
    return Message.objects.using(database()).filter(id__in=sorted(ids))


def held(key: UUID, token: str) -> QuerySet[Message]:
    """This message, if the claim with this token still holds it."""
    return rows([key]).filter(state=State.SENDING, token=token)


def without_conflicts(change: Callable[_P, _R]) -> Callable[_P, _R]:
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


def _is_conflict(error: OperationalError) -> bool:
    cause = error.__cause__
    code = getattr(cause, "sqlstate", None) or (cause.args[0] if cause is not None and cause.args else None)
    return code in _CONFLICTS or "database is locked" in str(error)


@without_conflicts
def change(key: UUID, condition: Q, event: Event.Type, **values: object) -> bool:
    """One message's change together with the event that tells of it."""
    if not rows([key]).filter(condition).update(**values):
        return False
    tell(key, event, timezone.now(), detail=str(values.get("reason", "")))
    return True


def tell(key: UUID, event: Event.Type, at: datetime, recipient: str = "", detail: str = "") -> None:
    """Write down what happened to a message."""
    Event.objects.using(database()).create(message_id=key, type=event, at=at, recipient=recipient, detail=detail)
