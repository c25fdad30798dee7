"""The envelopes of the mails on one SMTP connection: the groups in which their commands go out, and their replies."""

from __future__ import annotations

import time

from ...replies import Reply, Stage
from ..envelope import LONE_DOT
from . import pipelining
from .attempt import Attempt
from .commands import CLOSING, DATA, DONE, GO_AHEAD, RSET, give_up, is_refusal, mail_from, rcpt_to, read_reply
from .stream import ConnectionLost, Flow, Stream

# How many recipients are named at once to a server of which it is not known how long it takes for each.
_FIRST_GROUP = 10


class EnvelopeExchange:
    """Asks a server for each mail's sender and recipients, and remembers what that says of the server's pace."""

    def __init__(self, stream: Stream, longest_envelope: float, *, takes_groups: bool) -> None:
        """
        Args:
            stream: of the connection.
            longest_envelope: seconds after which no further recipient of a mail is asked about.
            takes_groups: the server offers ``PIPELINING``.
        """
        self._stream = stream
        self._longest_envelope = longest_envelope
        self._takes_groups = takes_groups
        # A transaction was begun and came to nothing: RSET before the next one.
        self._reset_due = False
        # Seconds that the server took for each recipient of the last mail; ``None``: not known.
        self._pace: float | None = None
        # An envelope behind a content was answered.
        self._spans_mails = False

    def commands(self, attempt: Attempt) -> list[bytes]:
        """Those that may go out in one group: up to DATA where all recipients are named in it."""
        envelope = attempt.envelope
        if not envelope.sendable:
            return []
        attempt.group = max(self._group_size(self._longest_envelope, of=len(envelope.recipients)), 1)
        reset = [RSET] if self._reset_due else []
        return [*reset, mail_from(envelope.sender), *self._group(attempt, 0, attempt.group)]

    def _group(self, attempt: Attempt, first: int, end: int) -> list[bytes]:
        """Commands for some of the recipients, and DATA behind the last of all."""
        addresses = list(attempt.envelope.recipients.values())
        return [*map(rcpt_to, addresses[first:end]), *([DATA] if end == len(addresses) else [])]

    def _group_size(self, seconds: float, *, of: int) -> int:
        """How many recipients the server answers about in this time, by what is known of it."""
        if self._pace is None:
            return min(_FIRST_GROUP, of)
        return of if self._pace * of <= seconds else max(int(seconds / self._pace), 0)

    def read_replies(self, attempt: Attempt, *, content_answered: bool) -> Flow[None]:
        """What is said to a mail's envelope; without ``PIPELINING`` its commands go out here.

        Args:
            attempt: the mail. It is refused afterwards, or its content is waited for.
            content_answered: the last content on this connection was.
        """
        # Where the content before it got no answer either, that says enough.
        tried = attempt.went_along and content_answered and not self._spans_mails
        try:
            yield from self._exchange_envelope(attempt, pipelining.PATIENCE if tried else None)
        except ConnectionLost as lost:
            if attempt.reply is None:
                attempt.reply, attempt.content_unsent = lost.reply, True
                closed = lost.reply.code == CLOSING
                attempt.closed_over_refusals = closed and bool(attempt.refused) and attempt.has_accepted_recipient
                # Silence, or a connection that was closed without a word.
                attempt.misplaced = tried and lost.reply.code is None and not attempt.sender_accepted
        if attempt.went_along and attempt.sender_accepted:
            self._spans_mails = True
        if attempt.went_along and not attempt.awaited_content and attempt.refused_for_place:
            attempt.misplaced = True

    def _exchange_envelope(self, attempt: Attempt, patience: float | None) -> Flow[None]:
        """Say the commands of an envelope, or read what is said to those that were sent together.

        Args:
            attempt: whose envelope.
            patience: seconds that the server may take for each word until it has taken a command; ``None``: as long as
                the backend lets it.
        """
        envelope = attempt.envelope
        if attempt.reply is not None and not self._takes_groups:
            return
        if self._reset_due:
            reset = yield from self._ask(RSET, patience=patience)
            if not is_refusal(reset):
                patience = None
            elif not attempt.went_along:
                raise give_up(self._stream, reset)
            else:
                attempt.reply = attempt.reply or reset
        sender = yield from self._ask(mail_from(envelope.sender), patience=patience)
        attempt.sender_accepted = not is_refusal(sender)
        if attempt.sender_accepted:
            patience = None
        else:
            attempt.reply = attempt.reply or sender
            if not self._takes_groups:
                return
        self._reset_due = True
        yield from self._ask_about_recipients(attempt, patience)

    def _ask_about_recipients(self, attempt: Attempt, patience: float | None) -> Flow[None]:
        """The recipients in groups, as many as the time for an envelope allows, and DATA for those that were taken."""
        began = time.monotonic()
        recipients = list(attempt.envelope.recipients.items())
        asked, end = 0, attempt.group if self._takes_groups else 1
        while True:
            for recipient, address in recipients[asked:end]:
                reply = yield from self._ask(rcpt_to(address), patience=patience)
                # After a refused MAIL it is "503 MAIL first": true, but not about the recipient.
                if is_refusal(reply) and attempt.reply is None:
                    attempt.refused[recipient] = reply
            asked = end
            taken = time.monotonic() - began
            self._pace = taken / asked
            if asked == len(recipients) or attempt.reply is not None:
                break
            size = self._group_size(self._longest_envelope - taken, of=len(recipients) - asked)
            if not size:
                break
            end = asked + (size if self._takes_groups else 1)
            if self._takes_groups:
                yield from self._stream.write(b"".join(self._group(attempt, asked, end)))
        if asked < len(recipients):
            if attempt.reply is not None:
                return
            attempt.left_out = tuple(recipient for recipient, _ in recipients[asked:])
            if not attempt.has_accepted_recipient:
                return
            if self._takes_groups:
                yield from self._stream.write(DATA)
        if attempt.has_accepted_recipient or self._takes_groups:
            self._handle_data_reply(attempt, (yield from self._ask(DATA, GO_AHEAD, patience)))

    def _handle_data_reply(self, attempt: Attempt, reply: Reply) -> None:
        if is_refusal(reply):
            if attempt.reply is None:
                attempt.reply, attempt.stage = reply, Stage.DATA
            return
        self._reset_due = False
        if attempt.reply is None:
            # RFC 2920 §3.1: with no recipient left it waits all the same, and gets what is nothing to nobody.
            attempt.awaited_content = attempt.content if attempt.has_accepted_recipient else (LONE_DOT,)
        else:
            # Yes to DATA, and nothing to send: a dot might send an empty mail, and nothing else leads back.
            self._stream.end(Reply(None, "The connection was closed to take back a DATA."))

    def _ask(self, command: bytes, expected: int = DONE, patience: float | None = None) -> Flow[Reply]:
        """The reply to a command of an envelope, for which the server may take less time than usual.

        Raises:
            ConnectionLost: there is none, or the connection is to be given up for it.
        """
        if not self._takes_groups:
            yield from self._stream.write(command)
        reply = yield from read_reply(self._stream, expected, patience)
        if reply.code == CLOSING:
            raise ConnectionLost(reply)
        return reply
