"""The context codec: what goes in comes out, and what cannot is refused by name."""

from __future__ import annotations

import enum
import math
import re
import uuid
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.urls import reverse_lazy
from django.utils import translation
from django.utils.functional import SimpleLazyObject, lazy
from django.utils.safestring import SafeString, mark_safe
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy, ngettext_lazy, pgettext_lazy

from congressy_mailer.content.context import decode_many, encode
from congressy_mailer.exceptions import ContentError, ContentNotReady, ContextNotSerializable, MailerError
from congressy_mailer.models import Event, Priority, State
from tests.support.contexts import SAO_PAULO, decode, levels, round_trip, store

NAIVE = datetime.fromisoformat("2026-05-10T09:30:15.123456")


def refusal(value: Any) -> str:
    with pytest.raises(ContextNotSerializable) as caught:
        encode({"order": {"items": [0, 1, 2, value]}}, language=None)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, MailerError)
    return str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        "Ana & Zé 😀",
        "",
        0,
        -(2**63),
        2**63,
        10**100,
        0.1,
        1e300,
        5e-324,
        -0.0,
        1e16,
        [1, [2, []]],
        (1, (2, "x"), ()),
        {1, "a", None},
        frozenset({date(2026, 5, 10)}),
        date(2026, 5, 10),
        NAIVE,
        datetime(2026, 5, 10, 9, 30, tzinfo=UTC),
        datetime(2026, 5, 10, 9, 30, tzinfo=SAO_PAULO),
        datetime(2026, 5, 10, 9, 30, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
        time(23, 59, 59, 1),
        time(8, 0, tzinfo=UTC),
        time(8, 0, tzinfo=SAO_PAULO),
        timedelta(days=-1, seconds=5, microseconds=7),
        Decimal("1234.50"),
        Decimal("-0E-10"),
        uuid.UUID("018f3c6e-0000-7000-8000-000000000000"),
        {"z": 1, "a": 2, "mm": 3},
        {1: "int", "1": "str", None: "none", (date(2026, 1, 1)): "date"},
        {"$type": "model", "model": "auth.user", "pk": "1", "using": "default"},
        {"$type": {"$type": "dict", "items": []}},
        State.SENT,
        Priority.HIGH,
        Event.Type.FAILED,
        {State.SENT: [State.QUEUED]},
    ],
)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    decoded = round_trip(value)
    assert decoded == value
    assert type(decoded) is type(value)
    assert repr(decoded) == repr(value) or isinstance(value, set | frozenset)


def test_an_integer_of_any_length_comes_back() -> None:
    assert round_trip({10**5000: [10**5000]}) == {10**5000: [10**5000]}
    assert refusal({10**5000: b""}).startswith('context["order"]["items"][3][0x')


def test_the_order_of_a_dict_survives_a_database_that_sorts_keys() -> None:
    assert list(round_trip({"z": 1, "a": 2, "mm": 3})) == ["z", "a", "mm"]


def test_a_variable_may_be_called_like_our_tag() -> None:
    assert decode(store(encode({"$type": "model", "model": {"$type": "x"}}, language=None))) == {
        "$type": "model",
        "model": {"$type": "x"},
    }


def test_a_variable_may_be_called_like_the_schema_of_a_tenant() -> None:
    context = {"$schema": {"$type": "schema", "name": "acme"}}
    assert decode(store(encode(context, language=None))) == context
    assert decode(store(encode({"$schema": "acme"}, language=None))) == {"$schema": "acme"}


@pytest.mark.django_db
def test_a_context_of_a_tenant_waits_where_there_are_no_tenants() -> None:
    found = decode({"$schema": {"$type": "schema", "name": "acme"}, "name": "Ana"})
    assert isinstance(found, ContentNotReady)
    assert "has no schemas of tenants here" in str(found)


def test_an_aware_datetime_keeps_zone_and_fold() -> None:
    ambiguous = datetime(2018, 2, 17, 23, 30, tzinfo=SAO_PAULO, fold=1)
    decoded = round_trip(ambiguous)
    assert (decoded.tzinfo, decoded.fold, decoded.utcoffset()) == (SAO_PAULO, 1, timedelta(hours=-3))
    assert round_trip(NAIVE).tzinfo is None


def test_a_time_zone_that_the_worker_does_not_know_leaves_the_offset() -> None:
    stored = encode({"value": datetime(2026, 5, 10, 9, 30, tzinfo=SAO_PAULO)}, language=None)
    stored["value"]["zone"] = "Mars/Olympus"
    assert decode(stored)["value"] == datetime(2026, 5, 10, 12, 30, tzinfo=UTC)


def test_other_mappings_come_back_as_dict_and_subclasses_of_strings_and_numbers_as_these() -> None:
    class Name(str):
        pass

    class Count(int):
        pass

    for value, expected in (
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (Name("Ana"), "Ana"),
        (Count(3), 3),
    ):
        decoded = round_trip(value)
        assert decoded == expected
        assert type(decoded) is type(expected)


def test_a_safe_string_stays_safe_and_another_one_unsafe() -> None:
    assert isinstance(round_trip(mark_safe("<b>a</b>")), SafeString)
    assert not isinstance(round_trip("<b>a</b>"), SafeString)


def test_lazy_translations_are_translated_where_they_are_rendered() -> None:
    stored = store(
        encode(
            {
                "day": gettext_lazy("Monday"),
                "month": pgettext_lazy("alt. month", "May"),
                "both": format_lazy("{}, {day}", gettext_lazy("Monday"), day=gettext_lazy("Tuesday")),
                "plural": ngettext_lazy("%(n)d year", "%(n)d years", 2),
            },
            language="en",
        )
    )
    decoded = decode(stored)
    with translation.override("pt-br"):
        assert str(decoded["day"]) == "Segunda-feira"
        assert str(decoded["month"]) == "Maio"
        assert str(decoded["both"]) == "Segunda-feira, Terça-feira"
    with translation.override("en"):
        assert str(decoded["day"]) == "Monday"
        assert str(decoded["plural"]) == "%(n)d years"


def test_other_lazy_values_are_evaluated_in_the_mails_language() -> None:
    current_language = lazy(translation.get_language, str)
    number = lazy(lambda: 7, int)
    with translation.override("en"):
        assert round_trip(current_language(), language="pt-br") == "pt-br"
        assert round_trip(current_language()) == "en"
    assert round_trip(number()) == 7
    assert round_trip(SimpleLazyObject(lambda: "Ana")) == "Ana"


def test_a_lazy_value_that_fails_is_refused() -> None:
    assert 'context["order"]["items"][3] is a lazy value that cannot be evaluated' in refusal(reverse_lazy("nowhere"))


def test_enums_keep_their_label() -> None:
    decoded = round_trip({"status": State.SENT})["status"]
    assert decoded is State.SENT
    with translation.override("en"):
        assert str(decoded.label) == "sent"


def test_flags_together_have_no_name() -> None:
    assert " is a combination of flags of re.RegexFlag, which has no name" in refusal(re.IGNORECASE | re.DOTALL)


def test_enums_that_no_worker_can_find_are_refused() -> None:
    class Local(enum.Enum):
        A = 1

    Local.__module__ = "congressy_mailer.models"
    for member in (Local.A, enum.Enum("Made", "A").A, enum.Flag("Bits", "A B", module="django.contrib.auth").A):
        assert "Pass its .value or .label" in refusal(member)


@pytest.mark.parametrize(
    "reference",
    [
        "os:environ",
        "antigravity:X",
        "congressy_mailer.models:Message",
        "congressy_mailer.models:State.label",
        "congressy_mailer.models:__class__",
        "congressy_mailer.nothing:X",
        "congressy_mailer.models:",
        "",
    ],
)
def test_stored_data_cannot_have_anything_but_an_enum_of_an_app_looked_up(reference: str) -> None:
    stored = {"value": {"$type": "enum", "enum": reference, "member": "SENT"}}
    assert isinstance(decode(stored), ContentNotReady)


def test_an_enum_member_of_a_newer_deployment_is_waited_for() -> None:
    stored = {"value": {"$type": "enum", "enum": "congressy_mailer.models:State", "member": "TELEPORTED"}}
    error = decode(stored)
    assert isinstance(error, ContentNotReady)
    assert "TELEPORTED" in str(error)


@dataclass
class Seat:
    row: int


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (math.nan, "is nan"),
        (math.inf, "is inf"),
        (Decimal("NaN"), "Decimal NaN"),
        (Decimal("sNaN"), "Decimal sNaN"),
        (Decimal("-Infinity"), "Decimal -Infinity"),
        ("a\x00b", "'\\x00' at position 1"),
        ("\ud800", "'\\ud800' at position 0"),
        (mark_safe("\x00"), "at position 0"),
        (b"bytes", "decode it to a string"),
        (object(), "of type object, which cannot be stored"),
        (len, "call it, and pass the result"),
        (Seat(1), "dataclasses.asdict()"),
        (Point(1, 2), "_asdict()"),
        ((one for one in "abc"), "pass list() of it"),
        (3j, "of type complex"),
        (User, "call it"),
        (User(username="ana"), "auth.User that is not saved: save it first"),
        (User(pk=5), "auth.User that is not saved: save it first"),
        (AnonymousUser(), "AnonymousUser"),
        (User.objects.all(), "pass list(queryset)"),
        (User.objects, "pass list(manager.all())"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_its_path(value: Any, said: str) -> None:
    message = refusal(value)
    assert message.startswith('context["order"]["items"][3]')
    assert said in message


def test_the_path_of_keys_and_elements() -> None:
    for value, path in (
        ({(1, 2): 3}, 'context["a"] has a key of type tuple'),
        ({gettext_lazy("Monday"): 3}, 'context["a"] has a key of type'),
        ({2: {"x\x00": 1}}, 'a key of context["a"][2]'),
        ({None: {date(2026, 1, 1): b""}}, 'context["a"][None][datetime.date(2026, 1, 1)]'),
        ({(1, 2)}, 'context["a"] has an element of type tuple'),
        ({math.inf}, 'an element of context["a"]'),
        ((0, (0, b"")), 'context["a"][1][1]'),
    ):
        with pytest.raises(ContextNotSerializable) as caught:
            encode({"a": value}, language=None)
        assert str(caught.value).startswith(path)


@pytest.mark.parametrize("context", [["a"], "a", {1: 2}, {"a\x00": 1}, None])
def test_a_context_is_a_dict_of_named_variables(context: Any) -> None:
    with pytest.raises(ContextNotSerializable):
        encode(context, language=None)


def test_the_error_does_not_repeat_values() -> None:
    assert "s3cret" not in refusal([{"password": "s3cret", "x": object()}])


def test_circles_are_refused_and_repetitions_are_not() -> None:
    circle: list[Any] = []
    circle.append({"again": circle})
    assert 'context["order"]["items"][3][0]["again"] contains itself' in refusal(circle)
    shared = ["x"]
    assert round_trip([shared, shared]) == [["x"], ["x"]]


def test_depth_is_bounded_by_what_mariadb_stores() -> None:
    deepest: Any = "x"
    for _ in range(30):
        deepest = [deepest]
    stored = encode({"a": deepest}, language=None)
    assert levels(stored) == 31
    assert decode(store(stored)) == {"a": deepest}
    for value in ([deepest], {"a": deepest}, (deepest,)):
        with pytest.raises(ContextNotSerializable, match="nested too deeply"):
            encode({"a": value}, language=None)
    for _ in range(100_000):
        deepest = [deepest]
    with pytest.raises(ContextNotSerializable, match="nested too deeply"):
        encode({"a": deepest}, language=None)


@pytest.mark.parametrize(
    "stored",
    [
        [],
        "text",
        {"a": {}},
        {"a": {"$type": "nothing"}},
        {"a": {"$type": ["x"]}},
        {"a": {"$type": "decimal", "value": "x"}},
        {"a": {"$type": "dict", "items": [1]}},
        {"a": {"$type": "dict", "items": [[], 1]}},
        {"a": {"$type": "lazy", "function": "eval", "args": ["1"], "kwargs": {"$type": "dict", "items": []}}},
        {"a": {"$type": "datetime", "value": "yesterday", "zone": None, "fold": 0}},
        {"a": {"$type": "timedelta", "days": 10**12, "seconds": 0, "microseconds": 0}},
    ],
)
def test_damaged_data_fails_its_own_context_only(stored: Any) -> None:
    first, second = decode_many([stored, {"x": 1}])
    assert type(first) is ContentError or first == {}
    assert second == {"x": 1}


def test_no_context_is_an_empty_one() -> None:
    assert decode_many([None, {}]) == [{}, {}]
