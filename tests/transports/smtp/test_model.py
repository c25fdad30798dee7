"""Whatever a server says and wherever it hangs up: every mail has one outcome, and the outcome is the truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from congressy_mailer.exceptions import TransportUnavailable
from congressy_mailer.replies import Outcome
from congressy_mailer.transports.base import ComposedMail
from congressy_mailer.transports.smtp.transport import SmtpTransport
from tests.support.fuzzing import examples
from tests.support.mails import people
from tests.support.scripted_smtp import YES, ScriptedServer, Step
from tests.support.transports import composed, transport_to


class Stop(Exception):
    """The generator of mails fails."""


@dataclass
class Delivered:
    pulled: list[UUID]
    outcomes: list[Outcome]
    error: Exception | None = None


def watch_handover(
    transport: SmtpTransport, mails: list[ComposedMail], stop_after: int | None = None, fail_after: int | None = None
) -> Delivered:
    result = Delivered([], [])

    def generate() -> Iterator[ComposedMail]:
        for number, mail in enumerate(mails):
            if number == fail_after:
                raise Stop
            # Whatever happens here, all but the last is known.
            assert len(result.pulled) - len(result.outcomes) <= 1
            result.pulled.append(mail.key)
            yield mail

    try:
        for outcome in transport.deliver(generate()):
            result.outcomes.append(outcome)
            if len(result.outcomes) == stop_after:
                break
    except (TransportUnavailable, Stop) as error:
        result.error = error
    return result


def replies() -> st.SearchStrategy[Step]:
    said = st.sampled_from(
        [
            *["", "", "", "", "", ""],
            *["451 4.3.0 later", "452 full", "550 5.1.1 no", "552 much", "554", "421 4.7.0 closing"],
            *[
                "250-one\r\n250 two",
                "550-one\r\n550 two",
                "530 5.7.0 login",
                "550 5.7.1 Unconfigured Sending Domain <x>",
            ],
            *["354 go", "250 2.0.0 OK", "220 what", "999 what", "2505 what", "hello", "250-one\r\n550 two", "\x00\xff"],
        ]
    )
    cut = st.none() | st.none() | st.none() | st.integers(0, 30)
    return st.builds(Step, said, cut, stays_open=st.booleans())


@settings(max_examples=examples(500), deadline=None)
@example(
    steps=[*[YES] * 7, Step("530 5.7.0 login"), Step("451 4.3.0 later")],
    recipients=[1, 1, 1, 1],
    limits=[],
    extensions=("PIPELINING",),
    data_without_recipients=True,
    stop_after=None,
    fail_after=None,
)
@given(
    steps=st.lists(st.just(YES) | replies(), max_size=40),
    recipients=st.lists(st.integers(1, 3), min_size=1, max_size=5),
    limits=st.lists(st.none() | st.integers(0, 4000), max_size=3),
    extensions=st.sampled_from([("PIPELINING", "8BITMIME"), ("PIPELINING",), ("8BITMIME",), ()]),
    data_without_recipients=st.booleans(),
    stop_after=st.none() | st.none() | st.integers(1, 4),
    fail_after=st.none() | st.none() | st.integers(0, 4),
)
def test_the_outcome_is_the_truth(
    steps: list[Step],
    recipients: list[int],
    limits: list[int | None],
    extensions: tuple[str, ...],
    data_without_recipients: bool,
    stop_after: int | None,
    fail_after: int | None,
) -> None:
    server = ScriptedServer(
        steps, extensions=extensions, input_limits=limits, data_without_recipients=data_without_recipients
    )
    mails = [composed(*people(number)) for number in recipients]
    try:
        with transport_to(server.port) as transport:
            result = watch_handover(transport, mails, stop_after, fail_after)
    finally:
        server.close()

    assert server.violations == []
    # What goes to nobody has nothing in it.
    assert all(one.content == b"\r\n" for one in server.received if not one.recipients)
    outcomes = {outcome.key: outcome for outcome in result.outcomes}
    # One outcome for each, in order, unless something came between. A mail has none where its content was answered by a
    # refusal of the account, and what was said of the envelope behind it has been read, or not, by then.
    places = [[one.key for one in mails].index(outcome.key) for outcome in result.outcomes]
    gaps = isinstance(result.error, TransportUnavailable)
    assert places == (sorted(set(places)) if gaps else list(range(len(places))))
    assert result.error is not None or len(result.outcomes) in (stop_after, len(mails))
    for mail in mails:
        taken = [one for one in server.received if one.key == str(mail.key) and one.recipients]
        # Whatever happens, no mail goes out twice.
        assert len(taken) <= 1
        outcome = outcomes.get(mail.key)
        if outcome is None:
            assert not any(one.accepted for one in taken)
            continue
        named = [*outcome.accepted, *outcome.deferred, *outcome.rejected]
        assert sorted(named) == ([] if outcome.sender_refused else sorted(mail.mail.envelope))
        accepted = taken[0].recipients if taken and taken[0].accepted else ()
        assert set(outcome.accepted) <= set(accepted)
        if outcome.in_doubt:
            # Also where the server hung up before the content was in: that cannot be told from here.
            assert not any(one.answered for one in taken)
            assert set(accepted) <= set(outcome.deferred)
        else:
            assert set(outcome.accepted) == set(accepted)
        assert all("in time" not in str(reply) for reply in outcome.deferred.values())


@pytest.mark.parametrize("extensions", [("PIPELINING",), ()])
def test_recipients_behind_refused_ones_are_not_lost_to_a_server_that_closes_over_those(
    extensions: tuple[str, ...],
) -> None:
    closes = [*[Step("450 4.2.2 full")] * 3, Step("421 4.7.0 Error: too many errors")]
    server = ScriptedServer([YES, YES, *closes, YES, YES, *closes[1:]], extensions=extensions)
    try:
        with transport_to(server.port) as transport:
            (outcome,) = watch_handover(transport, [composed(*people(9))]).outcomes
    finally:
        server.close()
    # The server was asked about nobody again over whom it would close again.
    assert set(outcome.accepted) == {f"p{number}@example.com" for number in (0, 6, 7, 8)}
    assert set(outcome.deferred) == {f"p{number}@example.com" for number in (1, 2, 3, 4, 5)}
    assert (server.connections, len(server.received)) == (3, 1)
