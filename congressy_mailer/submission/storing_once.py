"""Storing what a caller may ask for twice: a message with an ``idempotency_key``, a batch with a ``key``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from django.db import IntegrityError

from .. import outbox
from ..exceptions import IdempotencyConflict
from ..models import Attachment, Batch, Message

_Row = TypeVar("_Row", Message, Batch)

#: Of each model the column of its key, and what another call in a new transaction does.
_KEYS = {Message: ("idempotency_key", "returns it"), Batch: ("key", "goes on with it")}


def find_or_store(
    new: _Row, attach: Callable[[], Sequence[Attachment]], store: Callable[[Sequence[Attachment]], None]
) -> _Row:
    """Store a new row, unless one with its key is there.

    Args:
        new: not stored yet; its key may be empty.
        attach: stores the contents of its attachments, and returns their rows.
        store: stores it with these; an :class:`django.db.IntegrityError` must leave the caller's transaction usable.

    Returns:
        The new row, or the one that came first.

    Raises:
        IdempotencyConflict: another transaction has just used its key, and that row cannot be seen in this one.
    """
    column, again = _KEYS[type(new)]
    key: str | None = getattr(new, column)
    if key and (existing := _find(new, column, key)):
        return existing
    attachments = attach()
    try:
        store(attachments)
    except IntegrityError as error:
        # Another caller with the same key came first. Its files are stored already; ours are not needed.
        outbox.forget_files(attachments)
        if not key:
            raise
        if existing := _find(new, column, key):
            return existing
        # REPEATABLE READ shows what there was when this transaction began.
        raise IdempotencyConflict(
            f"Another transaction has just used {column}={key!r}, and its {new._meta.model_name} cannot be seen in "
            f"this one. Try again in a new transaction: that {again}."
        ) from error
    return new


def _find(new: _Row, column: str, key: str) -> _Row | None:
    return type(new)._default_manager.using(outbox.database()).filter(**{column: key}).first()
