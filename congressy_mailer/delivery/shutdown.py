"""A signal that ends the process in the midst of a mail: the mail is finished and recorded first."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from billiard.common import TERM_SIGNAL

# Those by which Celery and whoever supervises it end a worker and its pool processes. SIGINT is none of them: pool
# processes ignore it.
_ENDING = frozenset({TERM_SIGNAL, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP})


@contextmanager
def deferred_signals(on_signal: Callable[[], None]) -> Iterator[None]:
    """Have signals that end this process only ask to come to an end; they do the rest after the ``with`` block.

    A worker's pool processes get SIGTERM from whoever ends a whole group of processes, as systemd does by default,
    SIGQUIT from a keyboard, SIGHUP from a terminal that is closed, and from Celery itself, for a cold shutdown, the one
    that ``REMAP_SIGTERM`` names. In a pool process each of them raises ``SystemExit`` wherever the process happens to
    be, perhaps between a mail server's acceptance and the record of it.

    Args:
        on_signal: called when one comes. Only Python's main thread gets signals; in another thread nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        on_signal()

    # A signal that is ignored ends nothing: SIGTERM in pool processes under REMAP_SIGTERM, SIGHUP under nohup.
    held = [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, handle) for number in held}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for received_number in dict.fromkeys(received):
            os.kill(os.getpid(), received_number)
