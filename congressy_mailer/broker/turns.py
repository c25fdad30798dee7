"""Whose turn it is in a process: it works at no two slices of batches in a row while another task waits.

A batch has up to ten tasks, and a worker fetches more of them than it has processes. What comes behind them would wait
for a slice of each, though any one of them looks for the same mail.
"""

from __future__ import annotations

import threading
import time

from . import waiting_tasks

# Tasks for batches that give way one after the other. If none of the others has come by then, it waits for something
# else than a process, such as for the one worker that may take it from its queue.
_MOST = 20
# Seconds for which none gives way after that.
_BREAK = 60.0


class _Turns(threading.local):
    """What a process has done last, or a thread where tasks run in threads."""

    #: The last was a slice of a batch.
    had_slice = False
    #: So many tasks have given way since.
    given = 0
    none_before = float("-inf")


_turns = _Turns()


def slice_ended() -> None:
    """A task for a batch has worked."""
    _turns.had_slice, _turns.given = True, 0


def others_begin() -> None:
    """A task begins that tasks for batches give way to."""
    _turns.had_slice, _turns.given, _turns.none_before = False, 0, float("-inf")
    # There may be more of them: the main process says so at its next look.
    waiting_tasks.forget()


def gives_way() -> bool:
    """Whether a task for a batch, which is beginning, is to be put at the end of the queue instead."""
    now = time.monotonic()
    if not _turns.had_slice or now < _turns.none_before or not waiting_tasks.some_wait():
        return False
    _turns.given += 1
    if _turns.given > _MOST:
        _turns.none_before = now + _BREAK
        return False
    return True
