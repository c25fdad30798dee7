"""Paused mail: put back until it is resumed, and not looked at before.

A pause is a row that all workers read, at most twice a second each. What they find paused they put back without a time
at which it is due, so that it costs nothing until the pause is lifted; only its ``expires_at`` still ends it. Resuming
makes everything due that names the pause.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from django.db.models import F, QuerySet

from ..conf import mailer_settings
from ..models import PAUSED, Batch, Message, Pause, PauseScope, State, clock
from ..models.transactions import database, lock_free, retry_on_conflict
from .rows import rows
from .waiting import COUNTED

#: The name of the default mail backend, whose alias messages leave empty.
DEFAULT_BACKEND = "default"

#: Seconds for which a process knows what is paused: far less than a time slice.
_KNOWN_FOR = 0.5

# Messages that are made due in one transaction.
_CHUNK = 1000

# A worker that has not heard of the end of a pause puts nothing back for it any more after this time.
_HEARD_AFTER = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class ActivePauses:
    """What is paused at a moment."""

    #: By scope and name.
    pauses: dict[tuple[str, str], Pause] = field(default_factory=dict)

    def backend(self, alias: str) -> Pause | None:
        """The pause of this mail backend; of the default one where the alias is empty."""
        return self.pauses.get((PauseScope.BACKEND, alias or DEFAULT_BACKEND))

    def of_message(self, message: Message) -> Pause | None:
        """What holds back a message that has a task of its own."""
        if not self.pauses:
            return None
        # A message that was sent again by hand does not wait with its batch any more.
        batch = None if message.detached else message.batch_id
        bound = [message.route] if message.crashes and not message.using else None
        return self._find(mailer_settings().QUEUE, message.using, message.content.campaign, batch, bound)

    def of_batch(self, batch: Batch) -> Pause | None:
        """What holds back all of a batch."""
        return self._find(mailer_settings().BULK_QUEUE, batch.using, batch.campaign, batch.pk) if self.pauses else None

    def _find(
        self, queue: str, using: str, campaign: str, batch: UUID | None, bound: Sequence[str] | None = None
    ) -> Pause | None:
        found = self.pauses.get((PauseScope.ALL, "")) or self.pauses.get((PauseScope.QUEUE, queue))
        if found is None and batch is not None:
            found = self.pauses.get((PauseScope.BATCH, str(batch)))
        if found is None and campaign:
            found = self.pauses.get((PauseScope.CAMPAIGN, campaign))
        if found is None:
            # Mail that may go over several is held back where all of them are paused.
            routes = bound or ([using] if using else ["", *mailer_settings().FAILOVER])
            paused = [self.backend(route) for route in routes]
            found = paused[0] if all(paused) else None
        return found


_known: tuple[float, str, ActivePauses] | None = None


def active_pauses() -> ActivePauses:
    """What is paused, as this process has known it for half a second at the most."""
    global _known
    now, alias = time.monotonic(), database()
    if _known is None or _known[0] < now or _known[1] != alias:
        pauses = {(pause.scope, pause.name): pause for pause in list_pauses()}
        _known = now + _KNOWN_FOR, alias, ActivePauses(pauses)
    return _known[2]


def note_no_pauses() -> None:
    """A claim has found that nothing is paused."""
    global _known
    _known = time.monotonic() + _KNOWN_FOR, database(), ActivePauses({})


def forget_pauses() -> None:
    """Ask the database the next time."""
    global _known
    _known = None


def list_pauses() -> QuerySet[Pause]:
    """All pauses in force, the oldest first."""
    return _pauses().filter(resumed_at=None).order_by("paused_at", "id")


def add_pause(scope: PauseScope, name: str, reason: str, by: str) -> Pause:
    """Begin a pause; where there is one already, that is returned, and stays as it is."""
    existing = list_pauses().filter(scope=scope, name=name).first()
    if existing is not None:
        return existing
    pause = Pause(scope=scope, name=name, reason=reason, paused_by=by[:150], paused_at=clock.now())
    pause.save(using=database(), force_insert=True)
    forget_pauses()
    return pause


def end_pause(scope: PauseScope, name: str) -> list[UUID]:
    """End a pause; returns what is to be released, by :func:`release_messages` and :func:`release_batches`."""
    ended = list(list_pauses().filter(scope=scope, name=name).values_list("id", flat=True))
    _pauses().filter(id__in=ended).update(resumed_at=clock.now())
    forget_pauses()
    return ended


def ended_pauses() -> list[UUID]:
    """Pauses that were resumed, and of which something may still be held back."""
    return list(_pauses().filter(resumed_at__isnull=False).values_list("id", flat=True))


def forget_ended_pauses() -> None:
    """Drop what was resumed so long ago that no worker puts anything back for it, and of which nothing is held back.

    What others have locked was not released with the rest, and only its pause leads to it.
    """
    for pause in _pauses().filter(resumed_at__lt=clock.now() - _HEARD_AFTER):
        batches = Batch.objects.using(database()).filter(pause=pause.pk)
        if not (_held([pause.pk]).exists() or batches.exists()):
            _pauses().filter(pk=pause.pk).delete()


# Putting back


def hold(token: str, ids: Iterable[UUID], pause: Pause) -> None:
    """Put claimed messages with tasks of their own back until the pause is resumed; no attempt is counted."""
    held = list(ids)
    _hold(token, held, pause)
    # Resumed between the look and the change: no sweep would look for them.
    if not list_pauses().filter(pk=pause.pk).exists():
        _release(rows(held).filter(state=State.QUEUED, pause=pause.pk))


@retry_on_conflict
def _hold(token: str, ids: Iterable[UUID], pause: Pause) -> None:
    rows(ids).filter(state=State.SENDING, token=token).update(
        state=State.QUEUED, token="", handover_started_at=None, blocked=False, pause=pause.pk, due_at=F("expires_at"),
        # However long the pause is, a refusal after it is tried again for as long as any other.
        first_attempt_at=None,
    )  # fmt: skip


def hold_batch(key: UUID, pause: Pause) -> None:
    """Keep workers from looking at a batch until the pause is resumed, or the batch expires.

    Where a caller holds its row, the next sweep looks again.
    """
    _hold_batch(key, pause)
    if not list_pauses().filter(pk=pause.pk).exists():
        release_batches([pause.pk])


@retry_on_conflict
def _hold_batch(key: UUID, pause: Pause) -> None:
    batch = Batch.objects.using(database()).filter(pk=key, cancelled_at=None)
    free = list(lock_free(batch).values_list("id", flat=True))
    Batch.objects.using(database()).filter(id__in=free).update(due_at=F("expires_at"), pause=pause.pk)


# Releasing


def release_messages(pauses: Sequence[UUID]) -> list[UUID]:
    """Make some of the messages due that these pauses have held back; returns their ids, for them to be published."""
    return _release(_held(pauses).order_by("priority", "id")) if pauses else []


@retry_on_conflict
def _release(held: QuerySet[Message]) -> list[UUID]:
    ids = list(lock_free(held).values_list("id", flat=True)[:_CHUNK])
    if ids:
        now = clock.now()
        # As they wait from now on: how long the pause was says nothing of the workers.
        rows(ids).filter(state=State.QUEUED).update(pause=None, due_at=now, queued_at=now)
    return ids


@retry_on_conflict
def release_batches(pauses: Sequence[UUID]) -> int:
    """Make the batches due that these pauses have held back; returns how many."""
    batches = Batch.objects.using(database())
    held = list(lock_free(batches.filter(pause__in=list(pauses)).order_by("id")).values_list("id", flat=True))
    for key in held:
        Message.objects.using(database()).filter(deferred_batch=key).update(first_attempt_at=None)
    return batches.filter(id__in=held).update(pause=None, due_at=clock.now())


def count_paused() -> tuple[Counter[UUID], Counter[UUID]]:
    """By each pause: how many messages with tasks of their own are held back, and how many batches.

    Only of the first :data:`.waiting.COUNTED` messages and batches, for all pauses.
    """
    messages = Message.objects.using(database()).filter(open_batch=PAUSED, state=State.QUEUED).order_by()
    batches = Batch.objects.using(database()).filter(pause__isnull=False, cancelled_at=None).order_by()
    by_messages, by_batches = (
        Counter(key for key in held.values_list("pause_id", flat=True)[:COUNTED] if key is not None)
        for held in (messages, batches)
    )
    return by_messages, by_batches


def _held(pauses: Sequence[UUID]) -> QuerySet[Message]:
    held = Message.objects.using(database()).filter(open_batch=PAUSED, state=State.QUEUED)
    return held.filter(pause__in=list(pauses))


def _pauses() -> QuerySet[Pause]:
    return Pause.objects.using(database())
