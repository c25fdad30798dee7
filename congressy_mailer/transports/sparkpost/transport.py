"""Delivery over SparkPost's HTTP API: a call for each mail, or one for many of a batch that are alike."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.views.decorators.debug import sensitive_variables

from ...exceptions import NoFreeConnection, SparkPostError, TransportUnavailable
from ...replies import Outcome, Reply
from ...sparkpost.answers import parse_result
from ...sparkpost.client import Client
from ...sparkpost.transmissions import encode_request
from ...throttling import ConnectionSlot, connection_slot
from ..base import ComposedMail, MailSource, no_op
from ..calls import Calls
from ..envelope import Envelope
from .call_groups import MAX_GROUP_BYTES, CallSource, batch_request, grouped, single_request
from .call_outcomes import is_refused_as_a_whole, outcome_of, outcomes_in_doubt, outcomes_of_error, unsendable_outcome

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
        source = CallSource(mails, self._most)
        try:
            self._take_slots(1)
            while self._error is None and (envelopes := source.next_group()):
                self._groups.extend(grouped(envelopes))
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
        while self._groups and len(calls) < room and size < MAX_GROUP_BYTES:
            group = self._groups.popleft()
            # A call may take its time, and another worker take over what waits behind it.
            if not group[0].composed.may_begin():
                self._groups.clear()
            elif group[0].sendable:
                made = self._call_for(group)
                calls += made
                size += sum(len(call.request["content"]["email_rfc822"]) for call in made)
            else:
                self._outcomes.append(unsendable_outcome(group[0]))
        for call in self._with_contents_started(calls):
            self._made[self._calls.start(partial(self._call, call))] = call

    def _call_for(self, group: Sequence[Envelope]) -> list[_Call]:
        """One call for a group; none where its mails go alone after all."""
        if len(group) == 1:
            return [_Call(single_request(group[0]), group)]
        request = batch_request(group)
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
        if len(call.envelopes) > 1 and is_refused_as_a_whole(outcomes):
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
            self._outcomes += outcomes_in_doubt(call.envelopes, Reply(None, f"Interrupted: {type(error).__name__}"))
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
            return outcomes_of_error(envelopes, error)
        addresses = [recipient["address"]["email"] for recipient in request["recipients"]]
        result = parse_result(answer if isinstance(answer, dict) else {}, addresses)
        return [outcome_of(envelope, result.reply, result.rejected, unclear=result.unclear) for envelope in envelopes]
