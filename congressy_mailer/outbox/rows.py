"""Short transactions on rows in one order: what every change of the outbox stands on."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from django.core.exceptions import EmptyResultSet
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import F, Q, QuerySet
from django.db.models.lookups import In
from django.utils import timezone

from ..conf import mailer_settings
from ..models import Event, Message, State
from ..models.transactions import database, retry_on_conflict

# The part of LOST_AFTER that publishing may take: five seconds by default.
_PUBLISHING_SHARE = 12


class InArray(In):
    """``IN``; on PostgreSQL all values are one parameter, an array.

    With a parameter for each of a thousand keys, writing them into the statement costs the process more time than the
    database needs to find the rows. The plan is the same: PostgreSQL reads a list as an array, too.
    """

    def as_postgresql(self, compiler: Any, connection: BaseDatabaseWrapper) -> tuple[str, tuple[Any, ...]]:
        sql, parameters = self.process_lhs(compiler, connection)
        field = self.lhs.output_field
        values = [field.get_db_prep_value(value, connection, prepared=True) for value in self.rhs]
        if not values:
            raise EmptyResultSet
        return f"{sql} = ANY(%s)", (*parameters, values)


def all_messages() -> QuerySet[Message]:
    """All messages of the outbox's database."""
    return Message.objects.using(database())


def rows(ids: Iterable[UUID]) -> QuerySet[Message]:
    """These messages, in any state."""
    # Sorted: updates that lock rows in the same order do not deadlock.
    return all_messages().filter(InArray(F("id"), sorted(ids)))


def any_stored(ids: Iterable[UUID]) -> bool:
    """Whether one of these messages is in this database, in any state."""
    return rows(ids).exists()


def claimed_row(key: UUID, token: str) -> QuerySet[Message]:
    """This message, if the claim with this token still holds it."""
    return rows([key]).filter(state=State.SENDING, token=token)


@retry_on_conflict
def change(key: UUID, condition: Q, event: Event.Type, **values: object) -> bool:
    """One message's change together with the event that records it."""
    if not rows([key]).filter(condition).update(**values):
        return False
    add_event(key, event, timezone.now(), detail=str(values.get("reason", "")))
    return True


def add_event(key: UUID, event: Event.Type, at: datetime, recipient: str = "", detail: str = "") -> None:
    """Write down what happened to a message."""
    # Without signals: a receiver of the host's for all models would decide whether this is recorded.
    Event.objects.using(database()).bulk_create(
        [Event(message_id=key, type=event, at=at, recipient=recipient, detail=detail)]
    )


def publishing_overdue_at(now: datetime) -> datetime:
    """When a sweep looks at what is stored now and published once the caller's transaction has committed.

    Not after ``LOST_AFTER``: a hook of the host's that raises after the commit has Django call none behind it. What is
    published by then is not published twice, however long it waits in the queue, since a sweep that was published
    later comes out of the queue behind it. So this only has to cover the time from the call to the commit.
    """
    return now + mailer_settings().LOST_AFTER / _PUBLISHING_SHARE
