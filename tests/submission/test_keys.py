"""Keys of callers: equal to themselves alone, on every database."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from congressy_mailer import send_bulk
from congressy_mailer.models import Batch, Message
from tests.support.mails import queue_message

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database]

ALIKE = [
    "ingresso José", "ingresso Jose", "INGRESSO JOSE", "ingresso Jose ", "ingresso Jose\u0301", "ingresso  Jose",
    "ingresso Strasse", "ingresso Straße", "ingresso 🎟", "ingresso 🎫", "ingresso １", "ingresso 1",
]  # fmt: skip


def test_keys_that_look_alike_make_a_message_each() -> None:
    made = [queue_message(idempotency_key=key).pk for key in ALIKE]
    assert len(set(made)) == len(ALIKE)
    assert [queue_message(idempotency_key=key).pk for key in ALIKE] == made
    assert list(Message.objects.order_by("id").values_list("idempotency_key", flat=True)) == ALIKE


def test_keys_that_look_alike_make_a_batch_each() -> None:
    made = [send_bulk(["ana@example.com"], subject="x", message="y", key=key).pk for key in ALIKE]
    assert len(set(made)) == len(ALIKE)
    assert [send_bulk(["ana@example.com"], subject="x", message="y", key=key).pk for key in ALIKE] == made
    assert Batch.objects.count() == len(ALIKE) == Message.objects.count()


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12), unique=True, max_size=4)
)
@settings(max_examples=25, deadline=None)
def test_different_texts_are_different_keys(keys: list[str]) -> None:
    Message.objects.all().delete()
    assert len({queue_message(idempotency_key=key).pk for key in keys}) == len(keys)
