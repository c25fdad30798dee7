"""A context as a database stores it."""

from __future__ import annotations

import json
from typing import Any
from zoneinfo import ZoneInfo

from congressy_mailer.content.context import decode_many, encode

SAO_PAULO = ZoneInfo("America/Sao_Paulo")


def store(stored: Any) -> Any:
    """What a database does: sorts the keys of objects, as jsonb does, and knows JSON only."""
    return json.loads(json.dumps(stored, allow_nan=False, sort_keys=True))


def levels(stored: Any) -> int:
    """How deep a stored value is."""
    if isinstance(stored, dict):
        return 1 + max(map(levels, stored.values()), default=0)
    if isinstance(stored, list):
        return 1 + max(map(levels, stored), default=0)
    return 0


def decode(context: dict[str, Any]) -> Any:
    """What a worker makes of a stored context."""
    [decoded] = decode_many([context])
    return decoded


def round_trip(value: Any, *, language: str | None = None) -> Any:
    """What becomes of one value."""
    return decode(store(encode({"value": value}, language=language)))["value"]
