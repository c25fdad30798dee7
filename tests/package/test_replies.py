"""What a reply means, and how long to wait."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from congressy_mailer.outbox.backoff import FLOOR, delay
from congressy_mailer.replies import Reply, Stage, Verdict, asks_to_slow_down, classify


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
        (500, "5.5.2 command unrecognized", Stage.RCPT, Verdict.DEFERRED),
        (502, "5.5.1 not implemented", Stage.DATA, Verdict.DEFERRED),
        (503, "pipelined after end of DATA", Stage.MAIL, Verdict.DEFERRED),
        (503, "5.5.1 bad sequence", Stage.CONTENT, Verdict.REJECTED),
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


TOO_FAST = [
    (454, "Throttling failure: Maximum sending rate exceeded."),
    (421, "4.7.0 mx.example.com Error: too many connections from 192.0.2.1"),
    (450, "4.7.1 Error: too much mail from 192.0.2.1"),
    (450, "4.7.1 Error: too many recipients from 192.0.2.1"),
    (451, "4.7.1 Rate limit exceeded, please try again later"),
    (450, "4.7.1 <ana@example.com>: Recipient address rejected: Rate limit exceeded"),
    (452, "4.3.2 Connection rate limit exceeded."),
    (452, "4.4.5 Messages per second limit exceeded"),
    (421, "4.7.28 Our system has detected an unusual rate of unsolicited mail originating from your IP address."),
    (450, "4.2.1 Peak SMTP relay limit exceeded for this customer."),
    (432, "4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded. Throttled"),
    (421, "4.3.2 The maximum number of concurrent connections has exceeded a limit, closing transmission channel"),
    (421, "4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints"),
    (421, "4.7.1 Messages to example.com deferred due to excessive volume. Try again later"),
    (421, "Too many concurrent SMTP connections from this IP address; please try again later."),
    (450, "too many connections from your IP (rate controlled)"),
    (451, "The server has reached its limit for processing requests from your host. Please try again later."),
    (451, "4.7.1 Received too many messages from a new or untrusted IP"),
    (421, "Server busy, slow down"),
]

NOT_TOO_FAST = [
    (250, "2.0.0 OK, rate limited"),
    (None, "rate limit: the connection was lost"),
    (550, "5.7.1 rate limit exceeded"),
    (450, "4.2.0 <ana@example.com>: Recipient address rejected: Greylisted, try again in 300 seconds"),
    (451, "4.7.1 Greylisting in action, please come back later, you are too fast"),
    (451, "4.7.1 Service unavailable - try again later"),
    (421, "4.7.0 Try again later, closing connection."),
    (421, "4.3.3 [internal] smtpapi unable to generate unique transmission id"),
    (452, "4.5.3 Too many recipients"),
    (421, "4.7.0 mx.example.com Error: too many errors"),
    (452, "4.2.2 The recipient's mailbox is over its quota"),
    (450, "4.2.1 The user you are trying to contact is receiving mail at a rate that exceeds the limit"),
    (450, "4.2.1 <ana@example.com>: Mailbox received too much email in a short period of time"),
    (451, "4.3.0 Temporary error: temperature exceeded"),
]


@pytest.mark.parametrize(("code", "text"), TOO_FAST)
def test_a_server_that_finds_it_too_fast_is_understood(code: int, text: str) -> None:
    assert asks_to_slow_down(Reply(code, text))
    assert classify(code, text, Stage.MAIL) is Verdict.DEFERRED


@pytest.mark.parametrize(("code", "text"), NOT_TOO_FAST)
def test_other_temporary_refusals_are_no_reason_to_slow_down(code: int | None, text: str) -> None:
    assert not asks_to_slow_down(Reply(code, text))


@given(code=st.none() | st.integers(0, 999), text=st.text())
def test_only_what_is_temporary_is_too_fast(code: int | None, text: str) -> None:
    assert not asks_to_slow_down(Reply(code, text)) or (code is not None and 400 <= code < 500)
