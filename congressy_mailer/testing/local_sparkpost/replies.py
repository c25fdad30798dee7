"""What the server answers: SparkPost's own words, addresses that misbehave by rule, and replies scripted by a test.

The words are those of the transcript in SparkPost's support article "SMTP Injection with STARTTLS using swaks".
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum

AUTH_ACCEPTED = "235 2.0.0 Authed. Go on."
#: Support article "Error messages when using SMTP": a bad key or user.
AUTH_REFUSED = "535 5.7.8 Sorry."
SENDER_ACCEPTED = "250 2.0.0 MAIL FROM accepted"
RECIPIENT_ACCEPTED = "250 2.0.0 RCPT TO accepted"
SEND_CONTENT = "354 3.0.0 continue..."
#: SparkPost's SMTP API reference allows 100 messages on a connection; RFC 5321 §3.8 has 421 for the end of a session.
TOO_MANY_MESSAGES = "421 4.7.0 Too many messages on this connection"


class Stage(Enum):
    """Where in a session a reply is given (RFC 5321 §3, RFC 3207, RFC 4954)."""

    #: The greeting.
    CONNECT = "connect"
    #: EHLO and HELO.
    HELLO = "hello"
    #: STARTTLS.
    STARTTLS = "starttls"
    #: AUTH, before any password is asked for.
    AUTH = "auth"
    #: MAIL FROM.
    MAIL = "mail"
    #: RCPT TO.
    RCPT = "rcpt"
    #: DATA, before the content.
    DATA = "data"
    #: The final dot.
    CONTENT = "content"
    #: RSET.
    RESET = "reset"
    #: QUIT.
    QUIT = "quit"


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """What is to be answered."""

    stage: Stage
    #: Number of the connection, from 1.
    connection: int
    #: Number of the mail on this connection, from 1; counted by ``MAIL FROM``.
    mail: int
    #: Envelope sender, from ``MAIL FROM`` on.
    sender: str
    #: Recipients accepted so far.
    recipients: tuple[str, ...]
    #: The recipient in question, at :attr:`Stage.RCPT`.
    recipient: str = ""
    #: The whole content, at :attr:`Stage.CONTENT`.
    content: bytes = b""


class Action(Enum):
    """What a server may do instead of answering."""

    #: Close the connection without a word.
    HANG_UP = "hang up"
    #: Accept the mail, and close the connection before saying so; at :attr:`Stage.CONTENT`.
    KEEP_AND_HANG_UP = "keep and hang up"
    #: Never answer, until the client goes or the idle time is over.
    SILENCE = "silence"


HANG_UP = Action.HANG_UP
KEEP_AND_HANG_UP = Action.KEEP_AND_HANG_UP
SILENCE = Action.SILENCE


@dataclass(frozen=True)
class Raw:
    """Bytes that are sent as they are, be they a reply or not, and what the server does then: never a word more."""

    sent: bytes
    then: Action = Action.HANG_UP


#: A reply (``"451 4.7.1 Try again later"``; of several lines, each has its code), a deed, raw bytes, or ``None`` for
#: what the server would do by itself. A reply below 400 still has the command's effect, any other has not. After 421
#: the connection is closed.
Answer = str | Action | Raw | None
#: Asked at every stage, in the server's thread. It may be a coroutine function, and wait before it answers.
Script = Callable[[Exchange], Answer | Awaitable[Answer]]

_DELAYED = re.compile(r"delay-(\d+)(?:\+.*)?")
_REFUSED = re.compile(r"refused(?:\+.*)?")


class AddressRules:
    """Recipients that are refused at once, by the name before the ``@``; anything may follow the name after a ``+``."""

    def __init__(self) -> None:
        self._refusals: Counter[str] = Counter()
        self._lock = threading.Lock()

    def reply_to(self, recipient: str) -> str | None:
        """The reply to ``RCPT TO`` for an address that follows a rule; ``None`` for any other.

        ``refused@…`` is always refused. ``delay-3@…`` is refused temporarily three times and accepted then, which the
        sender sees; what happens to a mail once it is accepted, the sender learns from events: see :mod:`.fates`.
        """
        name = recipient.rpartition("@")[0].lower()
        if _REFUSED.fullmatch(name):
            return "550 5.1.1 no such user"
        delayed = _DELAYED.fullmatch(name)
        if delayed is None:
            return None
        with self._lock:
            if self._refusals[recipient] >= int(delayed[1]):
                return None
            self._refusals[recipient] += 1
        return "451 4.7.1 Greylisted, please try again later"
