"""Texts of ours that are stored in English with values in them: found in what is stored, and shown in the reader's
language."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

from django.utils.formats import number_format
from django.utils.translation import gettext

from ..models.batches import CUT

_PLACE = re.compile(r"%\((\w+)\)s")
_GROUPED_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+")
# Characters of ours by which a text is known without its end.
_ENOUGH = 8


class Found(NamedTuple):
    """A text that was recognised: by how many characters of ours, and as it is shown."""

    length: int
    shown: str


#: What a value is that may itself be a text of ours; ``None`` where it is none.
Finds: TypeAlias = Callable[[str], Found | None]


class Counted(NamedTuple):
    """A text with a number of things in it, as it is shown."""

    #: Of ``ngettext_lazy``.
    shown: Any
    #: The place of the number.
    number: str


class _Text(NamedTuple):
    """A text of ours with places for values."""

    shown: str | Counted
    #: What is ours: before the first value, between two of them, and behind the last.
    ours: list[str]
    names: list[str]

    def match(self, stored: str) -> dict[str, str] | None:
        """The values, each as short as may be; ``None`` where the text is another one."""
        first, *others = self.ours
        if not others:
            return {} if stored == first else None
        if not (stored.startswith(first) and stored.endswith(others[-1])):
            return None
        values, start = self._begin(stored, others[:-1])
        end = len(stored) - len(others[-1])
        if len(values) < len(self.names) - 1 or end <= start:
            return None
        return dict(zip(self.names, [*values, stored[start:end]], strict=True))

    def match_beginning(self, begun: str) -> Iterator[tuple[int, dict[str, str]]]:
        """The same for a text whose end is missing: how many characters of ours are there, and the values up to the
        one that is not whole. What has most of ours comes first."""
        first, *others = self.ours
        if not others or not begun.startswith(first):
            return
        values, _ = self._begin(begun, others[:-1])
        for count in range(len(values), -1, -1):
            length = sum(map(len, self.ours[: count + 1]))
            value = begun[length + sum(map(len, values[:count])) :]
            if length and value:
                # Of what follows it the beginning may be there as well.
                following = _common_end(value, self.ours[count + 1])
                whole = [*values[:count], value[: len(value) - following] + CUT]
                yield length + following, dict(zip(self.names, whole, strict=False))

    def _begin(self, stored: str, following: Iterable[str]) -> tuple[list[str], int]:
        """The values that have something of ours behind them, and where the next one begins."""
        values, start = [], len(self.ours[0])
        for text in following:
            found = stored.find(text, start + 1)
            if found < 0:
                break
            values.append(stored[start:found])
            start = found + len(text)
        return values, start

    def show(self, values: Mapping[str, str]) -> str:
        if isinstance(self.shown, str):
            return gettext(self.shown) % values
        return str(self.shown.shown % {**values, self.shown.number: int(values[self.shown.number])})


class Texts:
    """Texts of one kind."""

    def __init__(
        self,
        texts: Mapping[str, str | Counted] | Iterable[str],
        *,
        values: Mapping[str, Finds] | None = None,
        required: Collection[str] = (),
        beginnings: Mapping[str, Finds] | None = None,
    ) -> None:
        """
        Args:
            texts: as they are stored, with ``%(name)s`` for each value; as a mapping, with what is shown instead.
            values: by name, what may be a text of ours again.
            required: names of values without which the text is not meant where they are none.
            beginnings: the same as ``values`` for those that are not whole.
        """
        self._given = texts if isinstance(texts, Mapping) else {text: text for text in texts}
        self._finds = values or {}
        self._required = required
        self._beginnings = beginnings or {}

    @cached_property
    def _texts(self) -> list[_Text]:
        # When they are first looked for: every process of the host has the admin's classes.
        return [
            _Text(shown, _PLACE.split(stored)[::2], _PLACE.findall(stored)) for stored, shown in self._given.items()
        ]

    def find(self, stored: str) -> Found | None:
        """The text that is meant, of several the one with most characters of ours; ``None`` where it is none."""
        found: Found | None = None
        for text in self._texts:
            values = text.match(stored)
            one = None if values is None else self._found(text, sum(map(len, text.ours)), values, self._finds)
            if one is not None and (found is None or one.length > found.length):
                found = one
        return found

    def find_beginning(self, stored: str) -> Found | None:
        """The same for a text whose end is missing; ``None`` also where it may be one or another of these.

        Args:
            stored: what is there of it.
        """
        begun = stored.removesuffix(CUT)
        found: Found | None = None
        is_certain = False
        finds = {**self._finds, **self._beginnings}
        for text in self._texts:
            meant = (self._found(text, length, values, finds) for length, values in text.match_beginning(begun))
            one = next((one for one in meant if one is not None and one.length >= _ENOUGH), None)
            if one is None:
                continue
            if found is None or one.length > found.length:
                found, is_certain = one, True
            elif one.length == found.length:
                is_certain = False
        return found if is_certain else None

    def _found(self, text: _Text, length: int, values: Mapping[str, str], finds: Mapping[str, Finds]) -> Found | None:
        shown = dict.fromkeys(text.names, CUT)
        for name, value in values.items():
            one = finds[name](value) if name in finds else None
            if one is None and name in self._required:
                return None
            length += one.length if one is not None else 0
            shown[name] = _shown_value(value) if one is None else one.shown
        if isinstance(text.shown, Counted) and not shown[text.shown.number].isdecimal():
            return None
        return Found(length, text.show(shown))


def _common_end(value: str, following: str) -> int:
    """How many characters of what follows a value are at its end."""
    return next((length for length in range(len(following), 0, -1) if value.endswith(following[:length])), 0)


def _shown_value(value: str) -> str:
    if _GROUPED_NUMBER.fullmatch(value):
        return str(number_format(int(value.replace(",", "")), force_grouping=True))
    return value
