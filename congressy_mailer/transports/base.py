"""What every transport takes and gives: composed mails in, one outcome for each out, in order."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, Self
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
    #: Asked before the content leaves, where what comes before it may take long: false where another worker has the
    #: message now. It has no outcome then.
    may_send: Callable[[], bool] = always_true


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
        TransportUnavailable: the account or the configuration is at fault, and no recipient has the mail.
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
                # The exchange ended although nothing was refused.
                verdict = Verdict.DEFERRED
        replies[recipient] = own
        verdicts[recipient] = verdict
    # A recipient has the mail, or may have it: the next mail will report the fault of the configuration.
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
        # Those that were not asked about come first the next time: the server may stop at the same place again.
        deferred={
            recipient: replies[recipient]
            for recipient in sorted(verdicts, key=partial(_was_answered, answer))
            if verdicts[recipient] in retryable
        },
        rejected={
            recipient: replies[recipient] for recipient, verdict in verdicts.items() if verdict is Verdict.REJECTED
        },
        reply=answer.reply,
        in_doubt=answer.in_doubt,
    )


def _was_answered(answer: Answer, recipient: str) -> bool:
    own = answer.recipients.get(recipient)
    return own is not None and own.code is not None


def no_op() -> None:
    """The hook for a source without work to do before a transport waits."""


class MailSource(Iterator[ComposedMail]):
    """Mails that are composed as they are asked for, for a transport that plans ahead."""

    #: Set by the transport: how many it can begin at the same time.
    width = 1

    #: Set by the transport: it calls :meth:`start_contents`. Without that a mail is marked before it is handed over.
    asks_before_contents = False

    @property
    @abstractmethod
    def ready(self) -> int:
        """How many can be had at this moment, without composing and without a wait."""

    @property
    def has_room(self) -> bool:
        """Whether one more fits into memory beside those that have no outcome. A transport that has none may ask for
        one in any case.
        """
        return True

    @property
    @abstractmethod
    def is_paced(self) -> bool:
        """Whether the rate is limited, so that the next one may be a while in coming."""

    @property
    @abstractmethod
    def expected(self) -> int:
        """About how many are to come."""

    @property
    @abstractmethod
    def composing_seconds(self) -> float:
        """Seconds that one takes to be composed; 0: not known."""

    def __iter__(self) -> Self:
        return self

    @abstractmethod
    def __next__(self) -> ComposedMail: ...

    @abstractmethod
    def start_contents(self, keys: Collection[UUID]) -> Set[UUID]:
        """The contents of these are about to leave: where a crash is to leave it to a person what was in a server's
        hands, that is written down, once for all of them.

        Returns:
            Those that may leave; another worker has the others by now.
        """

    @abstractmethod
    def use_wait(self) -> None:
        """Nothing comes for a while: over a long way, the next replies are a round trip away. What the next mails need
        before they are composed may be done now, as long as it runs no code of the host's and takes little time.
        """

    @abstractmethod
    def note(self, outcome: Outcome) -> None:
        """Note what has just been heard, while others may be heard and taken before it. It never raises."""

    @abstractmethod
    def take_late(self, outcome: Outcome) -> None:
        """Take an outcome that was heard after the delivery was closed early."""


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
