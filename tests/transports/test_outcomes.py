"""What a mail server may answer, at every step of the exchange, and what becomes of the mail: one table, row by row.

The rows are also the table of ``docs/explanation/retrying.md``, which is compared with them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.mail.backends.smtp import EmailBackend
from django.test import override_settings

from congressy_mailer.exceptions import TransportUnavailable
from congressy_mailer.replies import Reply
from congressy_mailer.testing.local_sparkpost.replies import HANG_UP, SILENCE, Raw
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from congressy_mailer.transports.host_backends import open_backend
from congressy_mailer.transports.smtp.transport import SmtpTransport
from tests.support.server_answers import (
    ANA,
    EVA,
    REFUSALS,
    ROWS,
    TIMEOUT,
    Ending,
    Kind,
    Row,
    Slice,
    Step,
    ending,
    of_recipients,
    once,
)
from tests.support.transports import hand_over_by_django, outgoing

pytestmark = pytest.mark.email_settings


PAGE = Path(__file__).parent.parent.parent / "docs" / "explanation" / "retrying.md"


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row(server: LocalSparkPost, row: Row) -> None:
    """The mail ends as the table says; the next one gets a connection that works, or is not begun."""
    server.script = once(server, row.step, row.answer)
    first = server.connections + 1
    silent = SILENCE in (row.answer, getattr(row.answer, "then", None))
    with override_settings(EMAIL_TIMEOUT=TIMEOUT if silent else None):
        part = Slice(outgoing(ANA), outgoing(EVA))
        if row.ending is Ending.UNAVAILABLE:
            with pytest.raises(TransportUnavailable) as raised:
                part.deliver()
            assert part.pulled == 1
            assert server.mailbox.to(ANA) == []
            # smtplib goes on after a refusal of EHLO, with HELO, and of AUTH, with another way to log in: the reason is
            # what is said to that.
            first_try = row.step in (Step.EHLO, Step.EHLO_UNDER_TLS, Step.AUTH) and "421" in str(row.answer)
            if row.reply is not None and row.kind in REFUSALS and row.step is not Step.EHLO and not first_try:
                assert str(row.reply) in str(raised.value)
            assert [one.accepted for one in hand_over_by_django(outgoing(EVA))] == [(EVA,)]
            return
        outcome, following = part.deliver()
    well = row.ending in (Ending.GOES_ON, Ending.ACCEPTED)
    assert ending(outcome) is (Ending.ACCEPTED if row.ending is Ending.GOES_ON else row.ending)
    assert following.accepted == (EVA,)
    # After another 2xx than 250 smtplib believes that the mail is refused.
    assert server.connections == (first if well and row.kind is Kind.CALLED_FOR else first + 1)
    assert len(server.mailbox.to(EVA)) == 1
    if row.ending is not Ending.IN_DOUBT:
        assert len(server.mailbox.to(ANA)) == (1 if well else 0)
    if row.reply is not None and not well:
        said = Reply(row.reply.code, row.answer[4:].replace("\n550 ", " "))
        assert outcome.reply == said
        assert outcome.deferred.get(ANA, said) == outcome.rejected.get(ANA, said) == said
    elif not well:
        assert outcome.reply.code is None


def when_pipelined(row: Row) -> Ending:
    """RFC 5321 §4.2.1 has a client go by the first digit. smtplib does not, and the page has its stricter rule."""
    if row.kind is Kind.OTHER_2XX and row.step in (Step.MAIL, Step.RCPT):
        return Ending.ACCEPTED
    if row.kind is Kind.OUT_OF_PLACE and row.step is Step.DATA:
        return Ending.ACCEPTED
    return Ending.ACCEPTED if row.ending is Ending.GOES_ON else row.ending


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row_when_pipelined(server: LocalSparkPost, row: Row) -> None:
    """The same over one connection with pipelining: the mail ends as the table says, and the next one is delivered."""
    server.script = once(server, row.step, row.answer)
    silent = SILENCE in (row.answer, getattr(row.answer, "then", None))
    with override_settings(EMAIL_TIMEOUT=TIMEOUT if silent else None):
        backend = open_backend("")
        assert isinstance(backend, EmailBackend)
        part = Slice(outgoing(ANA), outgoing(EVA), transport=SmtpTransport(backend))
        if row.ending is Ending.UNAVAILABLE:
            with pytest.raises(TransportUnavailable):
                part.deliver()
            assert server.mailbox.to(ANA) == server.mailbox.to(EVA) == []
            return
        outcome, following = part.deliver()
    assert ending(outcome) is when_pipelined(row)
    assert following.accepted == (EVA,)
    assert len(server.mailbox.to(EVA)) == 1
    if row.ending is not Ending.IN_DOUBT:
        assert len(server.mailbox.to(ANA)) == (1 if when_pipelined(row) is Ending.ACCEPTED else 0)


def test_the_page_shows_these_rows() -> None:
    lines = [line.strip("|").split("|") for line in PAGE.read_text().splitlines() if line.startswith("|")]
    table = [[cell.strip() for cell in line] for line in lines]
    start = next(number for number, cells in enumerate(table) if Step.MAIL.column in cells)
    columns = table[start][1:]
    shown = {
        (cells[0], column, cell)
        for cells in table[start + 2 :]
        for column, cell in zip(columns, cells[1:], strict=True)
        if cell
    }
    assert shown == {(row.kind.value, row.step.column, row.ending.value) for row in ROWS}


def test_every_step_is_asked_everything() -> None:
    """A kind that is left out at a step was forgotten."""
    everywhere = set(Kind) - {Kind.WITHOUT_TLS}
    for step in Step:
        assert {row.kind for row in ROWS if row.step is step} >= everywhere, step


def test_a_login_that_is_cut_short_behind_its_code_shows_with_the_mail(server: LocalSparkPost) -> None:
    """``smtplib`` takes it for a login, and Django's backend logs in by itself."""
    server.script = once(server, Step.AUTH, Raw(b"235 2.0.0 Aut"))
    outcome, following = Slice(outgoing(ANA), outgoing(EVA)).deliver()
    assert ending(outcome) is Ending.DEFERRED
    assert following.accepted == (EVA,)


def test_a_connection_lost_before_the_last_byte_is_no_doubt(server: LocalSparkPost) -> None:
    """The content is larger than all buffers on the way, and nobody reads it."""
    large = outgoing(ANA)
    large.wire += (b"x" * 70 + b"\r\n") * 200_000
    server.script = once(server, Step.DATA, Raw(b"354 go\r\n", HANG_UP))
    (outcome,) = hand_over_by_django(large)
    assert ending(outcome) is Ending.DEFERRED


def test_a_connection_lost_behind_the_last_byte_is_doubt(server: LocalSparkPost) -> None:
    server.script = once(server, Step.DATA, Raw(b"354 go\r\n", SILENCE))
    with override_settings(EMAIL_TIMEOUT=TIMEOUT):
        (outcome,) = hand_over_by_django(outgoing(ANA))
    assert ending(outcome) is Ending.IN_DOUBT


def test_a_reset_that_goes_wrong_changes_nothing(server: LocalSparkPost) -> None:
    """``smtplib`` says RSET after a refusal, and the answer to that is no answer to the mail."""
    for said in (HANG_UP, "250 2.0.0 OK", "550 no", "421 bye", "what?", Raw(b"250 2")):
        server.script = of_recipients(server, content="554 5.7.1 spam", reset=said)
        outcome, following = Slice(outgoing(ANA), outgoing(EVA)).deliver()
        assert outcome.rejected == {ANA: Reply(554, "5.7.1 spam")}
        assert following.accepted == (EVA,)


def test_a_farewell_that_goes_wrong_changes_nothing(server: LocalSparkPost) -> None:
    for said in (HANG_UP, "550 no", "421 bye", "what?", "2" * 70_000, Raw(b"22")):
        server.script = of_recipients(server, quit=said)
        assert [one.accepted for one in hand_over_by_django(outgoing(ANA), outgoing(EVA))] == [(ANA,), (EVA,)]


def test_words_that_cannot_be_stored_are_made_readable(server: LocalSparkPost) -> None:
    """PostgreSQL stores no NUL, and a mail whose acceptance cannot be recorded would be sent again."""
    server.script = once(
        server, Step.CONTENT, Raw("250 2.0.0\x00 OK\x1b[31m\x07 ação ".encode() + b"\xff" * 5000 + b"\r\n")
    )
    (outcome,) = hand_over_by_django(outgoing(ANA))
    assert outcome.accepted == (ANA,)
    assert outcome.reply.text.startswith("2.0.0 OK [31m ação \ufffd\ufffd")
    assert len(outcome.reply.text) == 1000
    assert outcome.reply.text.isprintable()
