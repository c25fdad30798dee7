"""One slice of delivery: claim, compose, hand over, record, for at most one time slice."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from celery.exceptions import SoftTimeLimitExceeded
from django.views.decorators.debug import sensitive_variables

from .. import outbox
from ..conf import mailer_settings
from ..exceptions import TransportUnavailable
from ..models import Batch, Message, clock
from ..redaction import error_summary, leaving_error
from ..transports.guard import delivering
from ..transports.selection import max_mails_per_call
from . import call_sizes, longer_slices, sending_rate
from .admission import Admission
from .claims import Claims, logger
from .composing_ahead import ComposingAhead
from .deadlines import Deadlines
from .noting import Notes
from .recording import Recorder
from .route_delivery import RouteDelivery
from .shutdown import deferred_signals
from .task_parts import TaskParts

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
    #: Mail that other tasks held back for a backend is due now and unpublished.
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
        self.deadlines = Deadlines()
        # With ON_CRASH = "hold" a person decides about unrecorded mail: each acceptance is recorded at once.
        self._recorder = Recorder(token, self.deadlines, batch_accepted=conf.ON_CRASH != "hold", notes=notes)
        self._claims = Claims(token, self._recorder, self.deadlines)
        self._prolonging = longer_slices.Prolonging(self.deadlines, self._recorder.flush)
        #: How many messages have come to each state, and how many were put back without an attempt.
        self.counts = self._claims.counts
        self._admission = Admission(self._claims)
        parts = TaskParts(
            self._claims,
            self._recorder,
            self.deadlines,
            ComposingAhead(self._claims, conf.SLICE_SIZE),
            should_yield=self._urgent_mail_waits,
            before_chunk=self._prolonging.look,
        )
        self._routes = RouteDelivery(parts, self._admission)
        #: Put back because the time was over.
        self._unfinished: list[UUID] = []
        #: When something more urgent than a batch was last looked for; ``None`` where there is nothing to go before.
        self._urgent_checked_at: float | None = None
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
                self._routes.claim_next = partial(self._claim_waiting, since=_queued_since(messages))
                if len(backends := {message.using for message in messages}) == 1:
                    self._prolonging.others_wait = longer_slices.beside_single_mails(*backends)
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
                self._prolonging.others_wait = longer_slices.beside_batch(key, generation)
                claim_next = partial(self._claim_from_batch, batch)
                if shared_call > 1:
                    size = call_sizes.next_size(key)
                else:
                    size = sending_rate.sent_in(batch.using, self.deadlines.slice_left)
                    self._routes.claim_next = claim_next
                mine = self._claims.claim(partial(claim_next, size, batch.using))
                self._claims.put_back_until = None
                self._work(mine)
                self._routes.claim_next = None
                if shared_call > 1 and self._claims.put_back_until is None:
                    call_sizes.observe(key, len(mine), len(self._unfinished), shared_call)
                if not mine and not outbox.reschedule_batch(key, generation):
                    break
                self._prolonging.look()
                put_back_until = self._claims.put_back_until
                if put_back_until is not None or self.deadlines.slice_is_over or not mine:
                    self.result.continue_at = put_back_until or clock.now() + self._routes.permit_wait
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
        # A mail that has only just been queued is spared this query.
        if clock.now() - since < _BRIEFLY:
            return []
        return outbox.claim_waiting(self._claims.token, limit, using=using)

    def _deliver_urgent(self) -> None:
        """Deliver what goes before a batch: what is in none, and has been left waiting."""
        self._urgent_checked_at = time.monotonic()
        limit = sending_rate.fitting_claim("", self.deadlines.slice_left)
        messages = self._claims.claim(partial(outbox.claim_waiting, self._claims.token, limit))
        if messages:
            self._routes.claim_next = partial(self._claim_waiting, since=_queued_since(messages))
        try:
            # The unavailable backend's mail is put back until its next try. The batch may use another one, and goes on.
            with suppress(TransportUnavailable):
                self._work(messages)
        finally:
            self._routes.claim_next = None
            # Their own tasks may have found them claimed: the rest is published again, however this slice ends.
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
        self._admission.look_up_pauses()
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
                    self._routes.release_held_back()
                finally:
                    self.result.made_due |= self._routes.made_due
                    self._recorder.announce()
        if unavailable is not None:
            raise unavailable

    @sensitive_variables()
    def _deliver_together_or_alone(
        self, messages: Sequence[Message], *, alone: bool = False
    ) -> TransportUnavailable | None:
        """Deliver these messages and what is claimed after them; after an unexpected error each by itself, so that
        the error concerns only the message that caused it.

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
        self._routes.claim_next = None
        unavailable: TransportUnavailable | None = None
        for begun, message in enumerate(list(self._claims.waiting.values())):
            # At least one even if the slice is over: a first mail that uses up each slice must not stop all others.
            if begun and self.deadlines.slice_is_over:
                break
            unavailable = self._deliver_together_or_alone([message], alone=True) or unavailable
        return unavailable

    def _deliver_over_backends(self, messages: Sequence[Message]) -> TransportUnavailable | None:
        messages = self._admission.admit(messages)
        unavailable: TransportUnavailable | None = None
        for begun, using in enumerate(dict.fromkeys(message.using for message in messages)):
            if begun and self.deadlines.slice_is_over:
                break
            try:
                self._routes.deliver(using, [message for message in messages if message.using == using])
            except TransportUnavailable as error:
                # Another backend's mail need not wait for this one.
                unavailable = error
        return unavailable


def _queued_since(messages: Sequence[Message]) -> datetime:
    """Since when the first of them has waited."""
    return min((message.queued_at for message in messages if message.queued_at is not None), default=clock.now())


def _was_queued(messages: Sequence[Message]) -> bool:
    """Whether one of them has waited so long that there must be a queue."""
    return _queued_since(messages) < clock.now() - _QUEUED_FOR
