"""A batch of events as SparkPost posts it (API reference, "Event Webhooks"): a JSON list, read item by item.

A batch of some megabytes may hold a million tiny events. As Python objects all at once they would take fifty times the
memory of the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

#: Key of an item of SparkPost's relay webhooks, which carry inbound mail and no event.
RELAY_MESSAGE = "relay_message"

_NO_JSON = "The body is not JSON."
_NO_LIST = "The body is not a list of events."
# Up to the first item, or to the end of an empty list.
_OPENING = re.compile(r"[ \t\n\r]*\[[ \t\n\r]*(?:(?P<first>(?=\{))|\][ \t\n\r]*)")
# From the end of an item to the next one, or to the end of the list.
_SEPARATOR = re.compile(r"[ \t\n\r]*(?:(?P<next>,[ \t\n\r]*(?=\{))|\][ \t\n\r]*)")
# The closing quote is optional, so that a string without an end is one match and not one for each of its characters.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)


class TooDeep:
    """Stands for an item that is nested deeper than Python's parser goes."""


TOO_DEEP: Final = TooDeep()


def read_items(body: bytes) -> Iterator[dict[str, Any] | TooDeep]:
    """The items of a batch, one after another.

    Args:
        body: JSON, in UTF-8, UTF-16 or UTF-32 (RFC 4627 §3).

    Raises:
        ValueError: this is no JSON list of objects. The items before the fault have been returned.
    """
    # As json.loads() does it: half of a surrogate pair is no reason to refuse a batch.
    text = body.decode(json.detect_encoding(body), "surrogatepass")
    opening = _OPENING.match(text)
    if opening is None:
        raise ValueError(_NO_LIST)
    position, more = opening.end(), opening["first"] is not None
    while more:
        item, position = _item(text, position)
        yield item
        separator = _SEPARATOR.match(text, position)
        if separator is None:
            raise ValueError(_NO_JSON)
        position, more = separator.end(), separator["next"] is not None
    if position != len(text):
        raise ValueError(_NO_JSON)


def _whole_number(digits: str) -> int | str:
    try:
        return int(digits)
    except ValueError:
        # Python refuses numbers of thousands of digits. As text the number spoils nothing but itself.
        return digits


_DECODER = json.JSONDecoder(parse_int=_whole_number)


def _item(text: str, position: int) -> tuple[dict[str, Any] | TooDeep, int]:
    try:
        return _DECODER.raw_decode(text, position)
    except RecursionError:
        return TOO_DEEP, _end_of_item(text, position)
    except json.JSONDecodeError:
        raise ValueError(_NO_JSON) from None


def _end_of_item(text: str, position: int) -> int:
    """Where an object ends whose inside is not parsed."""
    depth = 0
    for token in _TOKEN.finditer(text, position):
        bracket = token[0]
        if bracket in "[{":
            depth += 1
        elif bracket in "]}":
            depth -= 1
            if not depth:
                return token.end()
    raise ValueError(_NO_JSON)
