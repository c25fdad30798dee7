"""How many messages a task should hold: what this process sends in a second, by what it has sent lately.

Whoever holds more keeps them from tasks that could send them at the same time. Over a long way a connection carries
seven or eight mails a second, and next door hundreds.
"""

from __future__ import annotations

import math
import os

from ..conf import mailer_settings
from ..throttling import connections_per_task
from ..transports.selection import max_mails_per_call

#: Messages of a claim while nothing is known of the rate, for each connection.
FIRST_CLAIM = 10

# Seconds for which a task claims at a time. It claims again while it sends.
_CLAIMED_SECONDS = 1.0

# The share of the last delivery in what is remembered.
_WEIGHT = 0.5

#: By mail backend, mails a second that this process has sent.
_rates: dict[str, float] = {}


def sent_in(using: str, seconds: float) -> int:
    """How many mails a task sends over a mail backend in this time: one for each connection at the least, and at most
    ``SLICE_SIZE``.

    Args:
        using: the backend's alias; empty: the default one.
        seconds: how long there is time; no more than one counts.
    """
    most: int = mailer_settings().SLICE_SIZE
    rate, connections = _rates.get(using), connections_per_task()
    fitting = FIRST_CLAIM * connections if rate is None else math.ceil(rate * min(seconds, _CLAIMED_SECONDS))
    return max(1, min(max(fitting, connections), most))


def fitting_claim(using: str, seconds: float) -> int:
    """How many messages to claim for a mail backend, at least one: all that may be where many of them share a call.

    Args:
        using: as in :func:`sent_in`.
        seconds: likewise.
    """
    return mailer_settings().SLICE_SIZE if max_mails_per_call(using) > 1 else sent_in(using, seconds)


def task_share(using: str) -> int:
    """How many messages of a batch are worth a task of their own.

    Args:
        using: as in :func:`sent_in`.
    """
    most: int = mailer_settings().SLICE_SIZE
    return most if max_mails_per_call(using) > 1 else min(FIRST_CLAIM, most)


def observe(using: str, sent: int, seconds: float) -> None:
    """Remember what has been sent.

    Args:
        using: the backend's alias.
        sent: mails whose outcome is known.
        seconds: which that took.
    """
    # One alone tells more of opening the connection.
    if sent < 2 or seconds <= 0:
        return
    rate = sent / seconds
    known = _rates.get(using)
    _rates[using] = rate if known is None else known + _WEIGHT * (rate - known)


def forget_rates() -> None:
    """Know nothing of any backend, as in a new process."""
    _rates.clear()


os.register_at_fork(after_in_child=forget_rates)
