"""Whatever anybody posts to the webhook: read as JSON is, no fault of the server, and no way in."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from congressy_mailer.models import WebhookBatch
from congressy_mailer.sparkpost.event_batches import read_items
from tests.support.fuzzing import examples
from tests.support.sparkpost_events import batch_body, event
from tests.support.webhook import BEARER, post, process_all

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("webhook_secrets")]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=15,
)
_fuzz = settings(max_examples=examples(150), deadline=None, suppress_health_check=list(HealthCheck))


def test_very_many_tiny_events_are_not_held_in_memory_all_at_once() -> None:
    item = b'{"msys":{"a":{"b":1}}}'
    count = 150_000
    body = b"[" + b",".join([item] * count) + b"]"
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_items(body)) == count
        assert tracemalloc.get_traced_memory()[1] < 3 * len(body)
    finally:
        tracemalloc.stop()


@_fuzz
@given(items=st.lists(st.dictionaries(st.text(), _JSON, max_size=3), max_size=4), space=st.text(" \t\r\n", max_size=3))
def test_items_are_read_as_json_reads_them(items: list[dict[str, Any]], space: str) -> None:
    text = space + f"{space},{space}".join(["", *map(json.dumps, items)]).removeprefix(f"{space},{space}")
    assert repr(list(read_items(f"{space}[{text}{space}]{space}".encode()))) == repr(items)


@_fuzz
@given(body=st.text('[]{},:"\\a1 \n', max_size=30))
def test_what_is_no_json_is_refused_as_json_refuses_it(body: str) -> None:
    try:
        expected = json.loads(body)
    except ValueError:
        expected = None
    if isinstance(expected, list) and all(isinstance(item, dict) for item in expected):
        assert repr(list(read_items(body.encode()))) == repr(expected)
    else:
        with pytest.raises(ValueError, match="The body is"):
            list(read_items(body.encode()))


# Whatever anybody posts

_NAMES = [
    "type", "event_id", "timestamp", "rcpt_to", "raw_rcpt_to", "rcpt_meta", "rcpt_tags", "bounce_class", "raw_reason",
    "reason", "target_link_url", "campaign_id", "fbtype",
]  # fmt: skip
_VALUES = _JSON | st.sampled_from(
    ["bounce", "open", "spam_complaint", "10", 10, 25.0, "1e400", "nan", "-1", "99999999999999999999",
     "2026-01-01T00:00Z",
     "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "\0", "\ud800", "²", "a@b", "(" * 300 + "@", '"\\@x',
     {"mailer_id": "0" * 32}, {"mailer_id": []}, 10**400, True]
)  # fmt: skip
_EVENTS = st.lists(
    st.fixed_dictionaries(
        {"msys": st.dictionaries(st.text(max_size=5), st.dictionaries(st.sampled_from(_NAMES), _VALUES), max_size=2)}
    ),
    max_size=4,
)


@_fuzz
@given(body=st.binary(max_size=300) | _JSON.map(lambda value: json.dumps(value).encode()))
def test_no_body_is_a_fault_of_the_server(published: list[str], body: bytes) -> None:
    assert post(body) in (200, 400)
    process_all()
    assert not WebhookBatch.objects.exclude(problem="").exists()


@pytest.mark.database
@_fuzz
@given(batch=_EVENTS)
def test_no_event_stops_a_batch(published: list[str], batch: list[Any]) -> None:
    assert post(json.dumps(batch).encode()) == 200
    process_all()
    assert not WebhookBatch.objects.exclude(problem="").exclude(due_at=None).exists()
    assert not WebhookBatch.objects.exclude(body=None).exists()


_VISIBLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=60)


@_fuzz
@given(authorization=_VISIBLE, token=_VISIBLE, scheme=st.sampled_from(["", "Basic ", "Bearer ", "bearer", "TOKEN "]))
def test_nobody_gets_in_by_chance(published: list[str], authorization: str, token: str, scheme: str) -> None:
    headers = {"HTTP_AUTHORIZATION": scheme + authorization, "HTTP_X_MESSAGESYSTEMS_WEBHOOK_TOKEN": token}
    assert post(batch_body(event("delivery")), headers) == 401


@_fuzz
@given(key=_VISIBLE, encoding=st.sampled_from(["", "identity", " Identity "]), length=st.text(max_size=5))
def test_no_header_is_a_fault_of_the_server(published: list[str], key: str, encoding: str, length: str) -> None:
    headers = {**BEARER, "HTTP_X_MESSAGESYSTEMS_BATCH_ID": key, "HTTP_CONTENT_ENCODING": encoding}
    body = batch_body(event("delivery"))
    assert post(body, headers) == 200
    # The test client calls it an error where more is announced than comes; a server waits, and gives up.
    assume(_number(length) <= len(body))
    assert post(body, headers, CONTENT_LENGTH=length) in (200, 400)


def _number(length: str) -> int:
    try:
        return int(length)
    except ValueError:
        return 0
