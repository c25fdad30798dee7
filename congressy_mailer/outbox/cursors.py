"""How far into each batch this process has claimed, so that the next claim begins there.

The old index entry of a row that was claimed stays until no transaction can see it any more. While a transaction of the
host's is open, a claim from the beginning of the batch would read past everything that was sent meanwhile.

A cursor is a shortcut and no state: what lies before it is found when it comes to the end of the batch, and after
:data:`LIFETIME` at the latest.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import NamedTuple
from uuid import UUID

from django.db import connections
from django.db.models import F, Func, IntegerField, QuerySet, UUIDField, Value
from django.db.models.lookups import GreaterThan

from ..models import Message, State
from ..models.indexes import forced
from ..models.transactions import database

#: Seconds after which a claim begins at the beginning again: another process may have put something back there.
LIFETIME = 60.0

#: Batches whose cursor is kept; a process that works at more of them at the same time goes without for some.
_MOST = 100


class _Cursor(NamedTuple):
    last: UUID
    #: By :func:`time.monotonic`.
    valid_until: float


class BatchCursors:
    """The cursors of one process. Its threads share them: two that get in each other's way lose a shortcut."""

    def __init__(self) -> None:
        self._cursors: dict[tuple[UUID, State], _Cursor] = {}

    def after(self, waiting: QuerySet[Message], batch: UUID, state: State, priority: int) -> QuerySet[Message] | None:
        """Those of these messages that come after the cursor; ``None`` where there is none.

        Args:
            waiting: messages of the batch in this state, in the order of their priority and id.
            batch: its id.
            state: that they are in.
            priority: of the batch.
        """
        cursor = self._cursors.get((batch, state))
        if cursor is None or cursor.valid_until < time.monotonic():
            self._cursors.pop((batch, state), None)
            return None
        return _after(waiting, priority, cursor.last)

    def advance(self, batch: UUID, state: State, last: UUID) -> None:
        """Everything of a batch in this state was claimed up to this message."""
        if (cursor := self._cursors.get((batch, state))) is not None:
            self._cursors[batch, state] = cursor._replace(last=last)
            return
        if len(self._cursors) >= _MOST:
            del self._cursors[next(iter(self._cursors))]
        self._cursors[batch, state] = _Cursor(last, time.monotonic() + LIFETIME)

    def restart(self, batch: UUID, state: State) -> None:
        """Begin at the beginning of a batch again."""
        self._cursors.pop((batch, state), None)

    def rewind(self, batch: UUID, ids: Collection[UUID]) -> None:
        """These messages of a batch are queued again: go back to before the first of them."""
        before = UUID(int=min(ids).int - 1)
        cursor = self._cursors.get((batch, State.QUEUED))
        if cursor is not None and before < cursor.last:
            self._cursors[batch, State.QUEUED] = cursor._replace(last=before)


#: Those of this process.
CURSORS = BatchCursors()


def _after(waiting: QuerySet[Message], priority: int, last: UUID) -> QuerySet[Message]:
    if connections[database()].vendor == "mysql":
        # A comparison of rows reads the index from its beginning there, and so does this without being forced.
        return forced(waiting.filter(priority=priority, id__gt=last), "mailer_message_open")
    # With "priority = …" alone, the primary key would give the same order: a planner that takes it reads all messages
    # that were stored since.
    here = _row(F("priority"), F("id"))
    return waiting.filter(GreaterThan(here, _row(Value(priority, IntegerField()), Value(last, UUIDField()))))


def _row(*expressions: F | Value) -> Func:
    return Func(*expressions, template="(%(expressions)s)", output_field=UUIDField())
