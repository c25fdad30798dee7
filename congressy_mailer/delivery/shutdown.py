"""SIGTERM in the midst of a mail: the mail is finished and recorded first."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred_sigterm(on_signal: Callable[[], None]) -> Iterator[None]:
    """Have SIGTERM only ask to come to an end; what it does otherwise, it does when the ``with`` block is left.

    A worker's pool processes get it from whoever ends a whole group of processes, as systemd does by default. There
    it raises ``SystemExit`` wherever the process happens to be, perhaps between a mail server's acceptance and the
    record of it.

    Args:
        on_signal: called when it comes. Only Python's main thread gets signals; in another thread nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received = True
        on_signal()

    previous_handler = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if previous_handler is None else previous_handler)
        if received:
            os.kill(os.getpid(), signal.SIGTERM)
