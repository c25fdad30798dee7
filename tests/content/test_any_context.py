"""Any value in a context, and any stored one: it comes back, or it is refused by an error of ours."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from django.utils.safestring import mark_safe
from hypothesis import given
from hypothesis import strategies as st

from congressy_mailer.content.context import Encoder, decode_many, encode
from congressy_mailer.exceptions import ContentError, ContentNotReady, ContextNotSerializable
from congressy_mailer.models import Message, State
from tests.support.contexts import SAO_PAULO, decode, levels, store

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
keys = st.one_of(
    texts,
    st.integers(),
    st.booleans(),
    st.none(),
    st.dates(),
    st.uuids(),
    st.timedeltas(),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.sampled_from(list(State)),
    st.just("$type"),
)
zones = st.sampled_from([None, UTC, SAO_PAULO, timezone(timedelta(hours=5, minutes=45, seconds=7))])
scalars = st.one_of(
    keys,
    st.floats(allow_nan=False, allow_infinity=False),
    st.datetimes(timezones=zones, allow_imaginary=True),
    st.times(timezones=zones),
    texts.map(mark_safe),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
        st.sets(keys, max_size=4),
        st.frozensets(keys, max_size=4),
    ),
    max_leaves=20,
)


@given(st.dictionaries(texts, values, max_size=4))
def test_whatever_is_accepted_comes_back(context: dict[str, Any]) -> None:
    stored = encode(context, language=None)
    assert levels(stored) <= 31
    decoded = decode(store(stored))
    assert decoded == context
    # Equal is not enough: True == 1, and a safe string equals an unsafe one.
    assert shape(decoded) == shape(context)


@given(st.dictionaries(texts, values, max_size=4))
def test_the_short_way_stores_what_the_long_way_would(context: dict[str, Any]) -> None:
    long_way = Encoder(None, sensitive=False)
    try:
        wanted = {name: long_way.encode(value, "x", 1) for name, value in context.items()}
    except ContextNotSerializable:
        with pytest.raises(ContextNotSerializable):
            encode(context, language=None)
    else:
        assert encode(context, language=None) == wanted


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {repr(key): shape(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value), [shape(one) for one in value]
    if isinstance(value, set | frozenset):
        return type(value), sorted(map(repr, value))
    return type(value), repr(value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | st.just("$type"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["$type", "items", "value", "enum", "member", "zone", "fold", "args", "kwargs", "function"]
            ),
            inner
            | st.sampled_from(["dict", "set", "enum", "lazy", "time", "datetime", "int", "uuid", "date", "float"]),
            max_size=4,
        )
    ),
    max_leaves=15,
)


@given(json_values)
def test_no_stored_value_breaks_the_slice(stored: Any) -> None:
    first, second = decode_many([stored, {"x": 1}])
    assert isinstance(first, dict | ContentError | ContentNotReady)
    assert second == {"x": 1}


anything = st.one_of(
    st.text(),
    st.floats(),
    st.decimals(allow_nan=False),
    st.binary(max_size=3),
    st.complex_numbers(),
    st.functions(),
    st.builds(object),
)


@given(st.recursive(anything, lambda inner: st.lists(inner) | st.dictionaries(anything, inner), max_leaves=6))
def test_whatever_is_not_accepted_is_refused_by_our_own_error(value: Any) -> None:
    try:
        stored = encode({"a": value}, language=None)
    except ContextNotSerializable:
        return
    assert "\\u0000" not in json.dumps(stored, allow_nan=False)
    json.dumps(stored, ensure_ascii=False).encode()


@pytest.mark.database
@pytest.mark.django_db
@pytest.mark.parametrize(
    "value",
    [{"z": 1, "a": 1.0, 2: [1e16, -0.0, 2**63, 0.1, 1e300]}, "Ana & Zé 😀\u2028", "deep"],
)
def test_the_database_gives_back_what_it_was_given(value: Any) -> None:
    if value == "deep":
        for _ in range(15):
            value = {"a": value}
    message = Message.objects.create(
        created_at=datetime.now(UTC),
        message_id="<a@b>",
        from_email="a@b.example",
        to=["c@d.example"],
        template="t",
        context=encode({"value": value}, language=None),
    )
    message.refresh_from_db()
    decoded = decode(message.context)["value"]
    assert shape(decoded) == shape(value)
    if isinstance(value, dict):
        assert list(decoded) == list(value)
