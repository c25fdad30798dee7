"""One slice of delivery: claim, compose, hand over, record, for at most one time slice."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from celery.exceptions import SoftTimeLimitExceeded
from django.views.decorators.debug import sensitive_variables

from .. import outbox
from ..conf import mailer_settings
from ..exceptions import NoFreeConnection, TransportUnavailable
from ..mime.addresses import domain_of
from ..models import Batch, Message, Pause, clock
from ..outbox.backoff import FLOOR
from ..redaction import error_summary, leaving_error, redact_unavailable
from ..suppressions.lookup import suppressed_recipients
from ..throttling import rate_limiter_for
from ..transports.guard import delivering
from ..transports.pool import max_mails_per_call, transport_for
from . import call_sizes, prolonging, routing, sending_rate
from .availability import CircuitBreaker, make_due_if_known
from .claims import Claims, logger
from .composing_ahead import ComposingAhead
from .deadlines import Deadlines
from .handover import Handover
from .noting import Notes
from .recording import Recorder
from .shutdown import deferred_signals

# Seconds between two looks, in the midst of a batch, for what should go before it.
_URGENT_CHECK_INTERVAL = 0.2

# A message that has waited for longer is in a queue, where others may be more urgent.
_QUEUED_FOR = timedelta(seconds=1)

# One that is sent within this time was alone, most likely.
_BRIEFLY = timedelta(seconds=0.2)


@dataclass
class SliceResult:
    """What is left to do after a slice."""

    #: Put back because the time was over, to be published again.
    unfinished: list[UUID] = field(default_factory=list)
    #: To be claimed each alone: a worker died while holding them.
    solo: list[UUID] = field(default_factory=list)
    #: To be tried again after so many seconds.
    retries: dict[int, list[UUID]] = field(default_factory=dict)
    #: When a task should continue the batch; ``None`` where none of its messages waits.
    continue_at: datetime | None = None
    #: Mail that waited for a backend, held back by other tasks, is due now and published by nobody.
    made_due: bool = False


class Delivery:
    """Delivers messages for one task."""

    def __init__(self, token: str, notes: Notes | None = None) -> None:
        """
        Args:
            token: of the task's claims.
            notes: where what was accepted stands until it is recorded; ``None``: nowhere.
        """
        conf = mailer_settings()
        self._slice_size = conf.SLICE_SIZE
        self.deadlines = Deadlines()
        # Where a crash leaves it to a person what was not written down, as little as possible is.
        self._recorder = Recorder(token, self.deadlines, batch_accepted=conf.ON_CRASH != "hold", notes=notes)
        self._claims = Claims(token, self._recorder, self.deadlines)
        self._composing = ComposingAhead(self._claims, self._slice_size)
        self._prolonging = prolonging.Prolonging(self.deadlines, self._recorder.flush)
        #: How many messages have come to each state, and how many were put back without an attempt.
        self.counts = self._claims.counts
        #: What somebody has paused, as it was known when these messages were claimed.
        self._pauses = outbox.ActivePauses()
        #: Put back because the time was over.
        self._unfinished: list[UUID] = []
        #: When something more urgent than a batch was last looked for; ``None`` where there is nothing to go before.
        self._urgent_checked_at: float | None = None
        #: Claims what comes next: so many messages at the most, which name this mail backend; ``None``: nothing does.
        self._claim_next: Callable[[int, str], list[Message]] | None = None
        #: Mail backends that cannot be used, and until when.
        self._unavailable_until: dict[str, datetime] = {}
        #: Until when mail was put back that waits for one of them.
        self._held_back_until: set[datetime] = set()
        #: How long the next mail's turn is away, where that ended the slice.
        self._permit_wait = timedelta(0)
        #: Complete once the slice has ended, also by an error.
        self.result = SliceResult(retries=self._claims.retries)

    @sensitive_variables()
    def run(self, ids: Sequence[UUID], *, redelivered: bool, takes_more: bool = False) -> SliceResult:
        """Deliver what can be claimed of these messages.

        Args:
            ids: of the messages.
            redelivered: as :func:`congressy_mailer.outbox.claim` has it.
            takes_more: where there is a queue and time is left, deliver what else waits in it.

        Raises:
            TransportUnavailable: a mail server cannot be used. Everything that was not sent is queued again.
            django.db.OperationalError: the database is away.
        """
        return self._redacting(lambda: self._run(ids, redelivered=redelivered, takes_more=takes_more))

    @sensitive_variables()
    def _run(self, ids: Sequence[UUID], *, redelivered: bool, takes_more: bool) -> SliceResult:
        with deferred_signals(self.deadlines.stop):
            messages = self._claims.claim(lambda: outbox.claim(ids, self._claims.token, redelivered=redelivered))
            mine = len(messages)
            if messages and _was_queued(messages):
                least = max(message.priority for message in messages)
                limit = sending_rate.fitting_claim("", self.deadlines.slice_left)
                urgent = partial(outbox.claim_waiting, self._claims.token, limit, before=least)
                messages = sorted(messages + self._claims.claim(urgent), key=lambda message: message.priority)
            if takes_more and messages:
                self._claim_next = partial(self._claim_waiting, since=_queued_since(messages))
                if len(backends := {message.using for message in messages}) == 1:
                    self._prolonging.others_wait = prolonging.beside_single_mails(*backends)
            try:
                self._work(messages)
            except BaseException:
                # Celery repeats the task for its own messages, and for no others.
                self.result.unfinished += [key for key in self._unfinished if key not in ids]
                raise
            self.result.unfinished += self._unfinished
            if mine < len(ids) > 1:
                self.result.solo = outbox.needing_solo(ids)
            return self.result

    @sensitive_variables()
    def run_batch(self, key: UUID, generation: int) -> SliceResult:
        """Deliver what comes next of a batch, and before it what is in none and has been left waiting.

        Raises:
            TransportUnavailable: a mail server cannot be used. Everything that was not sent is queued again.
            django.db.OperationalError: the database is away.
        """
        return self._redacting(lambda: self._run_batch(key, generation))

    @sensitive_variables()
    def _run_batch(self, key: UUID, generation: int) -> SliceResult:
        with deferred_signals(self.deadlines.stop):
            batch = outbox.batch_with_content(key)
            shared_call = 1 if batch is None else max_mails_per_call(batch.using)
            while batch is not None:
                self._prolonging.others_wait = None
                self._deliver_urgent()
                if (pause := outbox.active_pauses().of_batch(batch)) is not None:
                    self._recorder.retry_until_recorded(partial(outbox.hold_batch, key, pause))
                    break
                self._prolonging.others_wait = prolonging.beside_batch(key, generation)
                claim_next = partial(self._claim_from_batch, batch)
                if shared_call > 1:
                    size = call_sizes.next_size(key)
                else:
                    size = sending_rate.sent_in(batch.using, self.deadlines.slice_left)
                    self._claim_next = claim_next
                mine = self._claims.claim(partial(claim_next, size, batch.using))
                self._claims.put_back_until = None
                self._work(mine)
                self._claim_next = None
                if shared_call > 1 and self._claims.put_back_until is None:
                    call_sizes.observe(key, len(mine), len(self._unfinished), shared_call)
                if not mine and not outbox.reschedule_batch(key, generation):
                    break
                self._prolonging.look()
                put_back_until = self._claims.put_back_until
                if put_back_until is not None or self.deadlines.slice_is_over or not mine:
                    self.result.continue_at = put_back_until or clock.now() + self._permit_wait
                    break
            return self.result

    def _redacting(self, deliver: Callable[[], SliceResult]) -> SliceResult:
        """Deliver, and let no error out that repeats a sensitive mail or a password, itself or by what led to it."""
        try:
            with delivering():
                return deliver()
        except BaseException as error:
            leaving = leaving_error(error, sensitive=self._claims.sensitive)
            if leaving is error:
                raise
        # After the except clause: within it, the error would become the context of the other.
        raise leaving

    def _claim_from_batch(self, batch: Batch, limit: int, using: str) -> list[Message]:
        return outbox.claim_from_batch(batch, self._claims.token, limit)

    def _claim_waiting(self, limit: int, using: str, *, since: datetime) -> list[Message]:
        """What else waits in the queue that a message has waited in since then."""
        # A single mail is not to pay for the question.
        if clock.now() - since < _BRIEFLY:
            return []
        return outbox.claim_waiting(self._claims.token, limit, using=using)

    def _deliver_urgent(self) -> None:
        """Deliver what goes before a batch: what is in none, and has been left waiting."""
        self._urgent_checked_at = time.monotonic()
        limit = sending_rate.fitting_claim("", self.deadlines.slice_left)
        messages = self._claims.claim(partial(outbox.claim_waiting, self._claims.token, limit))
        if messages:
            self._claim_next = partial(self._claim_waiting, since=_queued_since(messages))
        try:
            # Its mail is put back until then, and looked for by nobody before; the batch may have another mail backend.
            with suppress(TransportUnavailable):
                self._work(messages)
        finally:
            self._claim_next = None
            # No task of their own is published any more, however this slice ends.
            self.result.unfinished += self._unfinished

    def _urgent_mail_waits(self) -> bool:
        """Now and then, in the midst of a batch: whether something has come that goes before it."""
        if self._urgent_checked_at is None or time.monotonic() - self._urgent_checked_at < _URGENT_CHECK_INTERVAL:
            return False
        self._urgent_checked_at = time.monotonic()
        return outbox.has_waiting_messages()

    @sensitive_variables()
    def _work(self, messages: Sequence[Message]) -> None:
        """Deliver what has been claimed. What the time does not reach is put back, and listed in ``_unfinished``."""
        self._unfinished.clear()
        self._claims.add(messages)
        self._pauses = outbox.active_pauses()
        unavailable: TransportUnavailable | None = None
        # If this raises, the caller cannot publish what is left: make it due now for the next sweep.
        put_back_until: datetime | None = clock.now()
        try:
            unavailable = self._deliver_together_or_alone(messages)
            if unavailable is None and not self.deadlines.stopped:
                put_back_until = None
        finally:
            # Also on the way out of an error: nothing has to wait for the lease to run out.
            self._unfinished += self._claims.waiting
            try:
                self._recorder.flush()
            finally:
                try:
                    self._claims.put_back(self._unfinished, until=put_back_until)
                    self.result.made_due |= make_due_if_known(self._held_back_until)
                finally:
                    self._held_back_until.clear()
                    self._recorder.announce()
        if unavailable is not None:
            raise unavailable

    @sensitive_variables()
    def _deliver_together_or_alone(
        self, messages: Sequence[Message], *, alone: bool = False
    ) -> TransportUnavailable | None:
        """Deliver these messages and what is claimed after them; after an unexpected error each by itself, so that it
        is one message's alone.

        Args:
            messages: which are held.
            alone: it is a single one, and the error would be its own.

        Returns:
            Why a mail backend cannot be used, if so.

        Raises:
            django.db.Error: the outbox's database is away.
        """
        try:
            return self._deliver_over_backends(messages)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._claims.take_back_handed_over()
            if isinstance(error, SoftTimeLimitExceeded) or self._recorder.gave_up or outbox.is_away():
                raise
            if alone or (len(messages) == 1 and self._claims.waiting.keys() <= {messages[0].id}):
                self._claims.fail_unexpectedly(messages[0], error)
                return None
            logger.warning(
                "%s while %d messages were delivered together; each is now delivered by itself.",
                error_summary(error), len(messages),
            )  # fmt: skip
        self._claim_next = None
        unavailable: TransportUnavailable | None = None
        for begun, message in enumerate(list(self._claims.waiting.values())):
            # One at the least: what used up the time may do so in each slice.
            if begun and self.deadlines.slice_is_over:
                break
            unavailable = self._deliver_together_or_alone([message], alone=True) or unavailable
        return unavailable

    def _deliver_over_backends(self, messages: Sequence[Message]) -> TransportUnavailable | None:
        messages = self._without_suppressed(self._without_paused(messages))
        unavailable: TransportUnavailable | None = None
        for begun, using in enumerate(dict.fromkeys(message.using for message in messages)):
            if begun and self.deadlines.slice_is_over:
                break
            try:
                self._deliver_over_routes(using, [message for message in messages if message.using == using])
            except TransportUnavailable as error:
                # Another backend's mail need not wait for this one.
                unavailable = error
        return unavailable

    def _without_paused(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Those that nobody has paused; the others are put back. A batch is paused as a whole, before it is claimed."""
        paused: dict[UUID, tuple[Pause, list[Message]]] = {}
        for message in messages:
            pause = None if message.waits_with_batch else self._pauses.of_message(message)
            if pause is not None:
                paused.setdefault(pause.pk, (pause, []))[1].append(message)
        for pause, held in paused.values():
            self._claims.hold(held, pause)
        return [message for message in messages if message.id in self._claims.waiting] if paused else messages

    def _without_suppressed(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The messages that have a recipient who is not suppressed; the others are ended."""
        suppressed = suppressed_recipients([message for message in messages if outbox.may_be_suppressed(message)])
        if not suppressed:
            return messages
        self._claims.remove_suppressed(
            [(message, suppressed[message.id]) for message in messages if message.id in suppressed]
        )
        return [message for message in messages if message.id in self._claims.waiting]

    def _deliver_over_routes(self, using: str, messages: Sequence[Message]) -> None:
        """Deliver over the first mail backend that is available, and mail that is bound to another one over that.

        Raises:
            TransportUnavailable: for some of them there is none.
        """
        unavailable: TransportUnavailable | None = None
        bound_mail_waits = False
        messages = list(messages)
        for route in routing.routes(using, messages):
            if self._pauses.backend(route) is not None:
                # All that may go nowhere else has been put back.
                continue
            mine = [
                message for message in messages
                if message.id in self._claims.waiting and routing.may_use(message, route)
            ]  # fmt: skip
            if not mine:
                continue
            unbound = {message.id for message in mine if not routing.is_bound(message)}
            try:
                self._deliver(route, mine, unbound, partial(self._claim_more, using, route, messages, mine, unbound))
            except TransportUnavailable as error:
                unavailable = error
                bound_mail_waits |= len(unbound) < len(mine)
            if route not in self._unavailable_until:
                # It can be used: what has not been begun waits for it.
                messages = [message for message in messages if routing.is_bound(message)]
        unfinished = [message.id for message in messages if not routing.is_bound(message)]
        if unfinished:
            # Whichever is tried first.
            until = min(self._unavailable_until.values())
            self._hold_back(unfinished, until)
            if unavailable is not None and unavailable.retry_in is not None:
                unavailable.retry_in = min(unavailable.retry_in, max(until - clock.now(), FLOOR))
        if unavailable is not None and (unfinished or bound_mail_waits):
            raise unavailable

    def _claim_more(
        self,
        using: str,
        route: str,
        messages: list[Message],
        of_route: list[Message],
        reroutable: set[UUID],
        breaker: CircuitBreaker,
    ) -> Sequence[Message]:
        """Claim what comes next while the connection is warm, and have it go through all that the first went through.

        Args:
            using: what the messages name.
            route: alias of the mail backend in use.
            messages: all that are delivered; what is claimed is added.
            of_route: those that may go over the backend; likewise.
            reroutable: those of them that another backend may take; likewise.
            breaker: of the backend.

        Returns:
            What may be sent now.
        """
        if self._claim_next is None or breaker.is_probing:
            return ()
        if outbox.active_pauses() != self._pauses:
            # A slice may go on for half a minute: what was claimed is sent, and what comes next is looked at anew.
            return ()
        limit = sending_rate.fitting_claim(route, self.deadlines.slice_left)
        claimed = self._claims.claim(partial(self._claim_next, limit, using))
        self._claims.add(claimed)
        claimed = list(self._without_suppressed(self._without_paused(claimed)))
        # What is bound to another backend comes after this one.
        mine = [message for message in claimed if message.using == using and routing.may_use(message, route)]
        messages += claimed
        of_route += mine
        reroutable |= {message.id for message in mine if not routing.is_bound(message)}
        breaker.look_up({domain_of(message.from_email) for message in mine})
        sendable = self._sendable_now(breaker, mine)
        self._claims.set_route(route, sendable)
        return sendable

    def _deliver(
        self,
        using: str,
        messages: Sequence[Message],
        reroutable: Set[UUID],
        claim_more: Callable[[CircuitBreaker], Sequence[Message]],
    ) -> None:
        """Deliver over one mail backend.

        Args:
            using: its alias.
            messages: what may go over it.
            reroutable: those of them that stay open where it cannot be used, since another may take them. Until when
                that is, is in ``_unavailable_until`` afterwards.
            claim_more: claims what comes next, and adds it to both.

        Raises:
            TransportUnavailable: the backend as a whole was found to be.
        """
        self._unavailable_until.pop(using, None)
        senders = {domain_of(message.from_email) for message in messages}
        breaker = CircuitBreaker(
            using, senders, before_update=self._recorder.flush, none_open=self._claims.take_none_unavailable(messages)
        )
        handover = Handover(
            using,
            claims=self._claims,
            deadlines=self.deadlines,
            recorder=self._recorder,
            composing=self._composing,
            breaker=breaker,
            rate_limiter=rate_limiter_for(using),
            should_yield=self._urgent_mail_waits,
            before_chunk=self._prolonging.look,
            claim_more=None if self._claim_next is None else partial(claim_more, breaker),
        )
        try:
            if "" in breaker.open_until:
                self._unavailable_until[using] = breaker.open_until[""]
                first = [message for message in messages if message.id not in reroutable]
            else:
                first = list(messages)
            first = self._sendable_now(breaker, first)
            if first:
                self._claims.set_route(using, first)
                with transport_for(using) as transport:
                    handover.deliver(transport, first)
            # It was taken, and its time was over before it was begun.
            self._claims.take_back_handed_over()
            self._claims.put_back_for(handover.permit_wait, messages)
        except NoFreeConnection as no_connection:
            self._claims.take_back_handed_over()
            self._claims.put_back_for(no_connection.retry_in, messages)
        except TransportUnavailable as raised:
            self._recorder.flush()
            error = redact_unavailable(self._claims.handed_over.values(), raised)
            self._claims.take_back_handed_over()
            error.retry_in = breaker.record_failure("", str(error), minimum_wait=raised.retry_in)
            self._unavailable_until[using] = breaker.open_until[""]
            mine = [message.id for message in messages if message.id not in reroutable]
            self._hold_back(mine, breaker.open_until[""])
            raise error from None
        finally:
            self._permit_wait = handover.permit_wait
            breaker.release_probes()
            self.result.made_due |= breaker.made_due

    def _sendable_now(self, breaker: CircuitBreaker, messages: Sequence[Message]) -> list[Message]:
        """Those that may be sent now; the others are put back until it makes sense to look again."""
        sendable = []
        blocked: dict[datetime, list[UUID]] = {}
        for message in messages:
            until = breaker.open_until.get("") or breaker.open_until.get(domain_of(message.from_email))
            if until is None:
                sendable.append(message)
            else:
                blocked.setdefault(until, []).append(message.id)
        for until, ids in blocked.items():
            self._hold_back(ids, until)
        return sendable

    def _hold_back(self, ids: Sequence[UUID], until: datetime) -> None:
        """Put back what waits for a mail backend until it is tried again."""
        self._claims.put_back(ids, until=until)
        self._held_back_until.add(until)


def _queued_since(messages: Sequence[Message]) -> datetime:
    """Since when the first of them has waited."""
    return min((message.queued_at for message in messages if message.queued_at is not None), default=clock.now())


def _was_queued(messages: Sequence[Message]) -> bool:
    """Whether one of them has waited so long that there must be a queue."""
    return _queued_since(messages) < clock.now() - _QUEUED_FOR
