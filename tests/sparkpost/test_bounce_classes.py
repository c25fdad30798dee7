"""SparkPost's classes of bounces: each is known, and has an effect that its category allows."""

from __future__ import annotations

import pytest

from congressy_mailer.conf import SUPPRESSION_RULES
from congressy_mailer.models import BounceCategory
from congressy_mailer.sparkpost.bounce_classes import BOUNCE_CLASSES, Effect, bounce_class, is_about_address


def test_every_class_of_sparkposts_table_is_there() -> None:
    assert sorted(BOUNCE_CLASSES) == [1, 10, *range(20, 26), 30, 40, *range(50, 55), 60, 70, 80, 90, 100]


@pytest.mark.parametrize("code", [None, 0, 2, 77, 32_767])
def test_an_unknown_class_says_nothing_of_the_address(code: int | None) -> None:
    assert (bounce_class(code).category, bounce_class(code).effect) == (BounceCategory.UNDETERMINED, Effect.BLOCK)


def test_nobody_but_invalid_recipients_is_suppressed_for_all_mail_by_default() -> None:
    assert {code for code, one in BOUNCE_CLASSES.items() if SUPPRESSION_RULES.get(one.effect) == "all"} == {10, 30}
    assert SUPPRESSION_RULES["admin"] is None


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("554 5.7.1 Recipient address was suppressed due to customer policy", False),
        ("554 5.7.1 recipient address was SUPPRESSED DUE TO SYSTEM POLICY (Spam Complaint)", False),
        ("554 5.7.1 [internal] Campaign cancelled", False),
        ("554 5.7.1 [internal] Campaign canceled", False),
        ("", False),
        ("550 5.7.1 this address is closed by its administrator", True),
    ],
)
def test_which_words_may_be_about_the_address(reason: str, expected: bool) -> None:
    assert is_about_address(reason) == expected
