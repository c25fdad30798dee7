"""Every reason that the package may store is one that the admin shows in the reader's language."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

import pytest
from django.utils import translation
from hypothesis import given, settings
from hypothesis import strategies as st

from congressy_mailer.admin.mail_error_texts import MAIL_ERRORS
from congressy_mailer.admin.reason_texts import COUNTED, PROBLEMS, REASONS, REPLIES
from congressy_mailer.admin.reasons import shown_reason
from tests.support.error_texts import MARK, Place, Sources
from tests.support.fuzzing import examples

#: What is made of a text that may come to be a reason.
STORED = {
    "Reply", "InvalidReply", "ContentError", "ContentNotReady", "StorageHangs", "TransportUnavailable",
    "SparkPostError",
}  # fmt: skip
#: How parameters, columns and functions are called that hold one.
NAMES = {"reason", "detail", "problem", "refusal"}
#: Rooms and modules that store no reason of a mail: what is refused at the call, what is told to operators, and tests.
ELSEWHERE = {
    "checks", "diagnosis", "health", "management", "metrics", "monitoring", "submission", "testing", "conf.validation",
    "importers.post_office_templates", "outbox.journal_folder", "sparkpost.webhook_api",
}  # fmt: skip
#: Errors that end a task or a command, and are logged.
NOT_STORED = {
    Place("sparkpost.suppression_list", "_results"),
    Place("suppressions.sync", "_Run._put_splitting"),
    # Read by its status where a worker sends over such a backend.
    Place("sparkpost.backend", "EmailBackend._send"),
}
#: A server's own word, with its id.
OF_OTHERS = {f"OK {MARK}"}

#: What writes a mail and its headers, whose errors stand within a reason.
WRITERS = [
    Place("delivery.composing", "_compose"),
    Place("mime.header_values", "normalise_headers"),
    Place("mime.header_values", "check_subject"),
    Place("mime.outgoing", "OutgoingMail.__init__"),
    Place("mime.outgoing", "OutgoingMail.message"),
    Place("mime.outgoing", "OutgoingMail.with_head"),
    Place("transports.envelope", "Envelope.content_parts"),
    Place("transports.smtp.lane", "Lane._opened"),
]
#: Errors of theirs.
WRITING_ERRORS = {"InvalidAddress", "InvalidHeader", "ValueError", "OSError"}

#: More than a word or a value.
SENTENCE = re.compile(r"(?=.* ).*[a-z]{3}", re.DOTALL)
ENGLISH = re.compile(
    r"\b(the|this|of|is|was|must|not|with|and|has|have|had|holds|takes|which|that|its?|cannot|could|did|from|while"
    r"|said|sent|to be|by)\b(?! em-)",
    re.IGNORECASE,
)


@pytest.fixture
def portuguese() -> Iterator[None]:
    with translation.override("pt-br"):
        yield


@cache
def stored_reasons() -> frozenset[str]:
    sources = Sources()
    places = sources.everything(but=ELSEWHERE)
    found = [*sources.texts(places, STORED), *sources.called(places, NAMES)]
    texts = {text for place, text in found if place not in NOT_STORED and SENTENCE.search(text)}
    return frozenset(texts - OF_OTHERS)


@cache
def errors_of_writing() -> frozenset[str]:
    sources = Sources()
    texts = {text for _, text in sources.texts(sources.reached(WRITERS), WRITING_ERRORS)}
    return frozenset(texts - {MARK})


def numbered(text: str) -> str:
    """With values that may be numbers."""
    return text.replace(MARK, "7")


@pytest.mark.once
@pytest.mark.usefixtures("portuguese")
def test_each_reason_of_the_package_is_shown_in_portuguese() -> None:
    reasons = sorted(map(numbered, stored_reasons()))
    # As many as there are, so that none is missed where the reading of the source fails.
    assert len(reasons) > 140
    assert [reason for reason in reasons if shown_reason(reason) == reason] == []
    halves = {reason: ENGLISH.findall(shown_reason(reason)) for reason in reasons}
    assert {reason: words for reason, words in halves.items() if words} == {}


@pytest.mark.once
@pytest.mark.usefixtures("portuguese")
def test_each_error_within_a_reason_is_shown_in_portuguese() -> None:
    reasons = [f"The mail cannot be composed: ValueError: {numbered(text)}" for text in sorted(errors_of_writing())]
    assert len(reasons) > 70
    halves = {reason: ENGLISH.findall(shown_reason(reason).partition("ValueError")[2]) for reason in reasons}
    assert {reason: words for reason, words in halves.items() if words} == {}


@pytest.mark.once
def test_in_english_each_reason_is_shown_as_it_is_stored() -> None:
    with translation.override("en"):
        for reason in map(numbered, stored_reasons()):
            # Addresses that are refused are reworded for people who did not write them.
            assert shown_reason(reason) == reason or "REDIRECT" in reason


@pytest.mark.once
@pytest.mark.usefixtures("portuguese")
def test_what_a_server_writes_stays_although_it_is_worded_like_ours() -> None:
    for text in (*REASONS, *COUNTED):
        reply = re.sub(r"%\(\w+\)s", "7", text)
        for stored in (f"550 5.7.1 {reply}", f"ana@example.com: 451 {reply}; eva@example.com: 550 5.7.1 {reply}"):
            assert shown_reason(stored) == stored


@settings(max_examples=examples(200), deadline=None)
@given(st.text(max_size=60) | st.sampled_from(REASONS + REPLIES), st.integers(200, 599))
def test_no_reply_of_a_server_loses_its_code_and_nothing_stored_raises(words: str, code: int) -> None:
    with translation.override("pt-br"):
        assert shown_reason(f"{code} {words}").startswith(f"{code} ")
        assert bool(shown_reason(words)) == bool(words)


@pytest.mark.once
def test_no_reason_is_there_that_the_package_does_not_make() -> None:
    made = stored_reasons() | errors_of_writing()
    for text in (*REPLIES, *REASONS, *COUNTED, *(f"%(code)s Not sent: {one}" for one in PROBLEMS), *MAIL_ERRORS):
        pattern = re.compile(re.sub(r"%\\\((\w+)\\\)s", ".+", re.escape(text)))
        assert any(map(pattern.fullmatch, made)), text
