"""Pure rules of permits, each of which is for one mail: how many a process takes ahead, and how long they are good for.

All rates are mails per second; all times are seconds.
"""

from __future__ import annotations

import math

# Permits for more than this are not taken at a time, nor do unused ones add up to more than twice of it.
_PERMIT_WINDOW = 0.02

#: Permits that were not used within this time are not used any more: other workers were given theirs meanwhile.
PERMIT_LIFETIME = 0.1


def burst_size(rate: float) -> int:
    """How many permits may add up while none is taken."""
    return max(1, int(rate * 2 * _PERMIT_WINDOW))


def permits_to_take(rate: float, taken: int, lasted: float) -> int:
    """How many permits to take at a time: as many as this process uses in a fiftieth of a second.

    Args:
        rate: the rate in force.
        taken: how many it took the last time.
        lasted: how long those have lasted, with the waiting.
    """
    used = taken * _PERMIT_WINDOW / lasted if lasted > 0 else math.inf
    return max(1, int(min(used, 2 * taken, burst_size(rate) / 2)))
