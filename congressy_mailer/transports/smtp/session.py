"""What is said on one SMTP connection: mail after mail, with as few round trips as the server allows (RFC 2920)."""

from __future__ import annotations

import os
import smtplib
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from ...replies import Outcome, Reply, Stage, error_text
from ..base import Answer, outcome_of
from ..envelope import LONE_DOT, Envelope
from .stream import ConnectionLost, Stream

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

    @property
    def has_accepted_recipient(self) -> bool:
        """There is a recipient that has not been refused."""
        return len(self.refused) < len(self.envelope.recipients)

    @property
    def retries_at_once(self) -> bool:
        """It can go to another connection as if nothing had been: this one was not new, and broke for its age."""
        return self.content_unsent and not self.first_on_connection and self.has_accepted_recipient

    def outcome(self) -> Outcome:
        """What became of the mail.

        Raises:
            TransportUnavailable: the server refuses the account, and no mail.
        """
        envelope = self.envelope
        refused = {**envelope.refused, **self.refused}
        if envelope.problem is not None or self.has_accepted_recipient:
            reply = envelope.problem or self.reply or Reply(None, "Nothing was said.")
            answer = Answer(reply, self.stage, refused, self.in_doubt)
        else:
            # With no recipient left, whatever was said of the mail was said of nothing.
            answer = Answer(next(iter(refused.values()), Reply(None, "No recipient.")), Stage.RCPT, refused)
        return outcome_of(envelope.composed, answer)


class Session:
    """An open connection, after login. When it comes to an end, every mail on it gets to know."""

    def __init__(self, connection: smtplib.SMTP) -> None:
        """Take over a connection.

        Raises:
            OSError: the server refuses EHLO, or is gone.
        """
        # Without TLS and login smtplib has not said it yet.
        connection.ehlo_or_helo_if_needed()
        assert connection.sock is not None
        self._connection = connection
        self._stream = Stream(connection.sock)
        self._pipelining = "pipelining" in connection.esmtp_features
        self._eight_bit = "8bitmime" in connection.esmtp_features
        self._pid = os.getpid()
        self._last_used = time.monotonic()
        self._mail_count = 0
        # A transaction was begun and came to nothing: RSET before the next one.
        self._reset_due = False
        # No command is unanswered, and no content awaited.
        self._idle = True

    @property
    def before_waiting(self) -> Callable[[], None]:
        """Called before the server is waited for any longer than it usually takes to answer."""
        return self._stream.before_waiting

    @before_waiting.setter
    def before_waiting(self, call: Callable[[], None]) -> None:
        self._stream.before_waiting = call

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

    def send(self, sending: Attempt | None, beginning: Attempt | None) -> None:
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
            # Most likely that it closes. In any case, no reply would be known any more for what it answers.
            self._stream.end(
                unsolicited if unsolicited.code == _CLOSING else Reply(None, f"Unsolicited reply: {unsolicited}")
            )
        content = sending.awaited_content if sending is not None else b""
        commands = self._commands(beginning.envelope) if beginning is not None and self._pipelining else []
        # RFC 2920 §3.1: the commands of the next mail may stand in one group with the end of this content.
        self._stream.write(content + b"".join(commands))
        if beginning is not None and beginning.envelope.sendable:
            self._write_out(beginning)
        if sending is not None:
            self._read_content_reply(sending)
        self._idle = beginning is None
        self._last_used = time.monotonic()

    def read_replies(self, beginning: Attempt) -> None:
        """The rest of the round trip: what is said to the envelope. Its mail is refused afterwards, or waited for."""
        if beginning.envelope.sendable:
            self._read_envelope_replies(beginning)
        self._idle = not beginning.awaited_content
        self._last_used = time.monotonic()

    def interrupt(self, sending: Attempt | None, error: BaseException) -> None:
        """A round trip was broken off from outside: content that was on its way may have arrived."""
        reply = Reply(None, f"Interrupted: {error_text(error)}")
        self._stream.end(reply)
        if sending is not None and sending.awaited_content:
            sending.reply, sending.stage, sending.in_doubt = reply, Stage.CONTENT, True

    def _commands(self, envelope: Envelope) -> list[bytes]:
        if not envelope.sendable:
            return []
        reset = [_RSET] if self._reset_due else []
        return [*reset, self._mail(envelope), *map(_rcpt, envelope.recipients.values()), _DATA]

    def _mail(self, envelope: Envelope) -> bytes:
        # RFC 6152 §3: that it may have eight bits, and need not.
        body = " BODY=8BITMIME" if self._eight_bit else ""
        return f"MAIL FROM:<{envelope.sender}>{body}\r\n".encode()

    def _write_out(self, attempt: Attempt) -> None:
        try:
            attempt.content = attempt.envelope.write_out(eight_bit=self._eight_bit)
        except Exception as error:
            # Nobody has said that this mail is wrong: it may be memory that is short.
            attempt.reply = Reply(None, f"It cannot be written out: {error_text(error)}")

    def _read_content_reply(self, attempt: Attempt) -> None:
        bytes_written = self._stream.bytes_written
        attempt.stage = Stage.CONTENT
        try:
            attempt.reply = self._read(_DONE)
        except ConnectionLost as lost:
            attempt.reply = lost.reply
            attempt.content_unsent = bytes_written == 0
            attempt.in_doubt = bytes_written >= len(attempt.awaited_content)
        attempt.awaited_content = b""

    def _read_envelope_replies(self, attempt: Attempt) -> None:
        try:
            self._exchange_envelope(attempt)
        except ConnectionLost as lost:
            if attempt.reply is None:
                attempt.reply, attempt.content_unsent = lost.reply, True

    def _exchange_envelope(self, attempt: Attempt) -> None:
        """Say the commands of an envelope, or read what is said to those that were sent together."""
        envelope = attempt.envelope
        if attempt.reply is not None and not self._pipelining:
            return
        if self._reset_due:
            self._ask(_RSET)
        sender = self._ask(self._mail(envelope))
        if _is_refusal(sender):
            attempt.reply = attempt.reply or sender
            if not self._pipelining:
                return
        self._reset_due = True
        for recipient, address in envelope.recipients.items():
            reply = self._ask(_rcpt(address))
            # After a refused MAIL it is "503 MAIL first": true, but not about the recipient.
            if _is_refusal(reply) and attempt.reply is None:
                attempt.refused[recipient] = reply
        if attempt.has_accepted_recipient or self._pipelining:
            self._handle_data_reply(attempt, self._ask(_DATA, _GO_AHEAD))

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

    def _ask(self, command: bytes, expected: int = _DONE) -> Reply:
        """The reply to a command of an envelope.

        Raises:
            ConnectionLost: there is none, or the connection is to be given up for it.
        """
        if not self._pipelining:
            self._stream.write(command)
        reply = self._read(expected)
        if reply.code == _CLOSING:
            raise ConnectionLost(reply)
        if command == _RSET and _is_refusal(reply):
            raise self._give_up(reply)
        return reply

    def _read(self, expected: int) -> Reply:
        """The next reply, which is a no or of the expected kind.

        Raises:
            ConnectionLost: there is none.
        """
        reply = self._stream.read()
        assert reply.code is not None
        if reply.code == _CLOSING:
            # RFC 5321 §3.8: whatever comes after it is about nothing.
            self._stream.end(reply)
        elif not _is_refusal(reply) and reply.code // 100 != expected:
            raise self._give_up(reply)
        return reply

    def _give_up(self, reply: Reply) -> ConnectionLost:
        unexpected = Reply(None, f"The server's reply makes no sense here: {reply}")
        self._stream.end(unexpected)
        return ConnectionLost(unexpected)


def _rcpt(address: str) -> bytes:
    return f"RCPT TO:<{address}>\r\n".encode()


def _is_refusal(reply: Reply) -> bool:
    return reply.code is not None and 400 <= reply.code < 600
