"""Keys of rows."""

from __future__ import annotations

import uuid

from uuid6 import uuid7


def new_id() -> uuid.UUID:
    """A new UUIDv7 (RFC 9562 §5.7): ordered by time, so that the newest rows lie together on disk."""
    return uuid7()
