"""What a reply means, and how long to wait."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from congressy_mailer.retry import FLOOR, Reply, Stage, Verdict, classify, delay


@pytest.mark.parametrize(
    ("code", "text", "stage", "verdict"),
    [
        (250, "2.0.0 OK 95/6F-30607-EA5D4555", Stage.CONTENT, Verdict.ACCEPTED),
        (250, "2.0.0 RCPT TO accepted", Stage.RCPT, Verdict.ACCEPTED),
        (421, "4.3.3 [internal] smtpapi unable to generate unique transmission id", Stage.CONTENT, Verdict.DEFERRED),
        (451, "4.7.1 temporarily", Stage.RCPT, Verdict.DEFERRED),
        (None, "timed out", Stage.CONTENT, Verdict.DEFERRED),
        (550, "5.1.1 no such user", Stage.RCPT, Verdict.REJECTED),
        (551, "5.1.6 moved", Stage.RCPT, Verdict.REJECTED),
        (553, "5.1.3 bad address", Stage.RCPT, Verdict.REJECTED),
        (554, "5.6.0 refused", Stage.CONTENT, Verdict.REJECTED),
        (550, "5.6.0 JSON parsing error in X-MSYS-API", Stage.CONTENT, Verdict.REJECTED),
        (550, "5.7.1 Unconfigured Sending Domain <example.com>", Stage.MAIL, Verdict.SENDER_REFUSED),
        (550, "5.7.1 Unconfigured Sending Domain <example.com>", Stage.CONTENT, Verdict.SENDER_REFUSED),
        (530, "5.7.0 Authentication required", Stage.MAIL, Verdict.UNAVAILABLE),
        (534, "5.7.9 too weak", Stage.AUTH, Verdict.UNAVAILABLE),
        (535, "5.7.8 Sorry.", Stage.AUTH, Verdict.UNAVAILABLE),
        (538, "5.7.11 encryption required", Stage.MAIL, Verdict.UNAVAILABLE),
        (421, "4.3.2 closing", Stage.CONNECT, Verdict.UNAVAILABLE),
        (None, "refused", Stage.CONNECT, Verdict.UNAVAILABLE),
        (999, "what", Stage.CONTENT, Verdict.DEFERRED),
        (354, "continue", Stage.DATA, Verdict.ACCEPTED),
        (354, "continue", Stage.MAIL, Verdict.DEFERRED),
        (354, "continue", Stage.RCPT, Verdict.DEFERRED),
        (354, "continue", Stage.CONTENT, Verdict.DEFERRED),
        (250, "2.0.0 OK", Stage.DATA, Verdict.DEFERRED),
        (150, "hold on", Stage.CONTENT, Verdict.DEFERRED),
        (-1, "", Stage.CONTENT, Verdict.DEFERRED),
        (334, "VXNlcm5hbWU6", Stage.AUTH, Verdict.UNAVAILABLE),
        (354, "continue", Stage.CONNECT, Verdict.UNAVAILABLE),
        (552, "5.5.3 too many recipients", Stage.RCPT, Verdict.DEFERRED),
        (552, "5.3.4 too large", Stage.CONTENT, Verdict.REJECTED),
    ],
)
def test_reply_means(code: int | None, text: str, stage: Stage, verdict: Verdict) -> None:
    assert classify(code, text, stage) is verdict


@given(code=st.none() | st.integers(-10, 199) | st.integers(400, 10_000), text=st.text(), stage=st.sampled_from(Stage))
def test_only_2xx_and_3xx_are_acceptance_and_only_5xx_is_rejection(code: int | None, text: str, stage: Stage) -> None:
    verdict = classify(code, text, stage)
    assert verdict is not Verdict.ACCEPTED
    assert verdict is not Verdict.REJECTED or (code is not None and 500 <= code < 600)


@given(attempt=st.integers(1, 10_000), first=st.integers(1, 600), longest=st.integers(1, 7200))
def test_delay_has_floor_and_ceiling(attempt: int, first: int, longest: int) -> None:
    waited = delay(attempt, timedelta(seconds=first), timedelta(seconds=longest))
    assert FLOOR <= waited <= max(FLOOR, timedelta(seconds=longest))


def test_delay_grows() -> None:
    first, longest = timedelta(seconds=30), timedelta(hours=2)
    early = max(delay(1, first, longest) for _ in range(200))
    late = max(delay(6, first, longest) for _ in range(200))
    assert early <= timedelta(seconds=30)
    assert late > timedelta(minutes=5)


def test_reply_reads_as_the_server_said_it() -> None:
    assert str(Reply(550, "5.1.1 no such user")) == "550 5.1.1 no such user"
    assert str(Reply(None, "timed out")) == "timed out"


@given(text=st.text())
def test_the_text_of_a_reply_is_one_visible_line(text: str) -> None:
    said = Reply(550, text).text
    assert said.isprintable()
    assert said == " ".join(said.split())
    assert len(said) <= 1000


def test_a_reply_keeps_what_can_be_read() -> None:
    assert Reply(250, "2.0.0\x00 OK\r\n\t ação \ud800").text == "2.0.0 OK ação"
