"""The form in which names are compared."""

from __future__ import annotations

import unicodedata

from hypothesis import example, given, settings
from hypothesis import strategies as st

from congressy_mailer.outbox.search import fold
from tests.support.fuzzing import examples


@settings(max_examples=examples(500), deadline=None)
@given(st.text(max_size=40))
@example("ǅ İstanbul ﬁ ﷺ 각\u1100\u1161\u11a8 a\u0323\u0307 \u00a8")
def test_letters_are_made_plain_one_by_one_as_the_whole_name_would_be(name: str) -> None:
    plain = "".join(one for one in unicodedata.normalize("NFKD", name) if not unicodedata.combining(one))
    assert fold(name) == " ".join(plain.casefold().split())
