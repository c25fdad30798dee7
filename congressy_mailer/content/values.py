"""Values of a context that contain no other value ⇄ JSON; and why other values cannot be stored."""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, TypeAlias
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db import models
from django.db.models.manager import BaseManager
from django.utils.safestring import SafeString

from ..exceptions import ContextNotSerializable
from .references import enum_member, enum_reference, row_reference

#: What ``json.loads()`` can return.
Json: TypeAlias = Any

#: Key of an object that says what the object stands for.
TYPE = "$type"
#: Integers that every database keeps exactly as a JSON number.
_EXACT_INTEGERS = (-(2**63), 2**63 - 1)
#: PostgreSQL refuses NUL in text, and its jsonb lone surrogates, which UTF-8 does not know.
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def plain_number(value: int | float, path: str) -> Json:
    """The number as JSON has it, or ``None`` where a database would change it."""
    if isinstance(value, int):
        # Not a range: it would be searched number by number for a subclass of int.
        lowest, highest = _EXACT_INTEGERS
        return int(value) if lowest <= value <= highest else None
    if not math.isfinite(value):
        raise ContextNotSerializable(f"{path} is {value}, which JSON has no number for.")
    # jsonb makes an integer of 1e16, and 0.0 of -0.0.
    text = repr(float(value))
    return None if "e" in text or text == "-0.0" else float(value)


def storable_text(value: str, path: str) -> str:
    match = UNSTORABLE.search(value)
    if match:
        raise ContextNotSerializable(
            f"{path} holds the character {match.group()!r} at position {match.start()}, which databases do not store: "
            f"remove it."
        )
    return str.__str__(value)


def encode_object(value: Any, path: str) -> Json:
    """An object for a value that has no JSON of its own and contains no other value."""
    if isinstance(value, enum.Enum | models.Model):
        try:
            if isinstance(value, models.Model):
                row = row_reference(value)
                return {TYPE: "model", **row._asdict(), "pk": storable_text(row.pk, f"The primary key of {path}")}
            reference, member = enum_reference(value)
            return {TYPE: "enum", "enum": reference, "member": member}
        except ValueError as error:
            raise ContextNotSerializable(f"{path} is {error}.") from None
    if isinstance(value, str):
        return {TYPE: "safe", "value": storable_text(value, path)}
    if isinstance(value, int):
        return {TYPE: "int", "value": hex(value)}
    if isinstance(value, float):
        return {TYPE: "float", "value": float(value).hex()}
    if isinstance(value, Decimal) and value.is_finite():
        return {TYPE: "decimal", "value": str(value)}
    if isinstance(value, UUID):
        return {TYPE: "uuid", "value": str(value)}
    if isinstance(value, timedelta):
        return {TYPE: "timedelta", "days": value.days, "seconds": value.seconds, "microseconds": value.microseconds}
    if isinstance(value, datetime | time):
        zone = value.tzinfo.key if isinstance(value.tzinfo, ZoneInfo) else None
        name = "datetime" if isinstance(value, datetime) else "time"
        return {TYPE: name, "value": value.isoformat(), "zone": zone, "fold": value.fold}
    if isinstance(value, date):
        return {TYPE: "date", "value": value.isoformat()}
    raise ContextNotSerializable(f"{path} is {_why_not_storable(value)}.")


def _why_not_storable(value: Any) -> str:
    """What a value is that cannot be stored, and what to do."""
    kind = f"of type {type(value).__name__}"
    if isinstance(value, models.QuerySet):
        return "a QuerySet: pass list(queryset), or better only the rows and fields that the template shows"
    if isinstance(value, BaseManager):
        return "a manager of related objects: pass list(manager.all())"
    if isinstance(value, Decimal):
        return f"the Decimal {value}, which is no number to be shown"
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{kind}: decode it to a string, or send it as an attachment"
    if isinstance(value, tuple):
        return f"{kind}, a named tuple: pass its _asdict()"
    if is_dataclass(value) and not isinstance(value, type):
        return f"{kind}, a dataclass: pass dataclasses.asdict() of it"
    if isinstance(value, Iterator):
        return f"{kind}, which can be read only once: pass list() of it"
    if hasattr(value, "url") and hasattr(value, "storage"):
        return f"{kind}, a stored file: pass its .url, or send it as an attachment"
    if callable(value):
        return f"{kind}, which can be called: call it, and pass the result"
    return f"{kind}, which cannot be stored: pass the strings, numbers and dates of it that the template shows"


def _decode_time(stored: Mapping[str, Json]) -> datetime | time:
    kind: type[datetime] | type[time] = datetime if stored[TYPE] == "datetime" else time
    moment = kind.fromisoformat(stored["value"])
    if stored["zone"] is None:
        return moment.replace(fold=stored["fold"])
    try:
        return moment.replace(tzinfo=ZoneInfo(stored["zone"]), fold=stored["fold"])
    except (LookupError, OSError):
        return moment  # It has its offset still.


_DECODERS: dict[str, Callable[[Mapping[str, Json]], Any]] = {
    "safe": lambda stored: SafeString(stored["value"]),
    "int": lambda stored: int(stored["value"], 16),
    "float": lambda stored: float.fromhex(stored["value"]),
    "decimal": lambda stored: Decimal(stored["value"]),
    "uuid": lambda stored: UUID(stored["value"]),
    "date": lambda stored: date.fromisoformat(stored["value"]),
    "datetime": _decode_time,
    "time": _decode_time,
    "timedelta": lambda stored: timedelta(stored["days"], stored["seconds"], stored["microseconds"]),
    "enum": lambda stored: enum_member(stored["enum"], stored["member"]),
}


def decode_object(stored: Mapping[str, Json]) -> Any:
    """What an object of :func:`encode_object` stands for, unless that is a model instance.

    Raises:
        ContentNotReady: an enum that is not known here.
        LookupError, TypeError, ValueError, ArithmeticError: it is damaged.
    """
    return _DECODERS[stored[TYPE]](stored)
