"""How wrong this host's clock is, in memory that a worker's processes share.

The sweep is published by a worker's parent process, which has no connection to the database: its children tell it what
they have found.
"""

from __future__ import annotations

import math
import mmap
import struct

_SECONDS = struct.Struct("d")

# Kept over a fork, and the same memory then.
_shared = mmap.mmap(-1, _SECONDS.size)
_SECONDS.pack_into(_shared, 0, math.nan)


def tell(seconds_behind: float) -> None:
    """By how many seconds this host's clock is behind the database's."""
    _SECONDS.pack_into(_shared, 0, seconds_behind)


def seconds_behind() -> float | None:
    """What a process of this worker has found last; ``None``: none has asked yet."""
    (seconds,) = _SECONDS.unpack_from(_shared)
    return None if math.isnan(seconds) else seconds
