"""A template's context ⇄ plain JSON. Model instances travel by reference; nothing is ever pickled.

The context itself is an object of encoded values by variable name. An encoded value is ``null``, a boolean, a number,
a string, a list of encoded values, or an object whose ``"$type"`` says what it stands for. A dict is stored as such
an object too, with its keys and values in turn: so nothing that a caller passes can be taken for a type of ours, keys
need not be strings, and their order survives PostgreSQL's ``jsonb`` and MySQL's ``JSON``, which sort keys.
"""

from __future__ import annotations

import enum
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import models
from django.utils import translation
from django.utils.functional import LazyObject, Promise, empty
from django.utils.text import format_lazy

from ..exceptions import ContentError, ContentNotReady, ContextNotSerializable
from ..replies import error_text
from .references import AT_LIMITS, RowReference, Rows
from .tenants import Decoded, Variables, decode_by_schema, with_schema
from .values import TYPE, UNSTORABLE, Json, decode_object, encode_object, plain_number, storable_text

#: Levels of JSON that every database takes: MariaDB calls what has 32 or more invalid.
_MAX_DEPTH = 31
# Each of which becomes an object without looking any further.
_VALUE_TYPES = frozenset({date, datetime, time, timedelta, Decimal, UUID})
_KEY_TYPES = (str, int, float, type(None), date, time, timedelta, Decimal, UUID, enum.Enum)
#: Lazy functions that are stored with their arguments and called when the mail is rendered: what a lazy value of
#: theirs calls, and what makes such a value.
_LAZY_FUNCTIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "gettext": (translation.gettext, translation.gettext_lazy),
    "pgettext": (translation.pgettext, translation.pgettext_lazy),
    "ngettext": (translation.ngettext, translation.ngettext_lazy),
    "npgettext": (translation.npgettext, translation.npgettext_lazy),
    "format": (format_lazy.__wrapped__, format_lazy),  # type: ignore[attr-defined]
}


def encode(context: Mapping[str, Any], *, language: str | None, sensitive: bool = False) -> dict[str, Json]:
    """Turn a context into JSON that PostgreSQL, MariaDB, MySQL and SQLite store without changing it.

    Args:
        context: variables for the template. Values may be JSON types, tuples, sets, dates, times, time spans,
            ``Decimal``, ``UUID``, safe strings, lazy strings, members of enums and saved model instances. Mappings
            come back as ``dict`` in their order; subclasses of ``str``, ``int`` and ``float`` as these.
        language: language for lazy values other than translations, such as ``reverse_lazy()``, which are evaluated
            here; lazy translations are stored untranslated, and translated when the mail is rendered.
        sensitive: no error repeats a value; its path is named all the same.

    Raises:
        ContextNotSerializable: a value cannot be stored; the error says which and what to do.
    """
    if not isinstance(context, Mapping):
        raise ContextNotSerializable(f"context must be a dict, not of type {type(context).__name__}.")
    encoder = Encoder(language, sensitive)
    encoded = {}
    for name, value in context.items():
        if not isinstance(name, str):
            key = f"of type {type(name).__name__}" if sensitive else repr(name)
            raise ContextNotSerializable(f"context has the key {key}: names of variables must be strings.")
        key = storable_text(name, "A key of context")
        try:
            encoded[key] = _encode_fast(value, 1)
        except (_NeedsEncoder, ContextNotSerializable):
            encoded[key] = encoder.encode(value, f"context[{_quote(name)}]", 1)
    return with_schema(encoded)


def decode_many(contexts: Sequence[Json]) -> list[Decoded]:
    """Turn stored contexts back, with one query for each model and database for all of them together.

    Each context has instances of its own; a row that one context refers to twice is one instance there.

    Args:
        contexts: what :func:`encode` returned; ``None`` counts as empty.

    Returns:
        For each context, in order, its variables, or why there are none: ``ContentError`` where a row or its tenant is
        gone or the stored value is damaged, ``ContentNotReady`` where this process does not know a model, database or
        enum, or a row cannot be read now.
    """
    return decode_by_schema(contexts, _decode_many)


def _decode_many(contexts: Sequence[Json]) -> list[Decoded]:
    # What messages of a batch have in common is one object.
    occurrences: Counter[int] = Counter()
    distinct: dict[int, Json] = {}
    for context in contexts:
        for value in context.values() if isinstance(context, dict) else ():
            if isinstance(value, dict | list):
                occurrences[id(value)] += 1
                distinct[id(value)] = value
    rows = Rows(reference for value in distinct.values() for reference in _references(value))
    shared_json = {key: json.dumps(distinct[key]) for key, count in occurrences.items() if count > 1}
    return [_Decoder(rows, shared_json).decode(context) for context in contexts]


class _NeedsEncoder(Exception):
    """It takes an :class:`Encoder`, or there is something to be said about it."""


def _encode_fast(value: Any, depth: int) -> Json:
    """The same for what most contexts are made of, in a small part of the time: no place has to be named.

    Raises:
        _NeedsEncoder: it is something else.
        ContextNotSerializable: it cannot be stored, and where it stands is not said.
    """
    kind = type(value)
    if kind is str:
        if UNSTORABLE.search(value):
            raise _NeedsEncoder
        return value
    if value is None or kind is bool:
        return value
    if kind is int or kind is float:
        plain = plain_number(value, "")
        if plain is None:
            raise _NeedsEncoder
        return plain
    if kind is list and depth < _MAX_DEPTH:
        return [_encode_fast(one, depth + 1) for one in value]
    if kind is dict and depth + 1 < _MAX_DEPTH:
        items: list[Json] = []
        for key, one in value.items():
            if type(key) is not str or UNSTORABLE.search(key):
                raise _NeedsEncoder
            items += (key, _encode_fast(one, depth + 2))
        return {TYPE: "dict", "items": items}
    if kind in _VALUE_TYPES and depth < _MAX_DEPTH:
        return encode_object(value, "")
    raise _NeedsEncoder


class Encoder:
    """Stores values of every kind, and names the place of one that cannot be stored."""

    def __init__(self, language: str | None, sensitive: bool) -> None:
        self._language = language
        self._sensitive = sensitive
        #: Identities of the containers around the current value.
        self._ancestors: set[int] = set()

    def encode(self, value: Any, path: str, depth: int) -> Json:
        """Encode a value whose place is inside ``depth`` levels of JSON."""
        if isinstance(value, LazyObject):
            value = _unwrap(value)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str) and not isinstance(value, enum.Enum) and not hasattr(value, "__html__"):
            return storable_text(value, path)
        if isinstance(value, int | float) and not isinstance(value, enum.Enum):
            plain = plain_number(value, path)
            if plain is not None:
                return plain
        if isinstance(value, Promise):
            return self._encode_lazy(value, path, depth)
        if isinstance(value, Mapping | list | tuple | set | frozenset) and not hasattr(value, "_fields"):
            return self._encode_container(value, path, depth)
        _check_depth(path, depth + 1)
        return encode_object(value, path)

    def _encode_container(self, value: Any, path: str, depth: int) -> Json:
        if id(value) in self._ancestors:
            raise ContextNotSerializable(f"{path} contains itself: leave that reference out.")
        self._ancestors.add(id(value))
        try:
            if isinstance(value, Mapping):
                return self._encode_mapping(value, path, depth)
            if isinstance(value, list | tuple):
                items = [(f"{path}[{index}]", one) for index, one in enumerate(value)]
                name = "tuple" if isinstance(value, tuple) else ""
                return self._encode_items(name, items, path, depth)
            for one in value:
                _check_key(one, f"{path} has an element")
            name = "frozenset" if isinstance(value, frozenset) else "set"
            return self._encode_items(name, [(f"an element of {path}", one) for one in value], path, depth)
        finally:
            self._ancestors.discard(id(value))

    def _encode_mapping(self, value: Mapping[Any, Any], path: str, depth: int) -> Json:
        items: list[tuple[str, Any]] = []
        for key, one in value.items():
            _check_key(key, f"{path} has a key")
            items += ((f"a key of {path}", key), (f"{path}[{_quote(key)}]", one))
        return self._encode_items("dict", items, path, depth)

    def _encode_items(self, name: str, items: Iterable[tuple[str, Any]], path: str, depth: int) -> Json:
        inner_depth = depth + (2 if name else 1)
        _check_depth(path, inner_depth)
        encoded = [self.encode(one, where, inner_depth) for where, one in items]
        return {TYPE: name, "items": encoded} if name else encoded

    def _encode_lazy(self, value: Promise, path: str, depth: int) -> Json:
        function, args, kwargs = _lazy_call(value)
        for name, (implementation, _) in _LAZY_FUNCTIONS.items():
            if function is implementation:
                _check_depth(path, depth + 1)
                arguments = [(path, one) for one in args]
                return {
                    TYPE: "lazy",
                    "function": name,
                    "args": self._encode_items("", arguments, path, depth + 1),
                    "kwargs": self._encode_mapping(kwargs, path, depth + 1),
                }
        with translation.override(self._language) if self._language else nullcontext():
            try:
                evaluated = function(*args, **kwargs)
            except Exception as error:
                reason = type(error).__name__ if self._sensitive else error_text(error)
                raise ContextNotSerializable(f"{path} is a lazy value that cannot be evaluated: {reason}") from (
                    None if self._sensitive else error
                )
        return self.encode(evaluated, path, depth)


def _check_depth(path: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ContextNotSerializable(
            f"{path} is nested too deeply: databases store {_MAX_DEPTH} levels of JSON, of which a list takes one and "
            f"a dict two. Pass only what the template shows."
        )


def _check_key(key: Any, subject: str) -> None:
    if not isinstance(key, _KEY_TYPES) or isinstance(key, LazyObject):
        raise ContextNotSerializable(
            f"{subject} of type {type(key).__name__}; it must be a string, number, date, time, UUID or enum member."
        )


def _quote(key: object) -> str:
    if isinstance(key, str):
        return json.dumps(key, ensure_ascii=False)
    # repr() refuses integers of more than 4,300 digits.
    return hex(key) if type(key) is int and key.bit_length() > 64 else repr(key)


def _unwrap(value: LazyObject[Any]) -> Any:
    if value._wrapped is empty:
        value._setup()
    return value._wrapped


def _lazy_call(value: Promise) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """The call that a lazy value stands for, as Django itself takes it apart in order to pickle it."""
    _, parts = value.__reduce__()
    if len(parts) > 2 and isinstance(parts[1], tuple) and isinstance(parts[2], dict):
        return parts[0], parts[1], parts[2]
    # A plural whose number is known only when it is formatted.
    return str, (value,), {}


def _references(value: Json) -> Iterator[RowReference]:
    if isinstance(value, list):
        for one in value:
            yield from _references(one)
    elif isinstance(value, dict):
        if value.get(TYPE) == "model":
            yield _decode_reference(value)
        for one in value.values():
            yield from _references(one)


def _decode_reference(stored: Mapping[str, Json]) -> RowReference:
    return RowReference(*(str(stored.get(field)) for field in RowReference._fields))


class _Decoder:
    """Decodes one context."""

    def __init__(self, rows: Rows, shared_json: Mapping[int, str]) -> None:
        """
        Args:
            rows: what the contexts refer to.
            shared_json: what several contexts have in common, by identity, as JSON text. Reading that again is
                the fastest way to have it once more.
        """
        self._rows = rows
        self._shared_json = shared_json
        self._instances: dict[RowReference, models.Model] = {}

    def decode(self, stored: Json) -> Decoded:
        try:
            return Variables((name, self._decode_variable(value)) for name, value in (stored or {}).items())
        except (ContentError, ContentNotReady) as error:
            return error
        except AT_LIMITS:
            raise
        except Exception as error:
            damaged = ContentError(f"The stored context is damaged: {error_text(error)}")
            damaged.__cause__ = error
            return damaged

    def _decode_variable(self, stored: Json) -> Any:
        if text := self._shared_json.get(id(stored)):
            return json.loads(text, object_hook=self._decode_object)
        return self._decode_value(stored)

    def _decode_value(self, stored: Json) -> Any:
        if not isinstance(stored, dict | list):
            return stored
        if isinstance(stored, list):
            return [self._decode_value(one) for one in stored]
        return self._decode_object({key: self._decode_value(one) for key, one in stored.items()})

    def _decode_object(self, stored: dict[str, Any]) -> Any:
        """What an object stands for whose values are decoded."""
        kind = stored[TYPE]
        if kind in _ITEM_DECODERS:
            return _ITEM_DECODERS[kind](stored["items"])
        if kind == "lazy":
            return _LAZY_FUNCTIONS[stored["function"]][1](*stored["args"], **stored["kwargs"])
        if kind == "model":
            reference = _decode_reference(stored)
            if reference not in self._instances:
                self._instances[reference] = self._rows.get(reference)
            return self._instances[reference]
        return decode_object(stored)


def _decode_dict(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(items[::2], items[1::2], strict=True))


_ITEM_DECODERS: dict[str, Callable[[list[Any]], Any]] = {
    "dict": _decode_dict,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}
