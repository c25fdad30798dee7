"""What is said on one SMTP connection: mail after mail, with as few round trips as the server allows (RFC 2920)."""

from __future__ import annotations

import os
import smtplib
import socket
import time
from contextlib import suppress

from ...replies import Reply, Stage, error_text
from ..envelope import Envelope
from .attempt import Attempt
from .commands import CLOSING, DONE, read_reply
from .envelopes import EnvelopeExchange
from .stream import ConnectionLost, Flow, Stream, with_end

#: SparkPost's SMTP API reference: up to 100 messages, then the client should open a new connection.
MAILS_PER_CONNECTION = 100

#: Seconds. SparkPost's SMTP API reference: the server closes after a minute.
LONGEST_IDLE = 50.0

# Seconds that a server gets to say goodbye. Nothing depends on what it says.
_CLOSE_TIMEOUT = 5.0


class Session:
    """An open connection, after login. When it ends, each attempt on it is given the reason."""

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
        # No command is unanswered, and no content awaited.
        self._idle = True
        self._envelopes = EnvelopeExchange(self._stream, longest_envelope, takes_groups=self._pipelining)
        # The last content was answered.
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

        :meth:`read_replies` must follow if there is a ``beginning``, which alone is delayed by work between the two.

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
            # Most likely the server is closing. In any case, later replies could not be matched to their commands.
            self._stream.end(
                unsolicited if unsolicited.code == CLOSING else Reply(None, f"Unsolicited reply: {unsolicited}")
            )
        content = sending.awaited_content if sending is not None else ()
        if beginning is not None and beginning.envelope.sendable:
            beginning.went_along = sending is not None and self._pipelining
        commands = self._envelopes.commands(beginning) if beginning is not None and self._pipelining else []
        # RFC 2920 §3.1: the commands of the next mail may stand in one group with the end of this content.
        yield from self._stream.write(*with_end(content, b"".join(commands)))
        if beginning is not None and beginning.envelope.sendable:
            self._write_out(beginning)
        if sending is not None:
            yield from self._read_content_reply(sending)
        self._idle = beginning is None
        self._last_used = time.monotonic()

    def read_replies(self, beginning: Attempt) -> Flow[None]:
        """The rest of the round trip: what is said to the envelope. Its mail is refused afterwards, or waited for."""
        if beginning.envelope.sendable:
            yield from self._envelopes.read_replies(beginning, content_answered=self._content_answered)
        self._idle = not beginning.awaited_content
        self._last_used = time.monotonic()

    def interrupt(self, sending: Attempt | None, beginning: Attempt | None, error: BaseException) -> None:
        """A round trip was broken off from outside: the content of ``sending`` may have arrived."""
        reply = Reply(None, f"Interrupted: {error_text(error)}")
        self._stream.end(reply)
        if sending is not None and sending.awaited_content:
            sending.reply, sending.stage, sending.in_doubt = reply, Stage.CONTENT, True
        if beginning is not None:
            beginning.reply, beginning.stage = reply, Stage.MAIL

    def _write_out(self, attempt: Attempt) -> None:
        try:
            attempt.content = attempt.envelope.content_parts()
        except Exception as error:
            # Nobody has said that this mail is wrong: it may be memory that is short.
            attempt.reply = Reply(None, f"It cannot be written out: {error_text(error)}")

    def _read_content_reply(self, attempt: Attempt) -> Flow[None]:
        bytes_written = self._stream.bytes_written
        attempt.stage = Stage.CONTENT
        self._content_answered = False
        try:
            attempt.reply = yield from read_reply(self._stream, DONE)
            self._content_answered = True
        except ConnectionLost as lost:
            attempt.reply = lost.reply
            attempt.content_unsent = bytes_written == 0
            attempt.in_doubt = bytes_written >= sum(map(len, attempt.awaited_content))
        attempt.content = attempt.awaited_content = ()
