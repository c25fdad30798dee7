"""Delivery over SparkPost's HTTP API: a call for each mail, or one for many of a batch that are alike."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any

from django.views.decorators.debug import sensitive_variables

from ..exceptions import NoFreeConnection, SparkPostError, TransportUnavailable, account_refused_error
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
from ..throttling import ConnectionSlot, connection_slot
from .base import ComposedMail, MailSource, no_op
from .calls import Calls
from .envelope import Envelope, envelope_for

# What is taken at once, for those that are alike among it, and what is called for at the same time: bytes of mail, and
# where the rate is limited also seconds. One mail of any size passes.
_MAX_GROUP_BYTES = 32_000_000
_MAX_PACED_SECONDS = 1.0

# Seconds until a further connection is asked for again, where there was none to be had.
_ASK_AGAIN_AFTER = 1.0


@dataclass(frozen=True, slots=True)
class _Call:
    """A request, and the mails that it carries."""

    request: dict[str, Any]
    envelopes: Sequence[Envelope]


class SparkPostTransport:
    """A transport over a client of the API. Its connections are kept by the client."""

    def __init__(self, client: Client, using: str = "", *, most: int = 1) -> None:
        """
        Args:
            client: of the API.
            using: the backend's alias, by which its connections are counted; empty: the default one.
            most: calls that one task makes at the same time, at the most.
        """
        self._client = client
        self._using = using
        self._most = most
        self._mails: MailSource | None = None
        self._before_waiting: Callable[[], None] = no_op
        self._slots: list[ConnectionSlot] = []
        self._refused_at = float("-inf")
        self._calls: Calls[list[Outcome]] = Calls()
        self._made: dict[Future[list[Outcome]], _Call] = {}
        #: Groups of mails that are to be sent with one call each.
        self._groups: deque[Sequence[Envelope]] = deque()
        #: Heard, and not handed on.
        self._outcomes: deque[Outcome] = deque()
        #: Why nothing more is to be begun.
        self._error: Exception | None = None

    def deliver(self, mails: Iterable[ComposedMail], before_waiting: Callable[[], None] = no_op) -> Iterator[Outcome]:
        """See :meth:`congressy_mailer.transports.base.Transport.deliver`.

        No mail is pulled while a call is on its way. Where the answer to one is lost, its mails are in doubt, and
        the API counts as unavailable for those after them.

        Raises:
            NoFreeConnection: others make as many calls as are allowed.
        """
        self._mails = mails if isinstance(mails, MailSource) else None
        self._before_waiting = before_waiting
        if self._mails is not None:
            self._mails.asks_before_contents = True
            self._mails.width = self._most
        source = _Source(mails, self._most)
        try:
            self._take_slots(1)
            while self._error is None and (envelopes := source.next_group()):
                self._groups.extend(_grouped(envelopes))
                while self._groups and self._error is None:
                    self._begin()
                    yield from self._hear_all()
            if (error := self._error or source.error) is not None:
                raise error
        except BaseException as error:
            yield from self._wind_up(error)
            raise
        finally:
            while self._slots:
                self._slots.pop().release()

    def close(self) -> None:
        """See :meth:`congressy_mailer.transports.base.Transport.close`."""

    # Calling

    def _begin(self) -> None:
        """Make as many calls as may be made at the same time."""
        self._before_waiting()
        room = self._take_slots(min(self._most, len(self._groups)))
        calls: list[_Call] = []
        size = 0
        while self._groups and len(calls) < room and size < _MAX_GROUP_BYTES:
            group = self._groups.popleft()
            # A call may take its time, and another worker take over what waits behind it.
            if not group[0].composed.may_begin():
                self._groups.clear()
            elif group[0].sendable:
                made = self._call_for(group)
                calls += made
                size += sum(len(call.request["content"]["email_rfc822"]) for call in made)
            else:
                self._outcomes.append(_unsendable_outcome(group[0]))
        for call in self._with_contents_started(calls):
            self._made[self._calls.start(partial(self._call, call))] = call

    def _call_for(self, group: Sequence[Envelope]) -> list[_Call]:
        """One call for a group; none where its mails go alone after all."""
        if len(group) == 1:
            return [_Call(_single_request(group[0]), group)]
        request = _batch_request(group)
        if request is None:
            self._send_alone(group)
            return []
        return [_Call(request, group)]

    def _send_alone(self, group: Sequence[Envelope]) -> None:
        self._groups.extendleft([envelope] for envelope in reversed(group))

    def _with_contents_started(self, calls: Sequence[_Call]) -> list[_Call]:
        """Say that the contents of these calls are about to leave; returns the calls without what others have now."""
        if not calls:
            return []
        if self._mails is None:
            return list(calls)
        allowed = self._mails.start_contents({envelope.composed.key for call in calls for envelope in call.envelopes})
        started = []
        for call in calls:
            envelopes = [envelope for envelope in call.envelopes if envelope.composed.key in allowed]
            if len(envelopes) == len(call.envelopes):
                started.append(call)
            elif envelopes:
                started += self._call_for(envelopes)
        return started

    def _take_slots(self, wanted: int) -> int:
        """Have so many calls at the same time, or as many as others leave; returns how many."""
        self._slots = [slot for slot in self._slots if slot.renew(self._before_waiting)]
        while len(self._slots) < wanted:
            extra = bool(self._slots)
            if extra and time.monotonic() - self._refused_at < _ASK_AGAIN_AFTER:
                break
            slot = connection_slot(self._using, extra=extra)
            if slot.acquired:
                self._slots.append(slot)
            elif extra:
                self._refused_at = time.monotonic()
            else:
                raise NoFreeConnection(self._using, slot.retry_in)
        return len(self._slots)

    # Hearing

    def _hear_all(self) -> Iterator[Outcome]:
        """What becomes of all calls under way. Each outcome is noted before the one before it is recorded."""
        while self._calls or self._outcomes:
            if not self._outcomes:
                for future in self._calls.wait():
                    self._hear(future)
            while self._outcomes:
                yield self._outcomes.popleft()
                for future in self._calls.finished():
                    self._hear(future)
            if self._calls:
                self._before_waiting()
        if self._calls.interrupted is not None:
            raise self._calls.interrupted

    def _hear(self, future: Future[list[Outcome]]) -> None:
        call = self._made[future]
        try:
            outcomes = future.result()
        except Exception as error:
            # Nobody has any of it. Those that were called for at the same time are heard first.
            self._error = self._error or error
            del self._made[future]
            return
        if len(call.envelopes) > 1 and _call_refused(outcomes):
            # Nobody has anything, and one of them may be the cause.
            self._send_alone(call.envelopes)
            del self._made[future]
            return
        if self._mails is not None:
            for outcome in outcomes:
                self._mails.note(outcome)
        self._outcomes += outcomes
        del self._made[future]
        if outcomes[0].in_doubt and outcomes[0].reply.code is None:
            # An answer that did not come is the server's fault: who comes next need not find that out again.
            self._error = self._error or TransportUnavailable(outcomes[0].reply.text)

    def _wind_up(self, error: BaseException) -> Iterator[Outcome]:
        """Hear what is still to be heard when something breaks the delivery off."""
        self._calls.drain(error)
        for future in [future for future in self._made if future.done()]:
            self._hear(future)
        for call in self._made.values():
            self._outcomes += _outcomes_in_doubt(call.envelopes, Reply(None, f"Interrupted: {type(error).__name__}"))
        self._made.clear()
        while self._outcomes:
            outcome = self._outcomes.popleft()
            if not isinstance(error, GeneratorExit):
                yield outcome
            elif self._mails is not None:
                self._mails.take_late(outcome)

    @sensitive_variables()
    def _call(self, call: _Call) -> list[Outcome]:
        """Make one call, in a thread of its own.

        Raises:
            TransportUnavailable: nobody has anything, through no fault of any mail.
        """
        request, envelopes = call.request, call.envelopes
        try:
            transmissions = self._client.transmissions
            body = encode_request(request)
            # It is held once while SparkPost is waited for.
            del request["content"]
            answer = transmissions.request("POST", transmissions.uri, data=body, full_response=True)
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


class _Source:
    """The mails to come."""

    def __init__(self, mails: Iterable[ComposedMail], most_alone: int) -> None:
        """
        Args:
            mails: as they are asked for.
            most_alone: how many are taken together of those that share no call.
        """
        self._source = mails if isinstance(mails, MailSource) else None
        self._mails = iter(mails)
        self._most_alone = most_alone
        #: What has come up while a mail was asked for; those before it are sent first.
        self.error: Exception | None = None

    def next_group(self) -> list[Envelope]:
        """As many as may share a call, or as many single ones as may be called for at the same time."""
        envelopes: list[Envelope] = []
        alone, size, began = 0, 0, time.monotonic()
        while self.error is None and len(envelopes) < MAX_RECIPIENTS:
            if alone and (alone >= self._most_alone or not self._has_one_at_hand):
                break
            try:
                composed = next(self._mails, None)
            except Exception as error:
                self.error = error
                break
            if composed is None:
                break
            envelopes.append(_envelope(composed))
            size += len(composed.mail.wire)
            alone += composed.mail.batch is None
            if size > _MAX_GROUP_BYTES or (self._is_paced and time.monotonic() - began > _MAX_PACED_SECONDS):
                break
        return envelopes

    @property
    def _has_one_at_hand(self) -> bool:
        return self._source is not None and self._source.ready > 0

    @property
    def _is_paced(self) -> bool:
        return self._source is None or self._source.is_paced


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


def _outcomes_in_doubt(envelopes: Sequence[Envelope], reply: Reply) -> list[Outcome]:
    """No answer came, and nobody knows who has the mail."""
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
