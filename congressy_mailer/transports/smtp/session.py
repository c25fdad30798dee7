"""What is said on one SMTP connection: mail after mail, with as few round trips as the server allows (RFC 2920)."""

from __future__ import annotations

import os
import smtplib
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace

from ...replies import SESSION_CODES, Outcome, Reply, Stage, error_text
from ..base import Answer, outcome_of
from ..envelope import LONE_DOT, Envelope
from . import pipelining
from .stream import ConnectionLost, Flow, Stream

#: SparkPost's SMTP API reference: up to 100 messages, then the client should open a new connection.
MAILS_PER_CONNECTION = 100

#: Seconds. SparkPost's SMTP API reference: the server closes after a minute.
LONGEST_IDLE = 50.0

# Seconds that a server gets to say goodbye. Nothing depends on what it says.
_CLOSE_TIMEOUT = 5.0

_RSET = b"RSET\r\n"
_DATA = b"DATA\r\n"

# What a command is answered with when it has worked (RFC 5321 §4.2.1), in hundreds.
_DONE = 2
_GO_AHEAD = 3

# "Service not available, closing transmission channel" (RFC 5321 §4.2.3).
_CLOSING = 421


# How many recipients are named at once to a server of which it is not known how long it takes for each.
_FIRST_GROUP = 10

_LEFT_OUT = Reply(None, "Not asked about yet: the server takes long for each recipient.")


@dataclass(slots=True)
class Attempt:
    """One mail on one connection, and what the server has said of it so far."""

    envelope: Envelope
    #: No mail was begun on this connection before it.
    first_on_connection: bool
    #: What was said of single recipients, where it was no.
    refused: dict[str, Reply] = field(default_factory=dict)
    #: What was said of the mail as a whole.
    reply: Reply | None = None
    #: Where that was said.
    stage: Stage = Stage.MAIL
    #: Written out.
    content: bytes = b""
    #: What the server waits for, once it has said so; empty before and after.
    awaited_content: bytes = b""
    #: The connection was lost before anything of the content was sent.
    content_unsent: bool = False
    #: The last byte of the content was sent, and no reply to it was read.
    in_doubt: bool = False
    #: How many recipients the first group of commands names.
    group: int = 0
    #: Recipients that the server was not asked about, since it takes long for each.
    left_out: tuple[str, ...] = ()
    #: Its envelope went out in one group with the content of the mail before.
    went_along: bool = False
    #: The server has taken ``MAIL FROM``.
    sender_accepted: bool = False
    #: A refusal for good that came before any of the content was sent, after the server had asked for it.
    refused_unasked: Reply | None = None
    #: It is to be begun again on another connection.
    begins_again: bool = False
    #: The server has closed the connection over recipients that it refused, before it was asked about all of them.
    closed_over_refusals: bool = False
    #: The envelope's replies are caused by the command before it, as far as is known.
    misplaced: bool = False

    @property
    def has_accepted_recipient(self) -> bool:
        """There is a recipient that has not been refused."""
        return len(self.refused) + len(self.left_out) < len(self.envelope.recipients)

    @property
    def retries_at_once(self) -> bool:
        """It can be begun again as if nothing had been.

        Its connection was not new, and broke for its age; or its envelope was refused where it stood, and may be taken
        by itself.
        """
        broke = self.content_unsent and not self.first_on_connection and self.has_accepted_recipient
        return broke or self.misplaced or self.begins_again or self.closed_over_refusals

    @property
    def envelope_again(self) -> Envelope:
        """What is begun again: without the recipients over which the server would close again."""
        return self.envelope.without(self.refused) if self.closed_over_refusals else self.envelope

    @property
    def first_refusal(self) -> Reply:
        """What was said of the first recipient that was refused, or of the envelope."""
        return next(iter(self.refused.values()), self.reply or Reply(None, "Nothing was said."))

    def settle_unasked(self, earlier: Reply | None) -> None:
        """Decide what a refusal means that came before the content: it may be about the connection, or about the mail.

        Args:
            earlier: what the server has said in place of waiting for this content on another connection. The same code
                again is about the mail.
        """
        assert self.refused_unasked is not None
        self.begins_again = earlier is None
        if earlier is not None and earlier.code == self.refused_unasked.code:
            self.reply, self.content_unsent = self.refused_unasked, False

    def outcome(self, *, logged_in: bool = True) -> Outcome:
        """What became of the mail.

        Args:
            logged_in: the account has a login.

        Raises:
            TransportUnavailable: the server refuses the account, and no mail.
        """
        envelope = self.envelope
        refused = {**envelope.refused, **self.refused, **dict.fromkeys(self.left_out, _LEFT_OUT)}
        if envelope.problem is not None or self.has_accepted_recipient:
            reply = envelope.problem or self.reply or Reply(None, "Nothing was said.")
            answer = Answer(reply, self.stage, refused, self.in_doubt)
        else:
            # With no recipient left, the reply to the content concerns no mail.
            refusals = (*self.refused.values(), *envelope.refused.values(), Reply(None, "No recipient."))
            answer = Answer(refusals[0], Stage.RCPT, refused)
        outcome = outcome_of(envelope.composed, answer)
        if self.left_out and outcome.accepted:
            outcome = replace(outcome, continues=True)
        if logged_in or envelope.problem is not None or not (self.refused or self.reply) or self.stage is Stage.CONTENT:
            return outcome
        refused_by_server = not (outcome.accepted or outcome.deferred or outcome.sender_refused)
        return replace(outcome, perhaps_no_login=refused_by_server)


class Session:
    """An open connection, after login. When it comes to an end, every mail on it gets to know."""

    def __init__(self, connection: smtplib.SMTP, longest_envelope: float) -> None:
        """Take over a connection.

        Args:
            connection: opened, and logged in.
            longest_envelope: seconds after which no further recipient of a mail is asked about.

        Raises:
            OSError: the server refuses EHLO, or is gone.
        """
        # Without TLS and login smtplib has not said it yet.
        connection.ehlo_or_helo_if_needed()
        assert connection.sock is not None
        self._connection = connection
        self._stream = Stream(connection.sock)
        self._pipelining = "pipelining" in connection.esmtp_features
        self._pid = os.getpid()
        self._last_used = time.monotonic()
        self._mail_count = 0
        # A transaction was begun and came to nothing: RSET before the next one.
        self._reset_due = False
        # No command is unanswered, and no content awaited.
        self._idle = True
        self._longest_envelope = longest_envelope
        # Seconds that the server took for each recipient of the last mail; ``None``: not known.
        self._pace: float | None = None
        # An envelope behind a content was answered.
        self._spans_mails = False
        # The last content was.
        self._content_answered = False

    @property
    def socket(self) -> socket.socket:
        """What is waited for."""
        return self._stream.socket

    @property
    def has_room(self) -> bool:
        """Another mail may be begun on it."""
        return self._mail_count < MAILS_PER_CONNECTION and not self._stream.ended

    @property
    def usable(self) -> bool:
        """A mail can be begun on it now."""
        return (
            self.has_room
            and self._idle
            and self._pid == os.getpid()
            and time.monotonic() - self._last_used < LONGEST_IDLE
            and self._stream.unsolicited_reply() is None
        )

    def prepare_close(self) -> None:
        """Prepare for the backend's goodbye: a short one, or none where the server would not understand it."""
        if self._pid == os.getpid() and self._idle and not self._stream.ended:
            assert self._connection.sock is not None
            self._connection.sock.settimeout(_CLOSE_TIMEOUT)
        else:
            # After a fork the other process goes on using it: this closes our end only, and says nothing.
            with suppress(Exception):
                self._connection.close()

    def begin(self, envelope: Envelope) -> Attempt:
        """Count a mail in."""
        attempt = Attempt(envelope, first_on_connection=self._mail_count == 0)
        if envelope.sendable:
            self._mail_count += 1
        return attempt

    def send(self, sending: Attempt | None, beginning: Attempt | None) -> Flow[None]:
        """One round trip, up to its first reply: the content of a mail that the server waits for goes out with the
        envelope of the next, and what is said of that content is read.

        :meth:`read_replies` must follow where there is a ``beginning``. Only that one is delayed by work between them.

        Args:
            sending: its content goes out. It has its last reply afterwards.
            beginning: its envelope goes out, and its content is written out while the server works. Without
                ``PIPELINING`` the envelope waits for :meth:`read_replies`.
        """
        self._idle = False
        unsolicited = self._stream.unsolicited_reply()
        if unsolicited is not None:
            code = unsolicited.code
            if sending is not None and sending.has_accepted_recipient and code is not None and 500 <= code < 600:
                sending.refused_unasked = unsolicited
            # Most likely that it closes. In any case, no reply would be known any more for what it answers.
            self._stream.end(
                unsolicited if unsolicited.code == _CLOSING else Reply(None, f"Unsolicited reply: {unsolicited}")
            )
        content = sending.awaited_content if sending is not None else b""
        if beginning is not None and beginning.envelope.sendable:
            beginning.went_along = sending is not None and self._pipelining
        commands = self._commands(beginning) if beginning is not None and self._pipelining else []
        # RFC 2920 §3.1: the commands of the next mail may stand in one group with the end of this content.
        yield from self._stream.write(content + b"".join(commands))
        if beginning is not None and beginning.envelope.sendable:
            self._write_out(beginning)
        if sending is not None:
            yield from self._read_content_reply(sending)
        self._idle = beginning is None
        self._last_used = time.monotonic()

    def read_replies(self, beginning: Attempt) -> Flow[None]:
        """The rest of the round trip: what is said to the envelope. Its mail is refused afterwards, or waited for."""
        if beginning.envelope.sendable:
            yield from self._read_envelope_replies(beginning)
        self._idle = not beginning.awaited_content
        self._last_used = time.monotonic()

    def interrupt(self, sending: Attempt | None, beginning: Attempt | None, error: BaseException) -> None:
        """A round trip was broken off from outside: content on its way may have arrived, and no other has been sent."""
        reply = Reply(None, f"Interrupted: {error_text(error)}")
        self._stream.end(reply)
        if sending is not None and sending.awaited_content:
            sending.reply, sending.stage, sending.in_doubt = reply, Stage.CONTENT, True
        if beginning is not None:
            beginning.reply, beginning.stage = reply, Stage.MAIL

    def _commands(self, attempt: Attempt) -> list[bytes]:
        envelope = attempt.envelope
        if not envelope.sendable:
            return []
        attempt.group = max(self._group_size(self._longest_envelope, of=len(envelope.recipients)), 1)
        reset = [_RSET] if self._reset_due else []
        return [*reset, _mail(envelope.sender), *self._group(attempt, 0, attempt.group)]

    def _group(self, attempt: Attempt, first: int, end: int) -> list[bytes]:
        """Commands for some of the recipients, and DATA behind the last of all."""
        addresses = list(attempt.envelope.recipients.values())
        return [*map(_rcpt, addresses[first:end]), *([_DATA] if end == len(addresses) else [])]

    def _group_size(self, seconds: float, *, of: int) -> int:
        """How many recipients the server answers about in this time, by what is known of it."""
        if self._pace is None:
            return min(_FIRST_GROUP, of)
        return of if self._pace * of <= seconds else max(int(seconds / self._pace), 0)

    def _write_out(self, attempt: Attempt) -> None:
        try:
            attempt.content = attempt.envelope.write_out()
        except Exception as error:
            # Nobody has said that this mail is wrong: it may be memory that is short.
            attempt.reply = Reply(None, f"It cannot be written out: {error_text(error)}")

    def _read_content_reply(self, attempt: Attempt) -> Flow[None]:
        bytes_written = self._stream.bytes_written
        attempt.stage = Stage.CONTENT
        self._content_answered = False
        try:
            attempt.reply = yield from self._read(_DONE)
            self._content_answered = True
        except ConnectionLost as lost:
            attempt.reply = lost.reply
            attempt.content_unsent = bytes_written == 0
            attempt.in_doubt = bytes_written >= len(attempt.awaited_content)
        attempt.awaited_content = b""

    def _read_envelope_replies(self, attempt: Attempt) -> Flow[None]:
        # Where the content before it got no answer either, that says enough.
        tried = attempt.went_along and self._content_answered and not self._spans_mails
        try:
            yield from self._exchange_envelope(attempt, pipelining.PATIENCE if tried else None)
        except ConnectionLost as lost:
            if attempt.reply is None:
                attempt.reply, attempt.content_unsent = lost.reply, True
                closed = lost.reply.code == _CLOSING
                attempt.closed_over_refusals = closed and bool(attempt.refused) and attempt.has_accepted_recipient
                # Silence, or a connection that was closed without a word.
                attempt.misplaced = tried and lost.reply.code is None and not attempt.sender_accepted
        if attempt.went_along and attempt.sender_accepted:
            self._spans_mails = True
        if attempt.went_along and not attempt.awaited_content and _was_misplaced(attempt):
            attempt.misplaced = True

    def _exchange_envelope(self, attempt: Attempt, patience: float | None) -> Flow[None]:
        """Say the commands of an envelope, or read what is said to those that were sent together.

        Args:
            attempt: whose envelope.
            patience: seconds that the server may take for each word until it has taken a command; ``None``: as long as
                the backend lets it.
        """
        envelope = attempt.envelope
        if attempt.reply is not None and not self._pipelining:
            return
        if self._reset_due:
            reset = yield from self._ask(_RSET, patience=patience)
            if not _is_refusal(reset):
                patience = None
            elif not attempt.went_along:
                raise self._give_up(reset)
            else:
                attempt.reply = attempt.reply or reset
        sender = yield from self._ask(_mail(envelope.sender), patience=patience)
        attempt.sender_accepted = not _is_refusal(sender)
        if attempt.sender_accepted:
            patience = None
        else:
            attempt.reply = attempt.reply or sender
            if not self._pipelining:
                return
        self._reset_due = True
        yield from self._ask_about_recipients(attempt, patience)

    def _ask_about_recipients(self, attempt: Attempt, patience: float | None) -> Flow[None]:
        """The recipients in groups, as many as the time for an envelope allows, and DATA for those that were taken."""
        began = time.monotonic()
        recipients = list(attempt.envelope.recipients.items())
        asked, end = 0, attempt.group if self._pipelining else 1
        while True:
            for recipient, address in recipients[asked:end]:
                reply = yield from self._ask(_rcpt(address), patience=patience)
                # After a refused MAIL it is "503 MAIL first": true, but not about the recipient.
                if _is_refusal(reply) and attempt.reply is None:
                    attempt.refused[recipient] = reply
            asked = end
            taken = time.monotonic() - began
            self._pace = taken / asked
            if asked == len(recipients) or attempt.reply is not None:
                break
            size = self._group_size(self._longest_envelope - taken, of=len(recipients) - asked)
            if not size:
                break
            end = asked + (size if self._pipelining else 1)
            if self._pipelining:
                yield from self._stream.write(b"".join(self._group(attempt, asked, end)))
        if asked < len(recipients):
            if attempt.reply is not None:
                return
            attempt.left_out = tuple(recipient for recipient, _ in recipients[asked:])
            if not attempt.has_accepted_recipient:
                return
            if self._pipelining:
                yield from self._stream.write(_DATA)
        if attempt.has_accepted_recipient or self._pipelining:
            self._handle_data_reply(attempt, (yield from self._ask(_DATA, _GO_AHEAD, patience)))

    def _handle_data_reply(self, attempt: Attempt, reply: Reply) -> None:
        if _is_refusal(reply):
            if attempt.reply is None:
                attempt.reply, attempt.stage = reply, Stage.DATA
            return
        self._reset_due = False
        if attempt.reply is None:
            # RFC 2920 §3.1: with no recipient left it waits all the same, and gets what is nothing to nobody.
            attempt.awaited_content = attempt.content if attempt.has_accepted_recipient else LONE_DOT
        else:
            # Yes to DATA, and nothing to send: a dot might send an empty mail, and nothing else leads back.
            self._stream.end(Reply(None, "The connection was closed to take back a DATA."))

    def _ask(self, command: bytes, expected: int = _DONE, patience: float | None = None) -> Flow[Reply]:
        """The reply to a command of an envelope, for which the server may take less time than usual.

        Raises:
            ConnectionLost: there is none, or the connection is to be given up for it.
        """
        if not self._pipelining:
            yield from self._stream.write(command)
        reply = yield from self._read(expected, patience)
        if reply.code == _CLOSING:
            raise ConnectionLost(reply)
        return reply

    def _read(self, expected: int, patience: float | None = None) -> Flow[Reply]:
        """The next reply, which is a no or of the expected kind.

        Raises:
            ConnectionLost: there is none.
        """
        reply = yield from self._stream.read(patience)
        assert reply.code is not None
        if reply.code == _CLOSING:
            # RFC 5321 §3.8: replies after it concern no mail.
            self._stream.end(reply)
        elif not _is_refusal(reply) and reply.code // 100 != expected:
            raise self._give_up(reply)
        return reply

    def _give_up(self, reply: Reply) -> ConnectionLost:
        unexpected = Reply(None, f"The server's reply makes no sense here: {reply}")
        self._stream.end(unexpected)
        return ConnectionLost(unexpected)


def _mail(sender: str) -> bytes:
    return f"MAIL FROM:<{sender}>\r\n".encode()


def _rcpt(address: str) -> bytes:
    return f"RCPT TO:<{address}>\r\n".encode()


def _was_misplaced(attempt: Attempt) -> bool:
    """Whether an envelope that went along was refused for where it stood, perhaps."""
    if any(reply.code in SESSION_CODES for reply in attempt.refused.values()):
        return True
    reply = attempt.reply
    if reply is None or reply.code is None or reply.code == _CLOSING:
        return False
    if attempt.stage is Stage.MAIL:
        return reply.code >= 500 or pipelining.refuses_order(reply)
    # With no recipient left it is out of order indeed.
    return attempt.has_accepted_recipient and pipelining.refuses_order(reply)


def _is_refusal(reply: Reply) -> bool:
    return reply.code is not None and 400 <= reply.code < 600
