"""A time slice goes on while nothing else waits for the process: its end would leave connections idle."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from uuid import UUID

from .. import outbox
from ..broker.waiting_tasks import none_waited_lately, some_wait
from ..conf import mailer_settings
from ..tracking import inbox
from .deadlines import Deadlines

# The share of a slice between two looks.
_CHECK_INTERVAL = 0.5


class Prolonging:
    """Prolongs the slice of a task while neither other tasks of its worker nor other mail wait."""

    def __init__(self, deadlines: Deadlines, before_looking: Callable[[], None]) -> None:
        """
        Args:
            deadlines: of the task.
            before_looking: called before the outbox is asked.
        """
        self._deadlines = deadlines
        self._before_looking = before_looking
        self._interval = mailer_settings().TIME_SLICE.total_seconds() * _CHECK_INTERVAL
        self._looked_at = time.monotonic()
        #: Whether other mail waits; ``None``: the slice is not prolonged.
        self.others_wait: Callable[[], bool] | None = None

    def look(self) -> None:
        """Between mails: find out whether the slice goes on, or has gone on for long enough."""
        if some_wait():
            self._deadlines.end_prolonging()
            return
        now = time.monotonic()
        if self.others_wait is None or now < self._looked_at + self._interval or not self._deadlines.may_be_prolonged:
            return
        self._looked_at = now
        if none_waited_lately():
            self._before_looking()
            if not self.others_wait():
                self._deadlines.prolong_slice()


def beside_batch(key: UUID, generation: int) -> Callable[[], bool]:
    """Whether mail waits that a task for a batch does not see while it sends, or the task is not to go on.

    Mail that goes before batches is looked for by that task itself.

    Args:
        key: of the batch.
        generation: of the task.
    """

    def others_wait() -> bool:
        # It says as well that a task is at work. Contents may be on their way: what is to be ended is the next task's.
        return not outbox.heartbeat(key, generation, end_waiting=False) or _others_wait(key, None)

    return others_wait


def beside_single_mails(using: str) -> Callable[[], bool]:
    """Whether mail waits that a task for mail in no batch does not see while it sends.

    Args:
        using: what its messages name as their mail backend.
    """
    return partial(_others_wait, None, using)


def _others_wait(batch: UUID | None, using: str | None) -> bool:
    return outbox.others_wait(using) or outbox.other_batches_wait(batch) or inbox.has_unprocessed()
