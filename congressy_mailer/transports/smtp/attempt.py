"""One mail on one SMTP connection: what the server has said of it so far, and what that makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ...replies import SESSION_CODES, Outcome, Reply, Stage
from ..base import Answer, outcome_of
from ..envelope import Envelope
from . import pipelining
from .commands import CLOSING

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
    content: Sequence[bytes] = ()
    #: What the server waits for, once it has said so; empty before and after.
    awaited_content: Sequence[bytes] = ()
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

    @property
    def refused_for_place(self) -> bool:
        """Perhaps the envelope was refused for where it stood: behind the content of the mail before."""
        if any(reply.code in SESSION_CODES for reply in self.refused.values()):
            return True
        reply = self.reply
        if reply is None or reply.code is None or reply.code == CLOSING:
            return False
        if self.stage is Stage.MAIL:
            return reply.code >= 500 or pipelining.refuses_order(reply)
        # With no recipient left it is out of order indeed.
        return self.has_accepted_recipient and pipelining.refuses_order(reply)

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
