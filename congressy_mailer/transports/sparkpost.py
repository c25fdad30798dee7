"""Delivery over SparkPost's HTTP API: a call for each mail, or one for many of a batch that are alike."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from django.views.decorators.debug import sensitive_variables

from ..exceptions import SparkPostError, TransportUnavailable, account_refused_error
from ..replies import Outcome, Reply, Verdict
from ..sparkpost.answers import classify_error, parse_result
from ..sparkpost.client import Client
from ..sparkpost.transmissions import (
    MAX_RECIPIENTS,
    TransmissionMail,
    batch_transmission,
    encode_request,
    grouping_key,
    to_addresses,
    transmission,
)
from .base import ComposedMail, MailSource, no_op
from .envelope import Envelope, envelope_for

# What is taken at once, for those that are alike among it: bytes of mail, and seconds of composing.
_MAX_GROUP_BYTES = 8_000_000
_MAX_GROUP_SECONDS = 1.0


class SparkPostTransport:
    """A transport over a client of the API. Its connection is kept by the client."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._mails: MailSource | None = None

    def deliver(self, mails: Iterable[ComposedMail], before_waiting: Callable[[], None] = no_op) -> Iterator[Outcome]:
        """See :meth:`congressy_mailer.transports.base.Transport.deliver`.

        No mail is pulled while a call is on its way. Where the answer to one is lost, its mails are in doubt, and
        the API counts as unavailable for those after them.
        """
        self._mails = mails if isinstance(mails, MailSource) else None
        if self._mails is not None:
            self._mails.asks_before_contents = True
        source = _Source(mails)
        while envelopes := source.next_group():
            for group in _grouped(envelopes):
                # A call may take its time, and another worker take over what waits behind it.
                if group[0].composed.may_begin():
                    yield from self._deliver(group, before_waiting)
        if source.error is not None:
            raise source.error

    def close(self) -> None:
        """See :meth:`congressy_mailer.transports.base.Transport.close`."""

    def _deliver(self, envelopes: Sequence[Envelope], before_waiting: Callable[[], None]) -> Iterator[Outcome]:
        request = _batch_request(envelopes) if len(envelopes) > 1 else None
        if request is not None:
            before_waiting()
            count = len(envelopes)
            envelopes = self._start_contents(envelopes)
            if len(envelopes) < count:
                request = _batch_request(envelopes) if len(envelopes) > 1 else None
        if request is not None:
            outcomes = self._call(request, envelopes)
            if not _call_refused(outcomes):
                self._note(outcomes)
                yield from outcomes
                self._raise_if_lost(outcomes)
                return
            # Nobody has anything, and one of them may be the cause.
        for envelope in envelopes:
            if not envelope.sendable:
                yield _unsendable_outcome(envelope)
                continue
            if not envelope.composed.may_begin():
                return
            before_waiting()
            if not self._start_contents([envelope]):
                continue
            outcomes = self._call(_single_request(envelope), [envelope])
            yield from outcomes
            self._raise_if_lost(outcomes)

    def _start_contents(self, envelopes: Sequence[Envelope]) -> Sequence[Envelope]:
        """Say that these are about to leave; returns those that may. Another worker has the others by now."""
        if self._mails is None:
            return envelopes
        allowed = self._mails.start_contents({envelope.composed.key for envelope in envelopes})
        return [envelope for envelope in envelopes if envelope.composed.key in allowed]

    def _note(self, outcomes: Sequence[Outcome]) -> None:
        """Before the first of them is taken, which may have to wait for the database."""
        if self._mails is not None:
            for outcome in outcomes:
                self._mails.note(outcome)

    @sensitive_variables()
    def _call(self, request: dict[str, Any], envelopes: Sequence[Envelope]) -> list[Outcome]:
        """Make one call.

        Raises:
            TransportUnavailable: nobody has anything, through no fault of any mail.
        """
        try:
            transmissions = self._client.transmissions
            answer = transmissions.request("POST", transmissions.uri, data=encode_request(request), full_response=True)
        except SparkPostError as error:
            return self._outcomes_of_error(envelopes, error)
        addresses = [recipient["address"]["email"] for recipient in request["recipients"]]
        result = parse_result(answer if isinstance(answer, dict) else {}, addresses)
        return [_outcome(envelope, result.reply, result.rejected, unclear=result.unclear) for envelope in envelopes]

    def _outcomes_of_error(self, envelopes: Sequence[Envelope], error: SparkPostError) -> list[Outcome]:
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

    def _raise_if_lost(self, outcomes: Sequence[Outcome]) -> None:
        """An answer that did not come is the server's fault: who comes next need not find that out again."""
        if outcomes[0].in_doubt and outcomes[0].reply.code is None:
            raise TransportUnavailable(outcomes[0].reply.text)


class _Source:
    """The mails to come."""

    def __init__(self, mails: Iterable[ComposedMail]) -> None:
        self._mails = iter(mails)
        #: What has come up while a mail was asked for; those before it are sent first.
        self.error: Exception | None = None

    def next_group(self) -> list[Envelope]:
        """As many as may share a call, and no more than that; one that goes alone is the last of them."""
        envelopes: list[Envelope] = []
        size, began = 0, time.monotonic()
        while self.error is None and len(envelopes) < MAX_RECIPIENTS:
            try:
                composed = next(self._mails, None)
            except Exception as error:
                self.error = error
                break
            if composed is None:
                break
            envelopes.append(_envelope(composed))
            size += len(composed.mail.wire)
            unbatched = composed.mail.batch is None
            if unbatched or size > _MAX_GROUP_BYTES or time.monotonic() - began > _MAX_GROUP_SECONDS:
                break
        return envelopes


def _grouped(envelopes: Sequence[Envelope]) -> Iterator[list[Envelope]]:
    """Groups of mails that may share a call; every other mail is a group of its own."""
    groups: dict[object, list[Envelope]] = {}
    seen: Counter[object] = Counter()
    for position, envelope in enumerate(envelopes):
        group_key = grouping_key(envelope.composed.mail) if envelope.sendable and not envelope.refused else None
        if group_key is None:
            groups[position] = [envelope]
            continue
        # Never two mails to one address: what is said of an address would be said of both.
        key_and_address = group_key, next(iter(envelope.recipients.values())).lower()
        groups.setdefault((group_key, seen[key_and_address]), []).append(envelope)
        seen[key_and_address] += 1
    yield from groups.values()


def _envelope(composed: ComposedMail) -> Envelope:
    envelope = envelope_for(composed)
    try:
        if not composed.mail.wire.isascii():
            composed.mail.wire.decode()
    except UnicodeDecodeError:
        # JSON carries text. What is signed cannot be written in another way.
        return replace(envelope, problem=Reply(554, "5.6.1 Not sent: SparkPost's API takes no mail that is not UTF-8."))
    return envelope


def _batch_request(envelopes: Sequence[Envelope]) -> dict[str, Any] | None:
    addresses = [next(iter(envelope.recipients.values())) for envelope in envelopes]
    return batch_transmission([envelope.composed.mail for envelope in envelopes], addresses)


def _single_request(envelope: Envelope) -> dict[str, Any]:
    mail = envelope.composed.mail
    recipients = list(envelope.recipients.values())
    return transmission(TransmissionMail(mail.wire, recipients, to_addresses(mail.to), mail.sparkpost))


def _call_refused(outcomes: Sequence[Outcome]) -> bool:
    """The call as a whole was refused, for what may be in one of its mails."""
    return all(
        (outcome.rejected or outcome.deferred)
        and not (outcome.accepted or outcome.in_doubt)
        and outcome.reply.code != 200
        for outcome in outcomes
    )


def _unsendable_outcome(envelope: Envelope) -> Outcome:
    if envelope.problem is not None:
        rejected = dict.fromkeys(envelope.composed.mail.envelope, envelope.problem)
        return Outcome(envelope.composed.key, rejected=rejected, reply=envelope.problem)
    return Outcome(envelope.composed.key, rejected=envelope.refused, reply=next(iter(envelope.refused.values())))


def _outcome(envelope: Envelope, reply: Reply, refused: Mapping[str, Reply], *, unclear: bool) -> Outcome:
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
