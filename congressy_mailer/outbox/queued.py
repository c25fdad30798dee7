"""Queued messages: when a sweep looks at them, by what the broker has taken of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from uuid import UUID

from ..conf import mailer_settings
from ..models import State, clock
from ..models.transactions import lock_free, retry_on_conflict
from .expiry import before_expiry_expression
from .rows import rows


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
