"""What a mail server may answer, at every step of the exchange, and what becomes of the mail: the table of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any
from uuid import uuid4

from congressy_mailer.mime.outgoing import OutgoingMail
from congressy_mailer.replies import Outcome, Reply
from congressy_mailer.testing.local_sparkpost.replies import HANG_UP, KEEP_AND_HANG_UP, SILENCE, Exchange, Raw, Stage
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from congressy_mailer.transports.base import ComposedMail, Transport
from congressy_mailer.transports.django_backend import DjangoTransport
from congressy_mailer.transports.host_backends import open_backend

Answer = Any

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
