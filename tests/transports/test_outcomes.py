"""What a mail server may answer, at every step of the exchange, and what becomes of the mail: one table, row by row.

The rows are also the table of ``docs/explanation/retrying.md``, which is compared with them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.core.mail.backends.smtp import EmailBackend
from django.test import override_settings
from django.utils import timezone

from congressy_mailer import send_mail
from congressy_mailer.exceptions import TransportUnavailable
from congressy_mailer.mime.outgoing import OutgoingMail
from congressy_mailer.models import Message, State, TransportStatus
from congressy_mailer.outbox.backoff import FLOOR
from congressy_mailer.replies import Outcome, Reply
from congressy_mailer.testing.local_sparkpost.replies import HANG_UP, KEEP_AND_HANG_UP, SILENCE, Exchange, Raw, Stage
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from congressy_mailer.transports import pool
from congressy_mailer.transports.base import ComposedMail, Transport
from congressy_mailer.transports.django_backend import DjangoTransport
from congressy_mailer.transports.host_backends import open_backend
from congressy_mailer.transports.smtp.transport import SmtpTransport
from tests.support.mails import deliver, queue
from tests.support.transports import hand_over_by_django, outgoing

pytestmark = pytest.mark.email_settings

Answer = Any

PAGE = Path(__file__).parent.parent.parent / "docs" / "explanation" / "retrying.md"

ANA, EVA, RUI, ZOE = "ana@example.com", "eva@example.com", "rui@example.com", "zoe@example.com"

# Long enough for a busy machine, and what a test of silence takes.
TIMEOUT = 1


class Ending(Enum):
    """What becomes of a mail with one recipient; the words are those of the page."""

    #: The exchange goes on, and the mail is accepted in the end.
    GOES_ON = "goes on"
    ACCEPTED = "accepted"
    DEFERRED = "deferred"
    IN_DOUBT = "in doubt"
    REJECTED = "rejected"
    SENDER_REFUSED = "sender refused"
    UNAVAILABLE = "unavailable"


class Kind(Enum):
    """Kinds of answers, as the page words them."""

    CALLED_FOR = "what the step calls for"
    WITHOUT_TLS = "EHLO without STARTTLS, or without AUTH"
    OTHER_2XX = "another 2xx"
    OUT_OF_PLACE = "3xx where none belongs"
    TEMPORARY = "421, or another 4xx"
    PERMANENT = "5xx that is in no other row"
    SESSION = "500, 502, 503"
    EXHAUSTED = "552"
    ACCOUNT = "530, 534, 535, 538"
    DOMAIN = '5xx with "Unconfigured Sending Domain"'
    NO_REPLY = "something that is no SMTP reply, or has no end"
    HALF = "half a reply, then the connection is lost"
    LOST = "nothing, and the connection is lost"
    SILENCE = "nothing within the timeout"


class Step(Enum):
    """Steps of the exchange: the server's stage, the how-manieth time there, its reply's code, column of the page."""

    CONNECT = (Stage.CONNECT, 1, 220, "Before any mail")
    EHLO = (Stage.HELLO, 1, 250, "Before any mail")
    STARTTLS = (Stage.STARTTLS, 1, 220, "Before any mail")
    EHLO_UNDER_TLS = (Stage.HELLO, 2, 250, "Before any mail")
    AUTH = (Stage.AUTH, 1, 235, "Before any mail")
    MAIL = (Stage.MAIL, 1, 250, "MAIL")
    RCPT = (Stage.RCPT, 1, 250, "RCPT")
    DATA = (Stage.DATA, 1, 354, "DATA")
    CONTENT = (Stage.CONTENT, 1, 250, "After the content")

    def __init__(self, stage: Stage, time: int, code: int, column: str) -> None:
        self.stage = stage
        self.time = time
        self.code = code
        self.column = column


REFUSALS = (Kind.TEMPORARY, Kind.PERMANENT, Kind.EXHAUSTED, Kind.ACCOUNT, Kind.DOMAIN)

BEFORE_ANY_MAIL = (Step.CONNECT, Step.EHLO, Step.STARTTLS, Step.EHLO_UNDER_TLS, Step.AUTH)
BEFORE_THE_CONTENT = (Step.MAIL, Step.RCPT, Step.DATA)
WITH_A_MAIL = (*BEFORE_THE_CONTENT, Step.CONTENT)
EVERY_STEP = (*BEFORE_ANY_MAIL, *WITH_A_MAIL)


@dataclass(frozen=True)
class Row:
    """At this step, this answer, this ending."""

    step: Step
    kind: Kind
    answer: Answer
    ending: Ending

    def __str__(self) -> str:
        answer = self.answer.sent if isinstance(self.answer, Raw) else self.answer
        return f"{self.step.name}-{self.kind.name}-{answer!s:.40}-{self.ending.name}"

    @property
    def reply(self) -> Reply | None:
        """The reply, where the answer is one."""
        if isinstance(self.answer, str) and self.kind is not Kind.NO_REPLY:
            return Reply(int(self.answer[:3]), self.answer[4:])
        return None


JSON_ERROR = "550 5.6.0 JSON parsing error in X-MSYS-API"
CAMPAIGN_ERROR = "550 5.6.0 smtpapi_campaign_id context is limited to 64 bytes"
NO_TRANSMISSION_ID = "421 4.3.3 [internal] smtpapi unable to generate unique transmission id"
TOO_MANY_MAILS = "421 4.7.0 Too many messages on this connection"
UNCONFIGURED = "550 5.7.1 Unconfigured Sending Domain <congressy.net>"

#: The account's and the configuration's fault (RFC 4954 §6); 535 in SparkPost's words.
ACCOUNT = ("530 5.7.0 Authentication required", "534 5.7.9 too weak", "535 5.7.8 Sorry.", "538 5.7.11 encrypt first")

#: What no client can take for a reply, whatever it waits for.
NO_REPLIES = ("HTTP/1.1 400 Bad Request", "999 what", Raw(b"\r\n"), Raw(b"\xff\xfe\x00\r\n"), "250 " + "x" * 70_000)
#: What a credulous one could: no code of three digits, no answer to the question, two answers, no end.
HALF_TRUE = (
    "2505 bytes follow",
    "150 hold on",
    "250-yes\n550 no",
    "550-no\n250 yes",
    Raw(b"250-and another line\r\n" * 5000, SILENCE),
)


def halves(step: Step) -> tuple[Raw, ...]:
    return Raw(b"%d" % (step.code // 10)), Raw(b"%d-more will" % step.code)


def rows(steps: tuple[Step, ...], kind: Kind, ending: Ending, *answers: Answer) -> list[Row]:
    return [Row(step, kind, answer, ending) for step in steps for answer in answers]


ROWS: list[Row] = [
    # What each step calls for.
    *rows((Step.CONNECT,), Kind.CALLED_FOR, Ending.GOES_ON, "220 ready", "220 of two\n220 lines"),
    *rows((Step.EHLO,), Kind.CALLED_FOR, Ending.GOES_ON, "250 here\n250 STARTTLS\n250 AUTH PLAIN"),
    *rows((Step.STARTTLS,), Kind.CALLED_FOR, Ending.GOES_ON, None),
    *rows((Step.EHLO_UNDER_TLS,), Kind.CALLED_FOR, Ending.GOES_ON, "250 here\n250 AUTH PLAIN", "250 a\n250 AUTH LOGIN"),
    *rows((Step.AUTH,), Kind.CALLED_FOR, Ending.GOES_ON, "235 2.0.0 Authed. Go on."),
    *rows((Step.MAIL,), Kind.CALLED_FOR, Ending.GOES_ON, "250 2.0.0 MAIL FROM accepted", "250", "250 two\n250 lines"),
    *rows((Step.RCPT,), Kind.CALLED_FOR, Ending.GOES_ON, "250 2.0.0 RCPT TO accepted", "251 will forward"),
    *rows((Step.DATA,), Kind.CALLED_FOR, Ending.GOES_ON, "354 3.0.0 continue..."),
    *rows((Step.CONTENT,), Kind.CALLED_FOR, Ending.ACCEPTED, "250 2.0.0 OK 95/6F-30607-EA5D4555"),
    # No reply that the step does not call for makes a mail accepted before its content has been taken.
    *rows((Step.EHLO,), Kind.WITHOUT_TLS, Ending.UNAVAILABLE, "250 here", "250 here\n250 AUTH PLAIN"),
    *rows((Step.EHLO_UNDER_TLS,), Kind.WITHOUT_TLS, Ending.UNAVAILABLE, "250 here", "250 here\n250 AUTH GSSAPI"),
    *rows(BEFORE_ANY_MAIL[:4], Kind.OTHER_2XX, Ending.UNAVAILABLE, "299 what"),
    # The server counts it as a login, and would say so when smtplib tries the next way to log in.
    *rows((Step.AUTH,), Kind.OTHER_2XX, Ending.UNAVAILABLE, Raw(b"299 what\r\n")),
    *rows(BEFORE_THE_CONTENT, Kind.OTHER_2XX, Ending.DEFERRED, "252 cannot verify"),
    *rows((Step.MAIL, Step.DATA), Kind.OTHER_2XX, Ending.DEFERRED, "251 what"),
    *rows((Step.DATA,), Kind.OTHER_2XX, Ending.DEFERRED, "250 2.0.0 OK"),
    *rows((Step.CONTENT,), Kind.OTHER_2XX, Ending.ACCEPTED, "200 taken", "251 2.0.0 forwarded", "252 2.0.0 queued"),
    *rows(BEFORE_ANY_MAIL, Kind.OUT_OF_PLACE, Ending.UNAVAILABLE, "354 continue"),
    *rows((Step.AUTH,), Kind.OUT_OF_PLACE, Ending.UNAVAILABLE, "334 not Base64"),
    *rows((Step.MAIL, Step.RCPT), Kind.OUT_OF_PLACE, Ending.DEFERRED, "354 continue"),
    *rows((Step.DATA,), Kind.OUT_OF_PLACE, Ending.DEFERRED, "334 VXNlcm5hbWU6"),
    *rows((Step.CONTENT,), Kind.OUT_OF_PLACE, Ending.IN_DOUBT, "354 continue"),
    # Refusals.
    *rows(BEFORE_ANY_MAIL, Kind.TEMPORARY, Ending.UNAVAILABLE, "421 4.3.2 closing", "454 4.7.0 not now"),
    *rows(WITH_A_MAIL, Kind.TEMPORARY, Ending.DEFERRED, "421 4.3.2 closing", "451 4.3.0 later", "452 4.3.1 full"),
    *rows((Step.MAIL,), Kind.TEMPORARY, Ending.DEFERRED, TOO_MANY_MAILS),
    *rows((Step.CONTENT,), Kind.TEMPORARY, Ending.DEFERRED, NO_TRANSMISSION_ID),
    *rows(BEFORE_ANY_MAIL, Kind.PERMANENT, Ending.UNAVAILABLE, "501 what", "554 5.3.2 closed"),
    *rows(BEFORE_ANY_MAIL, Kind.SESSION, Ending.UNAVAILABLE, "500 what", "503 not now"),
    *rows(BEFORE_THE_CONTENT, Kind.SESSION, Ending.DEFERRED, "500 5.5.2 what", "502 5.5.1 no", "503 5.5.1 too early"),
    *rows((Step.CONTENT,), Kind.SESSION, Ending.REJECTED, "503 5.5.1 what"),
    *rows((Step.MAIL,), Kind.PERMANENT, Ending.REJECTED, "553 5.1.8 bad sender", "550 of\n550 two lines"),
    *rows(
        (Step.RCPT,), Kind.PERMANENT, Ending.REJECTED, "550 5.1.1 nobody", "551 5.1.6 moved", "553 5.1.3 bad address"
    ),
    *rows((Step.DATA,), Kind.PERMANENT, Ending.REJECTED, "554 5.5.1 no"),
    *rows((Step.CONTENT,), Kind.PERMANENT, Ending.REJECTED, JSON_ERROR, CAMPAIGN_ERROR, "554 5.7.1 spam", "550"),
    *rows(BEFORE_ANY_MAIL, Kind.EXHAUSTED, Ending.UNAVAILABLE, "552 5.3.4 full"),
    *rows((Step.MAIL, Step.DATA, Step.CONTENT), Kind.EXHAUSTED, Ending.REJECTED, "552 5.3.4 too large"),
    *rows((Step.RCPT,), Kind.EXHAUSTED, Ending.DEFERRED, "552 5.5.3 too many recipients"),
    *rows(EVERY_STEP, Kind.ACCOUNT, Ending.UNAVAILABLE, *ACCOUNT),
    *rows(BEFORE_ANY_MAIL, Kind.DOMAIN, Ending.UNAVAILABLE, UNCONFIGURED),
    *rows(WITH_A_MAIL, Kind.DOMAIN, Ending.SENDER_REFUSED, UNCONFIGURED),
    # No reply.
    *rows(BEFORE_ANY_MAIL, Kind.NO_REPLY, Ending.UNAVAILABLE, *NO_REPLIES),
    *rows(BEFORE_THE_CONTENT, Kind.NO_REPLY, Ending.DEFERRED, *NO_REPLIES, *HALF_TRUE),
    *rows((Step.CONTENT,), Kind.NO_REPLY, Ending.IN_DOUBT, *NO_REPLIES, *HALF_TRUE),
    *(row for step in BEFORE_ANY_MAIL for row in rows((step,), Kind.HALF, Ending.UNAVAILABLE, *halves(step))),
    *(row for step in BEFORE_THE_CONTENT for row in rows((step,), Kind.HALF, Ending.DEFERRED, *halves(step))),
    *rows(WITH_A_MAIL[:3], Kind.HALF, Ending.DEFERRED, Raw(b"250 2.0"), Raw(b"550 5.7.1 Uncon"), Raw(b"354")),
    *rows((Step.CONTENT,), Kind.HALF, Ending.IN_DOUBT, *halves(Step.CONTENT)),
    *rows((Step.CONTENT,), Kind.HALF, Ending.IN_DOUBT, Raw(b"250 2.0.0 O"), Raw(b"550 5.7.1 Unconf"), Raw(b"451")),
    *rows((Step.CONTENT,), Kind.HALF, Ending.IN_DOUBT, Raw(b"250 2.0.0 O", KEEP_AND_HANG_UP)),
    *rows(BEFORE_ANY_MAIL, Kind.LOST, Ending.UNAVAILABLE, HANG_UP),
    *rows(BEFORE_THE_CONTENT, Kind.LOST, Ending.DEFERRED, HANG_UP),
    *rows((Step.CONTENT,), Kind.LOST, Ending.IN_DOUBT, HANG_UP, KEEP_AND_HANG_UP),
    *rows(BEFORE_ANY_MAIL, Kind.SILENCE, Ending.UNAVAILABLE, SILENCE),
    *rows((Step.STARTTLS,), Kind.SILENCE, Ending.UNAVAILABLE, Raw(b"220 go ahead\r\n", SILENCE)),
    *rows(BEFORE_THE_CONTENT, Kind.SILENCE, Ending.DEFERRED, SILENCE),
    *rows((Step.CONTENT,), Kind.SILENCE, Ending.IN_DOUBT, SILENCE, Raw(b"250 2.0.0 O", SILENCE)),
]


@pytest.fixture(scope="module")
def only_server() -> Iterator[LocalSparkPost]:
    """One server for all: what a test leaves behind in it would show in the next one."""
    with LocalSparkPost() as server:
        yield server


@pytest.fixture
def server(only_server: LocalSparkPost, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalSparkPost]:
    """A server that is well, and that this process is configured for."""
    for name, value in only_server.environment().items():
        monkeypatch.setenv(name, value)
    only_server.script = None
    only_server.mailbox.clear()
    with override_settings(
        EMAIL_BACKEND="django.core.mail.backends.smtp.EmailBackend",
        EMAIL_PORT=only_server.port,
        EMAIL_HOST_PASSWORD=only_server.password,
    ):
        yield only_server


def once(server: LocalSparkPost, step: Step, answer: Answer) -> Callable[[Exchange], Answer]:
    """A script that answers so at this step for the first mail of the next connection, and is well otherwise."""
    connection = server.connections + 1
    times: Counter[Stage] = Counter()

    def script(exchange: Exchange) -> Answer:
        if exchange.connection != connection or exchange.mail > 1 or exchange.stage is not step.stage:
            return None
        times[exchange.stage] += 1
        return answer if times[exchange.stage] >= step.time else None

    return script


def of_recipients(server: LocalSparkPost, **answers: Answer) -> Callable[[Exchange], Answer]:
    """A script for the next connection: an answer for each recipient by name, and for the stages of that name."""
    connection = server.connections + 1

    def script(exchange: Exchange) -> Answer:
        if exchange.connection != connection:
            return None
        return answers.get(exchange.recipient.partition("@")[0] if exchange.recipient else exchange.stage.value)

    return script


class Slice:
    """Mails for a transport, and how far it came with them."""

    def __init__(self, *mails: OutgoingMail, transport: Transport | None = None) -> None:
        self.transport = transport or DjangoTransport(open_backend(""))
        self.pulled = 0
        self._mails = mails

    def deliver(self) -> list[Outcome]:
        try:
            return list(self.transport.deliver(self._pull()))
        finally:
            self.transport.close()

    def _pull(self) -> Iterator[ComposedMail]:
        for one in self._mails:
            self.pulled += 1
            yield ComposedMail(uuid4(), one)


def ending(outcome: Outcome) -> Ending:
    """What became of a mail to Ana alone."""
    found = {
        Ending.ACCEPTED: outcome.accepted == (ANA,),
        Ending.DEFERRED: set(outcome.deferred) == {ANA} and not outcome.in_doubt,
        Ending.IN_DOUBT: set(outcome.deferred) == {ANA} and outcome.in_doubt,
        Ending.REJECTED: set(outcome.rejected) == {ANA},
        Ending.SENDER_REFUSED: outcome.sender_refused,
    }
    (one,) = (kind for kind, true in found.items() if true)
    return one


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


# Several recipients.


def test_each_recipient_has_its_own_answer(server: LocalSparkPost) -> None:
    server.script = of_recipients(server, eva="451 4.7.1 later", rui="550 5.1.1 nobody")
    outcome, following = Slice(outgoing(ANA, EVA, RUI), outgoing(ZOE)).deliver()
    assert outcome.accepted == (ANA,)
    assert outcome.deferred == {EVA: Reply(451, "4.7.1 later")}
    assert outcome.rejected == {RUI: Reply(550, "5.1.1 nobody")}
    assert outcome.reply.code == 250
    assert following.accepted == (ZOE,)
    assert [one.recipients for one in server.mailbox] == [(ANA,), (ZOE,)]


def test_a_recipient_taken_with_an_unusual_code_has_the_mail(server: LocalSparkPost) -> None:
    """The server took it (RFC 5321 §3.5.3), though ``smtplib`` counts it among the refused."""
    server.script = of_recipients(server, eva="252 2.1.5 cannot verify, will try")
    (outcome,) = hand_over_by_django(outgoing(ANA, EVA))
    assert outcome.accepted == (ANA, EVA)
    assert [one.recipients for one in server.mailbox] == [(ANA, EVA)]


@pytest.mark.parametrize("said", [*ACCOUNT, UNCONFIGURED])
def test_a_fault_of_the_configuration_at_one_recipient_leaves_the_others_their_mail(
    server: LocalSparkPost, said: str
) -> None:
    server.script = of_recipients(server, eva=said)
    (outcome,) = hand_over_by_django(outgoing(ANA, EVA))
    assert outcome.accepted == (ANA,)
    assert outcome.deferred == {EVA: Reply(int(said[:3]), said[4:])}
    assert not outcome.sender_refused


@pytest.mark.parametrize(
    ("answers", "deferred", "rejected"),
    [
        ({"ana": "550 5.1.1 nobody", "eva": "550 5.1.1 nobody"}, {}, {ANA: 550, EVA: 550}),
        ({"ana": "451 4.7.1 later", "eva": "450 4.2.1 busy"}, {ANA: 451, EVA: 450}, {}),
        ({"ana": "550 5.1.1 nobody", "eva": "451 4.7.1 later"}, {EVA: 451}, {ANA: 550}),
        ({"ana": "550 5.1.1 nobody", "eva": "252 2.1.5 perhaps"}, {EVA: 252}, {ANA: 550}),
        ({"ana": "354 what", "eva": "552 5.5.3 too many"}, {ANA: 354, EVA: 552}, {}),
    ],
    ids=str,
)
def test_all_recipients_refused(
    server: LocalSparkPost, answers: dict[str, str], deferred: dict[str, int], rejected: dict[str, int]
) -> None:
    server.script = of_recipients(server, **answers)
    outcome, following = Slice(outgoing(ANA, EVA), outgoing(ZOE)).deliver()
    assert outcome.accepted == ()
    assert {name: reply.code for name, reply in outcome.deferred.items()} == deferred
    assert {name: reply.code for name, reply in outcome.rejected.items()} == rejected
    assert following.accepted == (ZOE,)
    assert [one.recipients for one in server.mailbox] == [(ZOE,)]


def test_the_accounts_fault_outweighs_the_senders_and_the_recipients(server: LocalSparkPost) -> None:
    server.script = of_recipients(server, ana="550 5.1.1 nobody", eva=UNCONFIGURED, rui="530 5.7.0 log in first")
    part = Slice(outgoing(ANA, EVA, RUI), outgoing(ZOE))
    with pytest.raises(TransportUnavailable, match="530 5.7.0 log in first"):
        part.deliver()
    assert part.pulled == 1
    server.script = of_recipients(server, ana="550 5.1.1 nobody", eva=UNCONFIGURED)
    (outcome,) = hand_over_by_django(outgoing(ANA, EVA))
    assert outcome == Outcome(outcome.key, reply=Reply(550, UNCONFIGURED[4:]), sender_refused=True)
    assert len(server.mailbox) == 0


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("421 4.3.2 closing", "421 4.3.2 closing"),
        (HANG_UP, "SMTPServerDisconnected: "),
        (SILENCE, "SMTPServerDisconnected: .*timed out"),
        (Raw(b"550 5.1.1 no"), "SMTPServerDisconnected: "),
        ("250 " + "x" * 70_000, "SMTPServerDisconnected: "),
    ],
    ids=str,
)
def test_an_end_in_the_midst_of_the_recipients(server: LocalSparkPost, said: Answer, reason: str) -> None:
    """Who was refused is; the others get the mail later, whether they had been taken, met the end, or were behind."""
    server.script = of_recipients(server, ana="550 5.1.1 nobody", rui=said)
    with override_settings(EMAIL_TIMEOUT=TIMEOUT if said is SILENCE else None):
        outcome, following = Slice(outgoing(ANA, EVA, RUI, ZOE), outgoing(ZOE)).deliver()
    assert outcome.accepted == ()
    assert outcome.rejected == {ANA: Reply(550, "5.1.1 nobody")}
    assert set(outcome.deferred) == {EVA, RUI, ZOE}
    for reply in outcome.deferred.values():
        assert re.match(reason, str(reply))
    assert not outcome.in_doubt
    assert following.accepted == (ZOE,)
    assert [one.recipients for one in server.mailbox] == [(ZOE,)]


@pytest.mark.parametrize("stage", ["data", "content"])
def test_refused_as_a_whole_after_some_recipients_were(server: LocalSparkPost, stage: str) -> None:
    """What is said of the mail concerns those who had been taken, and nobody else."""
    refused = {"eva": "451 4.7.1 later", "rui": "550 5.1.1 nobody"}
    server.script = of_recipients(server, **refused, **{stage: "554 5.7.1 spam"})
    (outcome,) = hand_over_by_django(outgoing(ANA, EVA, RUI))
    assert outcome.deferred == {EVA: Reply(451, "4.7.1 later")}
    assert outcome.rejected == {ANA: Reply(554, "5.7.1 spam"), RUI: Reply(550, "5.1.1 nobody")}
    server.script = of_recipients(server, **refused, **{stage: "451 4.3.0 busy"})
    (outcome,) = hand_over_by_django(outgoing(ANA, EVA, RUI))
    assert outcome.deferred == {ANA: Reply(451, "4.3.0 busy"), EVA: Reply(451, "4.7.1 later")}
    assert outcome.rejected == {RUI: Reply(550, "5.1.1 nobody")}
    assert len(server.mailbox) == 0


def test_doubt_after_some_recipients_were_refused(server: LocalSparkPost) -> None:
    """The account's fault at one of them does not wipe out that the others may have the mail."""
    server.script = of_recipients(server, eva="530 5.7.0 log in", rui="550 5.1.1 nobody", content=KEEP_AND_HANG_UP)
    (outcome,) = hand_over_by_django(outgoing(ANA, EVA, RUI))
    assert outcome.in_doubt
    assert set(outcome.deferred) == {ANA, EVA}
    assert set(outcome.rejected) == {RUI}
    assert [one.recipients for one in server.mailbox] == [(ANA,)]


# In the outbox.


@pytest.fixture
def outbox_server(server: LocalSparkPost, published: list[str]) -> LocalSparkPost:
    """A server to which no connection is open, and only a slice is under test: nothing is published."""
    pool.close_connections()
    server.stop()
    server.start()
    return server


LOST = "[^:]+: .*([Cc]onnection|closed).*"
NO_REPLY = "[^:]+: .*[Nn]ot an? (SMTP )?reply.*"
IN_DOUBT = re.escape(" (in doubt: the server may have taken it)")


@pytest.mark.database
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("step", "answer", "state", "attempts", "reason"),
    [
        (Step.CONTENT, None, State.SENT, 1, ""),
        (Step.CONTENT, Raw(b"250 \x00 OK \xff\r\n"), State.SENT, 1, ""),
        (Step.RCPT, "451 4.7.1 later", State.DEFERRED, 1, f"{ANA}: 451 4.7.1 later"),
        (Step.CONTENT, NO_TRANSMISSION_ID, State.DEFERRED, 1, re.escape(f"{ANA}: {NO_TRANSMISSION_ID}")),
        (Step.MAIL, HANG_UP, State.DEFERRED, 1, LOST),
        (Step.DATA, "HTTP/1.1 400 Bad Request", State.DEFERRED, 1, NO_REPLY + "HTTP/1.1 400 Bad Request.*"),
        (Step.CONTENT, KEEP_AND_HANG_UP, State.DEFERRED, 1, LOST + IN_DOUBT),
        (Step.CONTENT, Raw(b"550 5.7.1 Unc"), State.DEFERRED, 1, f"({LOST}|{NO_REPLY}){IN_DOUBT}"),
        (Step.RCPT, "550 5.1.1 nobody", State.FAILED, 1, f"{ANA}: 550 5.1.1 nobody"),
        (Step.CONTENT, JSON_ERROR, State.FAILED, 1, f"{ANA}: {JSON_ERROR}"),
        (Step.MAIL, UNCONFIGURED, State.QUEUED, 0, ""),
        (Step.CONTENT, UNCONFIGURED, State.QUEUED, 0, ""),
    ],
    ids=str,
)
def test_in_the_outbox(
    outbox_server: LocalSparkPost, step: Step, answer: Answer, state: State, attempts: int, reason: str
) -> None:
    outbox_server.script = once(outbox_server, step, answer)
    before = timezone.now()
    message = send_mail("x", "y", to=ANA)
    deliver([message])
    message.refresh_from_db()
    assert (message.state, message.attempts, message.token) == (state, attempts, "")
    assert re.fullmatch(reason, message.reason)
    if state in (State.DEFERRED, State.QUEUED):
        assert message.due_at is not None
        assert message.due_at >= before + FLOOR
    else:
        assert message.due_at is None
    known = list(TransportStatus.objects.values_list("sender_domain", "reason"))
    assert known == ([("congressy.net", UNCONFIGURED)] if state is State.QUEUED else [])


@pytest.mark.database
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("step", "answer", "reason"),
    [
        (Step.CONNECT, "554 5.3.2 closed", "The mail server cannot be used: 554 5.3.2 closed"),
        (Step.CONNECT, Raw(b"554 \x00 closed \xff\r\n"), "The mail server cannot be used: 554 closed \ufffd"),
        (
            Step.CONNECT,
            HANG_UP,
            "The mail server cannot be reached: SMTPServerDisconnected: Connection unexpectedly closed",
        ),
        (Step.STARTTLS, "454 4.7.0 not now", "The mail server cannot be used: 454 4.7.0 not now"),
        (
            Step.AUTH,
            "535 5.7.8 Sorry.",
            "The mail server refuses the login: 535 5.7.8 Sorry.. Check EMAIL_HOST_USER and EMAIL_HOST_PASSWORD "
            '(for SparkPost: SMTP_Injection and an API key with "Send via SMTP").',
        ),
        (Step.MAIL, ACCOUNT[0], f"The mail server refuses this account: {ACCOUNT[0]}"),
        (Step.CONTENT, ACCOUNT[3], f"The mail server refuses this account: {ACCOUNT[3]}"),
    ],
    ids=str,
)
def test_in_the_outbox_nothing_counts_as_an_attempt_while_the_server_is_unavailable(
    outbox_server: LocalSparkPost, step: Step, answer: Answer, reason: str
) -> None:
    outbox_server.script = once(outbox_server, step, answer)
    before = timezone.now()
    first, second = (key for to in (ANA, EVA) for key in queue(to=to))
    with pytest.raises(TransportUnavailable) as raised:
        deliver([first, second])
    assert raised.value.retry_in is not None
    assert raised.value.retry_in >= FLOOR
    assert len(outbox_server.mailbox) == 0
    for message in Message.objects.all():
        assert (message.state, message.attempts, message.reason, message.token) == (State.QUEUED, 0, "", "")
        assert message.due_at is not None
        assert message.due_at >= before + FLOOR
    (status,) = TransportStatus.objects.all()
    assert (status.sender_domain, status.reason) == ("", reason)


@pytest.mark.database
@pytest.mark.django_db
def test_in_the_outbox_only_who_was_deferred_is_sent_to_again(outbox_server: LocalSparkPost) -> None:
    outbox_server.script = of_recipients(outbox_server, eva="452 4.5.3 too many", rui="550 5.1.1 nobody")
    message = send_mail("x", "y", to=[ANA, EVA, RUI])
    deliver([message])
    message.refresh_from_db()
    assert (message.state, message.remaining) == (State.DEFERRED, [EVA])
    outbox_server.script = None
    Message.objects.update(due_at=timezone.now())
    deliver([message])
    message.refresh_from_db()
    assert (message.state, message.attempts) == (State.SENT, 2)
    assert [one.recipients for one in outbox_server.mailbox] == [(ANA,), (EVA,)]
