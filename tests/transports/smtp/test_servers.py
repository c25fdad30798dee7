"""Ways of mail servers that differ from what RFC 2920 and RFC 5321 let a client expect."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from congressy_mailer.transports.smtp import pipelining
from tests.support.mails import people
from tests.support.scripted_smtp import YES, Step, serving
from tests.support.transports import composed, transport_to

# Haraka, Postfix, an imaginary one, and chasquid.
BEHIND_CONTENT = ["503 Bad sequence of commands - pipelined after end of DATA", "502 no", "554 5.5.0 out of order", ""]


@pytest.mark.parametrize("said", BEHIND_CONTENT)
def test_a_server_that_takes_no_envelope_behind_a_content(
    said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(pipelining, "PATIENCE", 0.3)
    with serving(behind_content=said) as server, transport_to(server.port) as transport:
        mails = [composed() for _ in range(6)]
        result = list(transport.deliver(mails))
        # Another slice knows it already.
        more = list(transport.deliver([composed() for _ in range(4)]))
    assert [outcome.accepted for outcome in (*result, *more)] == [("ana@example.com",)] * 10
    assert len(server.received) == 10
    assert server.violations == []
    # Where it answers at all, all of it goes over one connection.
    assert server.connections == (1 if said else 2)
    (line,) = [record for record in caplog.records if record.name == "congressy_mailer.transports"]
    assert "takes no envelope behind the content of another mail" in line.getMessage()
    assert not [
        record
        for record in caplog.records
        if record.levelno >= logging.WARNING and record.name != "congressy_mailer.throttling"
    ]


def test_a_server_that_refuses_a_sender_goes_on_taking_the_next_envelope_along() -> None:
    refused = [Step("550 5.1.8 no such sender")] * 2
    # The second mail's envelope, in the group with the first's content and by itself; RCPT and DATA are out of order.
    with (
        serving([YES, YES, YES, YES, refused[0], Step("503 no"), YES, refused[1], Step("503 no")]) as server,
        transport_to(server.port) as transport,
    ):
        result = list(transport.deliver([composed() for _ in range(3)]))
        assert pipelining.spans_mails("127.0.0.1", server.port)
    assert [bool(outcome.accepted) for outcome in result] == [True, False, True]
    assert result[1].rejected


@pytest.mark.parametrize("extensions", [("PIPELINING",), ()])
@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("code", [500, 502, 503])
def test_what_is_said_of_the_session_ends_no_mail(code: int, stage: int, extensions: Sequence[str]) -> None:
    with (
        serving([*[YES] * stage, Step(f"{code} what")], extensions=extensions) as server,
        transport_to(server.port) as transport,
    ):
        result = list(transport.deliver([composed()]))
    assert [set(outcome.deferred) for outcome in result] == [{"ana@example.com"}]


def test_it_is_forgotten_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelining, "MEMORY", 0.0)
    with serving(behind_content="503 no") as server, transport_to(server.port) as transport:
        list(transport.deliver([composed(), composed()]))
        assert pipelining.spans_mails("127.0.0.1", server.port)


def test_a_server_that_dies_in_a_content_is_not_suspected() -> None:
    with serving([YES, YES, YES, Step(cut=0)]) as server, transport_to(server.port) as transport:
        result = list(transport.deliver([composed(), composed()]))
        assert pipelining.spans_mails("127.0.0.1", server.port)
    assert result[0].in_doubt
    assert result[1].accepted


@pytest.mark.parametrize("extensions", [("PIPELINING",), ()])
def test_recipients_that_a_server_has_closed_over_do_not_keep_the_others_from_theirs(extensions: Sequence[str]) -> None:
    full = [Step("450 4.2.2 full")] * 3
    with (
        serving([YES, *full, Step("421 4.7.0 too many errors")], extensions=extensions) as server,
        transport_to(server.port) as transport,
    ):
        (outcome,) = transport.deliver([composed(*people(6))])
    # On a new connection, without those who were refused.
    assert sorted(outcome.accepted) == [f"p{number}@example.com" for number in (3, 4, 5)]
    assert list(outcome.deferred) == [f"p{number}@example.com" for number in (0, 1, 2)]


def test_a_refusal_before_the_content_is_final_where_it_stays_the_same() -> None:
    early = Step("550 5.7.1 not you", unasked=True)
    script = [YES, YES, YES, early] * 2
    with serving(script) as server, transport_to(server.port) as transport:
        result = list(transport.deliver([composed(), composed()]))
    first, second = result
    assert first.rejected["ana@example.com"].code == 550
    assert second.accepted
    assert server.connections == 3


def test_a_refusal_before_the_content_may_be_about_the_connection() -> None:
    with (
        serving([YES, YES, YES, Step("554 5.4.0 too slow", unasked=True)]) as server,
        transport_to(server.port) as transport,
    ):
        (outcome,) = transport.deliver([composed()])
    assert outcome.accepted == ("ana@example.com",)
