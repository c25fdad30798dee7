"""Why a batch has left a recipient out, in the reader's language: the call's errors are stored in English.

Support reads them, and not the author of the call. Long ones are stored without their end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from django.utils.formats import number_format
from django.utils.translation import gettext

from ..models.batches import CUT
from .left_out_texts import CAUSES, ERRORS, PLACES, REWORDED

_VALUE = re.compile(r"%\((\w+)\)s")
_GROUPED_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+")
# Characters of ours by which a text is known without its end.
_ENOUGH = 8


class _Text(NamedTuple):
    """A text of ours with places for values, as it is stored and as it is shown."""

    shown: str
    #: Characters of ours in it: of two that match, the one with more of them is meant.
    length: int
    whole: re.Pattern[str]
    #: Patterns for its beginning, up to the end of a value: each with its characters of ours, and with what of ours
    #: follows, the beginning of which may be there as well.
    beginnings: tuple[tuple[re.Pattern[str], int, str], ...]
    names: tuple[str, ...]


class _Found(NamedTuple):
    """A text that was recognised: by how many characters of ours, and as it is shown."""

    length: int
    shown: str


def shown_problem(reason: str) -> str:
    """A reason out of a batch's ``problems`` in the language in force; as it is stored where that is not known.

    Args:
        reason: as :func:`congressy_mailer.send_bulk` has stored it.
    """
    found = _find(reason, _ERRORS)
    if found is None and reason.endswith(CUT):
        found = _find_by_beginning(reason, _ERRORS)
    return reason if found is None else found.shown


def _find(stored: str, texts: Iterable[_Text]) -> _Found | None:
    """The text that is meant; ``None`` where it is none of these."""
    found: _Found | None = None
    for text in texts:
        match = text.whole.fullmatch(stored)
        if match is None:
            continue
        length, values = text.length, match.groupdict()
        if "why" in values:
            why = _find(values["why"], _CAUSES)
            if why is None:
                continue
            length, values["why"] = length + why.length, why.shown
        if found is None or length > found.length:
            found = _Found(length, gettext(text.shown) % _shown_values(values))
    return found


def _find_by_beginning(stored: str, texts: Iterable[_Text]) -> _Found | None:
    """The same for a text whose end is missing; ``None`` also where it may be one or another of these."""
    body = stored.removesuffix(CUT)
    found: _Found | None = None
    is_certain = False
    for text in texts:
        one = _match_beginning(body, text)
        if one is None:
            continue
        if found is None or one.length > found.length:
            found, is_certain = one, True
        elif one.length == found.length:
            is_certain = False
    return found if is_certain else None


def _match_beginning(body: str, text: _Text) -> _Found | None:
    for pattern, length, following in reversed(text.beginnings):
        match = pattern.fullmatch(body)
        if match is None:
            continue
        values = match.groupdict()
        last = text.names[len(values) - 1]
        begun = _common_end(values[last], following)
        length += begun
        values[last] = values[last][: len(values[last]) - begun] + CUT
        if "why" in values:
            why = _find_begun_cause(values["why"])
            if why is None:
                continue
            length, values["why"] = length + why.length, why.shown
        if length >= _ENOUGH:
            missing = dict.fromkeys(text.names, CUT)
            return _Found(length, gettext(text.shown) % (missing | _shown_values(values)))
    return None


def _find_begun_cause(stored: str) -> _Found | None:
    begun = _find_by_beginning(stored, _CAUSES)
    if begun is None and (whole := _find(stored.removesuffix(CUT), _CAUSES)) is not None:
        return _Found(whole.length, whole.shown + CUT)
    return begun


def _common_end(value: str, following: str) -> int:
    """How many characters of what follows a value are at its end."""
    return next((length for length in range(len(following), 0, -1) if value.endswith(following[:length])), 0)


def _shown_values(values: Mapping[str, str]) -> dict[str, str]:
    return {name: _shown_value(name, value) for name, value in values.items()}


def _shown_value(name: str, value: str) -> str:
    if name == "where" and (place := _find(value, _PLACES)) is not None:
        return place.shown
    if _GROUPED_NUMBER.fullmatch(value):
        return str(number_format(int(value.replace(",", "")), force_grouping=True))
    return value


def _text(stored: str, shown: str) -> _Text:
    ours = _VALUE.split(stored)[::2]
    names = tuple(_VALUE.findall(stored))
    pattern = re.escape(ours[0])
    length = len(ours[0])
    beginnings = []
    for name, following in zip(names, ours[1:], strict=True):
        if length:
            beginnings.append((re.compile(f"{pattern}(?P<{name}>.+)", re.DOTALL), length, following))
        pattern += f"(?P<{name}>.+?){re.escape(following)}"
        length += len(following)
    return _Text(shown, length, re.compile(pattern, re.DOTALL), tuple(beginnings), names)


_ERRORS = (*(_text(stored, shown) for stored, shown in REWORDED.items()), *(_text(text, text) for text in ERRORS))
_CAUSES = tuple(_text(text, text) for text in CAUSES)
_PLACES = tuple(_text(text, text) for text in PLACES)
