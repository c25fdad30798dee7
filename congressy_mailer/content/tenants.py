"""The tenant that a context was stored by, of a host with django-tenants.

A worker has no tenant of its own: it reads the rows of a context and renders its template in the schema that the call
was made in. Otherwise a row with the same key could be another tenant's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from ..conf.tenants import current_schema, in_schema, schema_exists
from ..exceptions import ContentError, ContentNotReady
from .values import TYPE, Json

#: Beside the variables; no template can name it, and no value of the host's is encoded like this one.
_KEY, _KIND = "$schema", "schema"


class Variables(dict[str, Any]):
    """A context that was decoded, and the schema of its tenant; empty: no tenant's."""

    schema = ""


Decoded: TypeAlias = Variables | ContentError | ContentNotReady
_Decode: TypeAlias = Callable[[Sequence[Json]], list[Decoded]]


def with_schema(encoded: dict[str, Json]) -> dict[str, Json]:
    """The context with the schema of the tenant that the caller's connection is set to, if there is one."""
    if schema := current_schema():
        encoded[_KEY] = {TYPE: _KIND, "name": schema}
    return encoded


def decode_by_schema(contexts: Sequence[Json], decode: _Decode) -> list[Decoded]:
    """Decode contexts, those of each tenant in its schema.

    Args:
        contexts: encoded.
        decode: decodes those of one schema.

    Returns:
        What was decoded, in the order of the contexts.
    """
    places: dict[str, list[int]] = {}
    for place, context in enumerate(contexts):
        places.setdefault(_stored_schema(context), []).append(place)
    decoded: dict[int, Decoded] = {}
    for schema, there in places.items():
        variables = [_without_schema(contexts[place]) if schema else contexts[place] for place in there]
        decoded.update(zip(there, _decode_in(schema, variables, decode), strict=True))
    return [decoded[place] for place in range(len(contexts))]


def _decode_in(schema: str, contexts: Sequence[Json], decode: _Decode) -> list[Decoded]:
    try:
        with in_schema(schema):
            if schema and not schema_exists(schema):
                return [ContentError(f"The tenant's schema {schema!r} no longer exists.") for _ in contexts]
            found = decode(contexts)
    except LookupError as error:
        return [ContentNotReady(str(error)) for _ in contexts]
    for one in found:
        if isinstance(one, Variables):
            one.schema = schema
    return found


def _stored_schema(context: Json) -> str:
    mark = context.get(_KEY) if isinstance(context, Mapping) else None
    return str(mark.get("name", "")) if isinstance(mark, Mapping) and mark.get(TYPE) == _KIND else ""


def _without_schema(context: Json) -> Json:
    return {name: value for name, value in context.items() if name != _KEY}
