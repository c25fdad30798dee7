"""A process that takes permits or connections as a worker does, for as long as it is told to.

``python -m tests.support.throttling_worker`` reads one JSON object per line from standard input, does what it says, and
answers with one line of JSON: ``{"do": "turns", "seconds": 2}``, ``{"do": "connections", "seconds": 1}``,
``{"do": "hold"}``. Times are of the clock that all processes of a machine share. Its settings are in the first line.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import django
from django.test import override_settings

django.setup()

from congressy_mailer import throttling  # noqa: E402
from congressy_mailer.throttling import connection_slots  # noqa: E402

_HELD_SECONDS = 0.01


def turns(until: float) -> list[tuple[float, float]]:
    """Hand over mail as fast as allowed. Returns for each when it asked for its turn, and when it had it."""
    rate_limiter = throttling.rate_limiter_for("")
    times = []
    while (asked := time.monotonic()) < until:
        wait = rate_limiter.acquire().total_seconds()
        if wait:
            time.sleep(wait)
        else:
            times.append((asked, time.monotonic()))
    return times


def use_connections(until: float) -> list[tuple[float, float]]:
    """Open and close connections as fast as allowed. Returns from when until when each was open."""
    times = []
    while time.monotonic() < until:
        slot = throttling.connection_slot("")
        if not slot.acquired:
            time.sleep(slot.retry_in.total_seconds())
            continue
        opened = time.monotonic()
        time.sleep(_HELD_SECONDS)
        times.append((opened, time.monotonic()))
        slot.release()
    return times


def hold(until: float) -> bool:
    """Open a connection, and keep it."""
    return throttling.connection_slot("").acquired


_WORK: dict[str, Callable[[float], Any]] = {"turns": turns, "connections": use_connections, "hold": hold}


def _lines() -> Iterator[dict[str, Any]]:
    return map(json.loads, sys.stdin)


def main() -> None:
    """Serve standard input until it ends."""
    # Nobody has three seconds here.
    connection_slots._SHORTEST_WAIT, connection_slots._LONGEST_WAIT = 0.005, 0.02
    orders = _lines()
    with override_settings(CONGRESSY_MAILER=next(orders)):
        print(json.dumps("ready"), flush=True)
        for order in orders:
            answer = _WORK[order["do"]](time.monotonic() + order.get("seconds", 0))
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
