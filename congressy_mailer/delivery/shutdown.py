"""SIGTERM in the midst of a mail: the mail is finished and recorded first."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def sigterm_waits(asked: Callable[[], None]) -> Iterator[None]:
    """Have SIGTERM only ask to come to an end; what it does otherwise, it does when the ``with`` block is left.

    A worker's pool processes get it from whoever ends a whole group of processes, as systemd does by default. There
    it raises ``SystemExit`` wherever the process happens to be, perhaps between a mail server's acceptance and the
    record of it.

    Args:
        asked: called when it comes. Only Python's main thread gets signals; in another thread nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        asked()

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
        if came:
            os.kill(os.getpid(), signal.SIGTERM)
