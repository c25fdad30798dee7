"""SparkPost's events, normalised (API reference, "Events" and "Event Webhooks"). No input raises an error.

Numbers arrive as text or as numbers, times as Unix seconds or as ISO 8601, and any field may be missing or hold
something else. What cannot be read is left out, and the rest of the event is kept.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from ..mime.addresses import comparable_address
from ..models import Event
from ..replies import printable_text
from ..signals import TrackedEvent
from . import MESSAGE_KEY
from .bounce_classes import Effect, bounce_class

Type = Event.Type

#: Every event that is known, by SparkPost's name of it.
TYPES: Mapping[str, Type] = {
    "injection": Type.INJECTED,
    "delivery": Type.DELIVERED,
    "delay": Type.DELAYED,
    "bounce": Type.BOUNCED,
    "out_of_band": Type.BOUNCED,
    "policy_rejection": Type.NOT_TRIED,
    "generation_failure": Type.NOT_TRIED,
    "generation_rejection": Type.NOT_TRIED,
    "spam_complaint": Type.COMPLAINED,
    "open": Type.OPENED,
    "initial_open": Type.OPENED,
    "amp_open": Type.OPENED,
    "amp_initial_open": Type.OPENED,
    "click": Type.CLICKED,
    "amp_click": Type.CLICKED,
    "list_unsubscribe": Type.UNSUBSCRIBED,
    "link_unsubscribe": Type.UNSUBSCRIBED,
}
_BOUNCES = ("bounce", "out_of_band")
# What an event of a bounce tells whose class says that it is something else.
_BOUNCE_TYPES: Mapping[Effect, Type] = {Effect.UNSUBSCRIBE: Type.UNSUBSCRIBED, Effect.ANSWER: Type.OTHER}
# What the table can hold.
_LARGEST_CLASS = 32_767

# As SparkPost writes them: whole numbers and UUIDs. Some databases take letters that differ in case or accent for the
# same, so that anything else is not compared as it is.
_SPARKPOST_ID = re.compile(r"[0-9a-z-]{1,64}", re.ASCII)
_MESSAGE = re.compile(r"[0-9a-f]{32}", re.ASCII)
_ADDRESS = re.compile(r"[a-z0-9_.+=-]+@[a-z0-9.-]+", re.ASCII)
_LONGEST_ADDRESS = 320
_LONGEST_WORD = 64

# No clock is so wrong. One event from the far future would decide for ever what became of a mail.
_MAX_AHEAD = timedelta(days=1)
# There were no webhooks before, and some databases have no times long ago.
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ParsedEvent:
    """One event, as it came."""

    #: SparkPost's id of it, or what stands for it: the same event has the same.
    key: str
    #: The recipient's address in the form in which addresses are compared; empty where there is none.
    address: str
    #: The event. Its ``message`` is the id that the event names, whether there is such a message or not.
    event: TrackedEvent
    #: Whether the mail was sent by a subaccount, which has a suppression list of its own.
    of_subaccount: bool = False
    #: Whether the mail was sent to SparkPost as transactional.
    as_transactional: bool = False
    #: SparkPost's ``message_id``, which all events of one mail to one recipient share; empty where there is none.
    sparkpost_id: str = ""
    #: Whether SparkPost made this copy of the mail, for an address of its options ``cc``, ``bcc`` or ``archive``.
    is_copy: bool = False


def parse_events(batch: Iterable[object], received_at: datetime) -> Iterator[ParsedEvent]:
    """The events of a batch.

    Args:
        batch: its JSON: a list of ``{"msys": {CLASS: EVENT}}``.
        received_at: when it came, which stands for times that cannot be read.
    """
    for _, event in raw_events(batch):
        yield _parse(event, received_at)


def raw_events(batch: Iterable[object]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The events of a batch as SparkPost writes them, each with the name of its class. A ping has none."""
    for item in batch:
        classes = item.get("msys") if isinstance(item, dict) else None
        for name, event in classes.items() if isinstance(classes, dict) else ():
            if isinstance(event, dict) and event:
                yield name, event


def _parse(event: Mapping[str, Any], received_at: datetime) -> ParsedEvent:
    name = _text(event.get("type"))[:_LONGEST_WORD]
    kind = TYPES.get(name, Type.OTHER)
    if kind == Type.COMPLAINED and _text(event.get("fbtype")) == "not-spam":
        # RFC 6430: the reader took it out of the spam folder.
        kind = Type.OTHER
    recipient = _text(event.get("rcpt_to")) or _text(event.get("raw_rcpt_to"))
    raw_metadata = event.get("rcpt_meta")
    metadata = dict(raw_metadata) if isinstance(raw_metadata, dict) else {}
    message_key = metadata.pop(MESSAGE_KEY, None)
    bounce_code, category = None, ""
    if name in _BOUNCES:
        bounce_code = _small_int(event.get("bounce_class"))
        known = bounce_class(bounce_code)
        category = str(known.category)
        kind = _BOUNCE_TYPES.get(known.effect, kind)
        if known.effect == Effect.POLICY and name == "bounce":
            # SparkPost has not tried; out of band, the recipient's server answers after it had taken the mail.
            kind = Type.NOT_TRIED
    tags = event.get("rcpt_tags")
    sparkpost_id = _text(event.get("message_id"))
    return ParsedEvent(
        key=_key(event, message_key),
        address=_address(recipient),
        sparkpost_id=sparkpost_id if _SPARKPOST_ID.fullmatch(sparkpost_id) else "",
        is_copy=event.get("rcpt_type") in ("cc", "bcc", "archive"),
        event=TrackedEvent(
            type=kind.value,
            sparkpost_type=name,
            message=UUID(message_key) if isinstance(message_key, str) and _MESSAGE.fullmatch(message_key) else None,
            recipient=recipient[:_LONGEST_ADDRESS],
            at=_time(event.get("timestamp"), received_at),
            bounce_class=bounce_code,
            bounce_category=category,
            reason=_text(event.get("raw_reason")) or _text(event.get("reason")),
            url=_text(event.get("target_link_url")) if kind == Type.CLICKED else "",
            campaign=_text(event.get("campaign_id")),
            tags=tuple(_text(tag) for tag in tags) if isinstance(tags, list) else (),
            metadata=metadata,
        ),
        of_subaccount=_text(event.get("subaccount_id")) not in ("", "0"),
        as_transactional=_text(event.get("transactional")) == "1",
    )


def _text(value: object) -> str:
    """As every database stores it; empty for what is no text or number."""
    if isinstance(value, str):
        return printable_text(value)
    # Whole numbers of any size: the parser of JSON has limited them.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def _small_int(value: object) -> int | None:
    text = _text(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 and int(text) <= _LARGEST_CLASS else None


def _time(value: object, received_at: datetime) -> datetime:
    found = _unix_time(value) or _iso_time(value)
    return found if found is not None and _EARLIEST <= found <= received_at + _MAX_AHEAD else received_at


def _unix_time(value: object) -> datetime | None:
    try:
        seconds = float(value) if isinstance(value, str | int | float) else math.nan
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _iso_time(value: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        # To be compared and stored it must not leave the years that there are.
        return moment and (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _address(recipient: str) -> str:
    text = recipient.lower()
    if _ADDRESS.fullmatch(text) is None and "@" in text and len(text) <= _LONGEST_ADDRESS:
        text = comparable_address(text)
    # Some databases take letters that differ in an accent for the same; no such address is ever written to.
    return text.encode("ascii", "backslashreplace").decode()[:_LONGEST_ADDRESS].strip()


def _key(event: Mapping[str, Any], message: object) -> str:
    raw_id = event.get("event_id")
    text = str(raw_id) if isinstance(raw_id, str | int) and not isinstance(raw_id, bool) else ""
    if _SPARKPOST_ID.fullmatch(text):
        return text
    # Without a usable id the event is identified by a hash of its scalar fields; lists and objects may be nested
    # arbitrarily deep.
    scalars = sorted((key, repr(value)) for key, value in event.items() if isinstance(value, str | int | float))
    return sha256(repr((scalars, message if isinstance(message, str) else None)).encode()).hexdigest()
