"""What the answer to a call of SparkPost's API, or its error, means for each of the mails that it carried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from ...exceptions import SparkPostError, TransportUnavailable, account_refused_error
from ...replies import Outcome, Reply, Verdict
from ...sparkpost.answers import classify_error
from ..envelope import Envelope


def is_refused_as_a_whole(outcomes: Sequence[Outcome]) -> bool:
    """Whether a call was refused as a whole, for what may be in one of its mails."""
    return all(
        (outcome.rejected or outcome.deferred)
        and not (outcome.accepted or outcome.in_doubt)
        and outcome.reply.code != 200
        for outcome in outcomes
    )


def outcomes_in_doubt(envelopes: Sequence[Envelope], reply: Reply) -> list[Outcome]:
    """No answer came: each of these mails may have been taken."""
    return [
        Outcome(
            envelope.composed.key,
            deferred=dict.fromkeys(envelope.recipients, reply),
            rejected=envelope.refused,
            reply=reply,
            in_doubt=True,
        )
        for envelope in envelopes
    ]


def unsendable_outcome(envelope: Envelope) -> Outcome:
    """The outcome of a mail that is not called for: it cannot be sent, or no recipient is left."""
    if envelope.problem is not None:
        rejected = dict.fromkeys(envelope.composed.mail.envelope, envelope.problem)
        return Outcome(envelope.composed.key, rejected=rejected, reply=envelope.problem)
    return Outcome(envelope.composed.key, rejected=envelope.refused, reply=next(iter(envelope.refused.values())))


def outcome_of(envelope: Envelope, reply: Reply, refused: Mapping[str, Reply], *, unclear: bool) -> Outcome:
    """What the answer to a call means for one of its mails.

    Args:
        envelope: of the mail.
        reply: the answer.
        refused: by address as it was sent, what SparkPost says of it.
        unclear: SparkPost has taken the mail for some of the recipients, and did not say for whom.
    """
    accepted: list[str] = []
    rejected = dict(envelope.refused)
    for recipient, sent_as in envelope.recipients.items():
        if sent_as in refused:
            rejected[recipient] = refused[sent_as]
        else:
            accepted.append(recipient)
    if unclear and accepted:
        unclear_reply = Reply(None, "SparkPost did not say for whom of this call it has taken the mail.")
        return Outcome(
            envelope.composed.key,
            deferred=dict.fromkeys(accepted, unclear_reply),
            rejected=rejected,
            reply=reply,
            in_doubt=True,
        )
    return Outcome(envelope.composed.key, tuple(accepted), rejected=rejected, reply=reply)


def outcomes_of_error(envelopes: Sequence[Envelope], error: SparkPostError) -> list[Outcome]:
    """What an error of a call means for its mails.

    Raises:
        TransportUnavailable: no recipient has any of them, through no fault of a mail.
    """
    failure = classify_error(error)
    if failure.verdict is Verdict.UNAVAILABLE:
        unavailable = account_refused_error(failure.reply) if error.status else TransportUnavailable(str(error))
        if error.retry_after is not None:
            unavailable.retry_in = timedelta(seconds=error.retry_after)
        raise unavailable from None
    if failure.verdict is Verdict.SENDER_REFUSED:
        return [Outcome(envelope.composed.key, reply=failure.reply, sender_refused=True) for envelope in envelopes]
    outcomes = []
    for envelope in envelopes:
        replies = dict.fromkeys(envelope.recipients, failure.reply)
        rejected = failure.verdict is Verdict.REJECTED
        outcomes.append(
            Outcome(
                envelope.composed.key,
                deferred={} if rejected else replies,
                rejected={**envelope.refused, **(replies if rejected else {})},
                reply=failure.reply,
                in_doubt=failure.in_doubt,
            )
        )
    return outcomes
