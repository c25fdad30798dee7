"""What every transport takes and gives: composed mails in, one outcome for each out, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from ..exceptions import account_refused_error
from ..mime.outgoing import OutgoingMail
from ..replies import Outcome, Reply, Stage, Verdict, classify


def always_true() -> bool:
    """There is no end to the time in which a mail may be begun."""
    return True


@dataclass(frozen=True, slots=True)
class ComposedMail:
    """A mail on its way into a transport."""

    #: Key of the message, handed back with the outcome.
    key: UUID
    #: The mail with its envelope.
    mail: OutgoingMail
    #: Whether it may still be begun, for a transport that has others to see to after it was pulled.
    may_begin: Callable[[], bool] = always_true


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server has said of one mail, before it is known what that means."""

    #: What was said of the mail as a whole.
    reply: Reply
    #: Where that was.
    stage: Stage
    #: What was said of single recipients.
    recipients: Mapping[str, Reply] = field(default_factory=dict)
    #: The content was sent, and no reply says what became of it.
    in_doubt: bool = False


_FAULTS = (Verdict.UNAVAILABLE, Verdict.SENDER_REFUSED)


def outcome_of(composed: ComposedMail, answer: Answer) -> Outcome:
    """Sort the recipients by what was said of each, or of the mail as a whole.

    Raises:
        TransportUnavailable: the account or the configuration is at fault, and nobody has the mail.
    """
    replies: dict[str, Reply] = {}
    verdicts: dict[str, Verdict] = {}
    for recipient in composed.mail.envelope:
        own = answer.recipients.get(recipient)
        verdict = classify(own.code, own.text, Stage.RCPT) if own is not None else Verdict.ACCEPTED
        if own is None or verdict is Verdict.ACCEPTED:
            own = answer.reply
            verdict = classify(own.code, own.text, answer.stage)
            if verdict is Verdict.ACCEPTED and answer.stage is not Stage.CONTENT:
                # The exchange ended although nobody refused anything.
                verdict = Verdict.DEFERRED
        replies[recipient] = own
        verdicts[recipient] = verdict
    # Somebody has the mail, or may have it: then the fault of the configuration is for the next mail to find.
    possibly_sent = answer.in_doubt or Verdict.ACCEPTED in verdicts.values()
    faults = {verdict: replies[recipient] for recipient, verdict in verdicts.items() if verdict in _FAULTS}
    if not possibly_sent and Verdict.UNAVAILABLE in faults:
        raise account_refused_error(faults[Verdict.UNAVAILABLE])
    if not possibly_sent and Verdict.SENDER_REFUSED in faults:
        return Outcome(composed.key, reply=faults[Verdict.SENDER_REFUSED], sender_refused=True)
    retryable = {Verdict.DEFERRED, *_FAULTS}
    return Outcome(
        composed.key,
        accepted=tuple(recipient for recipient, verdict in verdicts.items() if verdict is Verdict.ACCEPTED),
        deferred={recipient: replies[recipient] for recipient, verdict in verdicts.items() if verdict in retryable},
        rejected={
            recipient: replies[recipient] for recipient, verdict in verdicts.items() if verdict is Verdict.REJECTED
        },
        reply=answer.reply,
        in_doubt=answer.in_doubt,
    )


def no_op() -> None:
    """Nobody has anything to do before a transport waits."""


class Transport(Protocol):
    """Hands mails over."""

    def deliver(self, mails: Iterable[ComposedMail], before_waiting: Callable[[], None] = no_op) -> Iterator[Outcome]:
        """Take mails as they are composed and yield one outcome for each, in the same order unless some share a call.

        A mail is pulled only when the transport can begin with it, or asks again before it does. What has no outcome at
        the end, or when :class:`~congressy_mailer.exceptions.TransportUnavailable` is raised, was not sent.

        Args:
            mails: to be sent.
            before_waiting: called before the server is waited for any longer than it usually takes to answer: what
                has been said so far may be written down.

        Raises:
            TransportUnavailable: the server cannot be used now, through no fault of any mail.
        """
        ...

    def close(self) -> None:
        """Give up the connection, politely where possible. Never raises."""
        ...
