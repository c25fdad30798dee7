"""Rules for the meaning of SMTP replies, and for the wait before the next attempt.

Answers of SparkPost's HTTP API are judged in ``sparkpost/answers.py``, exceptions of other providers' backends in
``transports/http_answers.py``; both come to the same verdicts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from uuid import UUID

from .credentials import without_credentials

# Seconds: no server means more, and some numbers are beyond what a clock can count.
_MAX_RETRY_AFTER = 86400.0

# RFC 5321 §4.5.3.1.5 gives a line of a reply 512 octets; longer texts are cut.
_LONGEST_TEXT = 1000


class Stage(Enum):
    """Step of the SMTP exchange at which a reply was given (RFC 5321 §3)."""

    #: Connecting, EHLO and STARTTLS, before any mail.
    CONNECT = "connect"
    #: Logging in (RFC 4954).
    AUTH = "auth"
    #: MAIL FROM.
    MAIL = "mail"
    #: RCPT TO, about one recipient.
    RCPT = "rcpt"
    #: DATA, before its content.
    DATA = "data"
    #: After the final dot.
    CONTENT = "content"


class Verdict(Enum):
    """Meaning of a reply."""

    #: Accepted.
    ACCEPTED = "accepted"
    #: To be tried again later.
    DEFERRED = "deferred"
    #: Never to be tried again.
    REJECTED = "rejected"
    #: The account may not send for the domain in ``From``. Mail of that domain waits, and operators are alerted.
    SENDER_REFUSED = "sender refused"
    #: The server or the configuration is at fault, and no mail. All mail waits, and operators are alerted.
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's reply, or what stood in its place."""

    #: The three-digit code; ``None`` where no reply was read.
    code: int | None
    #: The text behind it, as people can read it and every database stores it: on one line, nothing invisible.
    text: str

    def __post_init__(self) -> None:
        # Here, so that no transport can forget it.
        object.__setattr__(self, "text", printable_text(self.text))

    def __str__(self) -> str:
        return f"{self.code} {self.text}".rstrip() if self.code is not None else self.text


def printable_text(text: bytes | str) -> str:
    """A server's words as people can read them and every database stores them, without passwords that they repeat.

    PostgreSQL takes no NUL: a mail could not be recorded as accepted, and would be sent again.
    """
    # Before anything is cut off: what is left of a password would not be known any more.
    decoded = without_credentials(text.decode(errors="replace") if isinstance(text, bytes) else text)
    if not decoded.isprintable():
        decoded = "".join(character if character.isprintable() else " " for character in decoded)
    return " ".join(decoded.split())[:_LONGEST_TEXT]


def error_text(error: BaseException) -> str:
    """Type and words of an exception, as :func:`printable_text` has them; also where its ``__str__`` raises."""
    try:
        words = str(error)
    except Exception:
        words = "(it has no text)"
    return printable_text(f"{type(error).__name__}: {words}")


def retry_after_seconds(retry_after: str | None) -> float | None:
    """How long a server wants to be left alone, by the ``Retry-After`` of HTTP (RFC 9110 §10.2.3).

    Args:
        retry_after: a number of seconds or a date.

    Returns:
        Seconds, at most a day; ``None`` where there is nothing that can be read.
    """
    if retry_after is None:
        return None
    try:
        if retry_after.isdigit():
            seconds = float(retry_after)
        else:
            seconds = (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds()
    except (OverflowError, TypeError, ValueError):
        return None
    return min(max(0.0, seconds), _MAX_RETRY_AFTER)


# Authentication required, too weak, failed, encryption needed (RFC 4954 §6): about the account.
_ACCOUNT_CODES = frozenset({530, 534, 535, 538})

#: Command unrecognized, not implemented, out of order (RFC 5321 §4.2.2). What a server says so to before the content it
#: has not understood or not expected: that is about this connection, and says nothing of the mail or its recipients.
SESSION_CODES = frozenset({500, 502, 503})

# RFC 5321 §4.5.3.1.10: where it stands for too many recipients, a client should take it for 452. The others are sent
# to first, and this one alone.
_STORAGE_EXCEEDED = 552

# SparkPost, "Error messages when using SMTP": the domain of the From header is not set up in the account.
_SENDING_DOMAIN = re.compile(r"unconfigured sending domain", re.IGNORECASE)


# What servers say to a client that sends too fast or over too many connections at a time: Postfix ("too much mail
# from", "too many connections from"), Amazon SES ("Throttling failure: Maximum sending rate exceeded"), Gmail and its
# relay ("an unusual rate of unsolicited mail", "Peak SMTP relay limit exceeded"), Exchange Online ("Concurrent
# connections limit exceeded"), Yahoo ("unexpected volume"), and any that say "rate limit" or "throttled". Not "too many
# recipients" or "too many errors", which are about one mail or one connection.
_TOO_FAST = re.compile(
    r"""
      rate.?limit | throttl | slow(ing)?\ down | sending\ too\ | too\ (fast|quickly|frequently)
    | \brate\b .{0,40} \bexceed | \bexceed .{0,60} \brate\b | rate.controlled
    | too\ many\ ((concurrent|simultaneous|parallel|open|new|smtp|tls)\ )*
      (connections?|sessions?|messages?|mails?|e-?mails?|requests?)\b
    | too\ many\ recipients\ from | too\ much\ (mail|e-?mail|traffic)
    | (unusual|unexpected|excessive)\ (rate|volume)
    | (messages|mails|e-?mails|requests)\ per\ (second|minute|hour)
    | concurrent\ (smtp\ )?(connections|sessions) .{0,60} (limit|exceed)
    | (connection|session|relay)s?\ limit\ (is\ |was\ |has\ been\ )?(exceeded|reached)
    | reached\ its\ limit\ for\ processing\ requests
    """,
    re.IGNORECASE | re.VERBOSE,
)

# The same words about a new sender, or about one mailbox that gets too much mail: no reason to slow down.
_NOT_OUR_SPEED = re.compile(r"gr[ae]y.?list|user you are trying to contact|mailbox", re.IGNORECASE)


def asks_to_slow_down(reply: Reply) -> bool:
    """Whether a temporary refusal is for the speed or the number of connections that mail is sent with.

    SMTP has no code for that (RFC 5321 §4.2.3, RFC 3463 §3): servers use 421, 432, 450, 451, 452 and 454, and tell the
    reason in words only. In doubt it is no: the mail is tried again in any case.
    """
    if reply.code is None or not 400 <= reply.code < 500:
        return False
    return _TOO_FAST.search(reply.text) is not None and _NOT_OUR_SPEED.search(reply.text) is None


# What servers say of every recipient that is not their own to a client without a login: Postfix ("Relay access
# denied"), Exim ("relay not permitted"), sendmail ("Relaying denied"), Exchange ("Unable to relay"), and others that
# ask for authentication without the code for it.
_ASKS_FOR_LOGIN = re.compile(
    r"relay|authenticat|\bauth\b|\blog ?in\b|not allowed to send|5\.7\.(0|57)\b", re.IGNORECASE
)


def asks_for_login(reply: Reply) -> bool:
    """Whether a refusal for good sounds as if it were for a login that is missing."""
    return reply.code is not None and reply.code >= 500 and _ASKS_FOR_LOGIN.search(reply.text) is not None


def classify(code: int | None, text: str, stage: Stage) -> Verdict:
    """What a reply means for the mail, or for the recipient where ``stage`` is :attr:`Stage.RCPT`.

    Args:
        code: three-digit reply code; ``None`` for silence, a timeout or a lost connection.
        text: the reply's text.
        stage: where it was given.
    """
    if stage in (Stage.CONNECT, Stage.AUTH):
        return Verdict.ACCEPTED if code is not None and 200 <= code < 300 else Verdict.UNAVAILABLE
    if code is None:
        return Verdict.DEFERRED
    if code in _ACCOUNT_CODES:
        return Verdict.UNAVAILABLE
    if code >= 400 and _SENDING_DOMAIN.search(text):
        return Verdict.SENDER_REFUSED
    if code // 100 == (3 if stage is Stage.DATA else 2):
        return Verdict.ACCEPTED
    if code == _STORAGE_EXCEEDED and stage is Stage.RCPT:
        return Verdict.DEFERRED
    if code in SESSION_CODES and stage is not Stage.CONTENT:
        return Verdict.DEFERRED
    if 500 <= code < 600:
        return Verdict.REJECTED
    # 4xx, codes that RFC 5321 §4.2.1 does not know, and those it does not know here, such as 354 for a sender: giving
    # up is what cannot be undone.
    return Verdict.DEFERRED


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one mail, recipient by recipient: every envelope recipient is in exactly one of the three."""

    #: Key of the message.
    key: UUID
    #: Recipients that the server took the mail for.
    accepted: tuple[str, ...] = ()
    #: Recipients to be tried again, with the reason.
    deferred: Mapping[str, Reply] = field(default_factory=dict)
    #: Recipients never to be tried again, with the reason.
    rejected: Mapping[str, Reply] = field(default_factory=dict)
    #: The server's last word about the mail as a whole.
    reply: Reply = field(default_factory=lambda: Reply(None, ""))
    #: The account may not send for the sender's domain: the fault of the configuration, and no mail's attempt. The
    #: recipients are in none of the three.
    sender_refused: bool = False
    #: The server may have taken the mail although no reply said so.
    in_doubt: bool = False
    #: Some recipients have the mail, and the server was not asked about others yet: they are next, and at once.
    continues: bool = False
    #: The time that Celery allows was over before the content. Nothing more is to be begun.
    interrupted: bool = False
    #: The server has refused all of it before the content, and to this account without a login, it seems, it would
    #: refuse any mail. Whether that is so the other mails tell: where it is not, ``rejected`` holds.
    perhaps_no_login: bool = False


def with_ascii_text(reply: Reply) -> Reply:
    """The same with every character that is not ASCII written as an escape."""
    return replace(reply, text=reply.text.encode("ascii", "backslashreplace").decode())


def with_ascii_replies(outcome: Outcome) -> Outcome:
    """The same with every character of the replies that is not ASCII written as an escape."""
    return replace(
        outcome,
        deferred={recipient: with_ascii_text(reply) for recipient, reply in outcome.deferred.items()},
        rejected={recipient: with_ascii_text(reply) for recipient, reply in outcome.rejected.items()},
        reply=with_ascii_text(outcome.reply),
    )
