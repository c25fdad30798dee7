"""What is counted: outcomes of messages, reasons of deferrals, and how long messages took to be accepted."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

from ..replies import Reply, asks_to_slow_down

ACCEPTED: Final = "accepted"
FAILED: Final = "failed"
SUPPRESSED: Final = "suppressed"
HELD: Final = "held"
EXPIRED: Final = "expired"
DELIVERED: Final = "delivered"
BOUNCED: Final = "bounced"
COMPLAINED: Final = "complained"
#: Before one of :data:`REASONS`.
DEFERRED: Final = "deferred:"

#: Why a message was deferred. ``throttled``: the server asks to slow down; ``mailbox``, ``system``, ``network`` and
#: ``policy``: by the subject of its enhanced status code (RFC 3463 §3.2 to §3.8); ``connection``: it gave no reply;
#: ``content``: no worker could compose it; ``in_doubt``: the server may have taken it; ``other``: anything else.
REASONS: Final = (
    "throttled", "mailbox", "system", "network", "policy", "connection", "content", "in_doubt", "other",
)  # fmt: skip

#: Upper bounds, in seconds, of the time from when a message became ready to be sent until its server accepted it. What
#: takes longer than the last is counted behind it.
BUCKETS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
#: Before the index of a bucket; the counts of buckets do not contain each other.
BUCKET: Final = "bucket:"
#: All these times together, in milliseconds.
MILLISECONDS: Final = "milliseconds"

_ENHANCED_CODE = re.compile(r"4\.(\d{1,3})\.\d{1,3}\b")
_SUBJECTS = {"1": "mailbox", "2": "mailbox", "3": "system", "4": "network", "7": "policy"}


def bucket(seconds: float) -> str:
    """The bucket that a time is counted in."""
    return f"{BUCKET}{bisect_left(BUCKETS, seconds)}"


def deferral(replies: Iterable[Reply], *, in_doubt: bool = False) -> str:
    """The name that a deferral is counted under.

    Args:
        replies: of the server; the first one counts.
        in_doubt: the server may have taken it.
    """
    return DEFERRED + ("in_doubt" if in_doubt else _reason(next(iter(replies), None)))


def _reason(reply: Reply | None) -> str:
    if reply is None:
        return "content"
    if reply.code is None:
        return "connection"
    if asks_to_slow_down(reply):
        return "throttled"
    match = _ENHANCED_CODE.match(reply.text)
    return _SUBJECTS.get(match[1], "other") if match else "other"
