"""How many mails of a batch share a call: four times as many with each call that was made in time.

It is remembered from task to task, so that a batch whose tasks get a second each comes to large calls as well.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from uuid import UUID

from ..conf import mailer_settings

_GROWTH = 4

# Batches whose sizes are remembered.
_MOST_BATCHES = 100

#: By batch, as many as the next call may have.
_sizes: OrderedDict[UUID, int] = OrderedDict()


def next_size(batch: UUID) -> int:
    """How many messages to claim for the next call: ``SLICE_SIZE`` at first."""
    most: int = mailer_settings().SLICE_SIZE
    return _sizes.get(batch, most)


def observe(batch: UUID, claimed: int, unfinished: int, most: int) -> None:
    """Remember how far a task has come with what it had claimed for a call.

    Args:
        batch: which it was for.
        claimed: how many messages.
        unfinished: those of them that were put back, since the time was over.
        most: that a call may have.
    """
    size = next_size(batch)
    if mailer_settings().RATE_LIMIT is not None or (claimed < size and not unfinished):
        # The rate says how many leave, or there were no more.
        return
    if unfinished:
        # The slice may have been about to end when they were claimed: that says little of the next one.
        least = min(mailer_settings().SLICE_SIZE, most)
        _sizes[batch] = max(least, size // 2, claimed - unfinished)
    else:
        _sizes[batch] = max(size, min(_GROWTH * size, most))
    _sizes.move_to_end(batch)
    if len(_sizes) > _MOST_BATCHES:
        _sizes.popitem(last=False)


def forget() -> None:
    """Know nothing of any batch, as in a new process."""
    _sizes.clear()


os.register_at_fork(after_in_child=forget)
