"""How fast mail is handed over and over how many connections, for all workers together.

What they have to agree on is in the Redis that is Celery's broker (:mod:`.redis_store`); with another broker, and while
Redis does not answer, each process counts for itself (:mod:`.memory_store`). No mail ever waits for Redis.
"""

from __future__ import annotations

from .connection_slots import ConnectionSlot, connection_slot, connections_per_task, share_connections
from .limiter import RateLimiter, rate_limiter_for

__all__ = [
    "ConnectionSlot",
    "RateLimiter",
    "connection_slot",
    "connections_per_task",
    "rate_limiter_for",
    "share_connections",
]
