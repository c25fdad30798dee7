"""Mail that came to its end long ago, and the purge of it."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from uuid import UUID

from django.utils import timezone

from congressy_mailer.delivery import upkeep
from congressy_mailer.models import Message, State


def finish(ids: Collection[UUID], state: State = State.SENT, **ago: float) -> None:
    """Have mails come to their end so long ago; where nothing is said, longer than content is kept by default."""
    finished_at = timezone.now() - timedelta(**(ago or {"days": 31}))
    Message.objects.filter(pk__in=ids).update(state=state, due_at=None, token="", finished_at=finished_at)


def purge() -> int:
    """Purge as workers do, until nothing is left to do; returns the number of chunks."""
    chunks = 1
    while upkeep.purge_some():
        chunks += 1
    return chunks
