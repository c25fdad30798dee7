"""How long something takes, whatever else the machine has to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def own_seconds(work: Callable[[], object]) -> float:
    """Seconds for which a call computes or waits for others.

    Without those for which its thread could have gone on and had no processor, as far as the system tells (Linux).
    """
    began = time.monotonic() - _seconds_without_a_processor()
    work()
    return time.monotonic() - _seconds_without_a_processor() - began


def least_own_seconds(bound: float, work: Callable[[], float]) -> float:
    """The least of up to five attempts, of which the first below a bound ends them.

    What the code waits for is in every attempt; what a busy machine adds, or a server on it, is not.
    """
    least = work()
    for _ in range(4):
        if least < bound:
            break
        least = min(least, work())
    return least


def _seconds_without_a_processor() -> float:
    try:
        # proc_schedstat: nanoseconds on a processor, nanoseconds in its queue, number of times.
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0
