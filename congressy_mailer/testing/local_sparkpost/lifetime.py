"""Processes that do not outlive the one that started them, not even when that one is killed.

Also a program: ``python lifetime.py PARENT SIGNAL COMMAND…`` becomes COMMAND, which gets the signal when the process
PARENT ends. It needs nothing but the standard library, so that it runs before any path is set up.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time

#: ``PR_SET_PDEATHSIG`` in prctl(2). The signal comes when the *thread* ends that started the process.
_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int, with_signal: int = signal.SIGTERM) -> None:
    """Have this process receive a signal when its parent ends.

    Args:
        parent: process id of the parent, found before this process was started.
        with_signal: the signal.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(with_signal))
    else:
        _watch(parent, with_signal)
    if os.getppid() != parent:
        # It ended before it could be watched.
        os.kill(os.getpid(), with_signal)


def _watch(parent: int, with_signal: int) -> None:
    """Leave a small process behind that waits for one of the two to end; systems without prctl(2)."""
    watched = os.getpid()
    if os.fork():
        return
    while os.getppid() == watched and _exists(parent):
        time.sleep(0.5)
    if os.getppid() == watched:
        os.kill(watched, with_signal)
    os._exit(0)


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]), int(sys.argv[2]))
    os.execvp(sys.argv[3], sys.argv[3:])  # noqa: S606
