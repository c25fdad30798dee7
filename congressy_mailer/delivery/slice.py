"""One slice of delivery: claim, compose, hand over, record, for at most one time slice."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar
from uuid import UUID

from celery.exceptions import SoftTimeLimitExceeded
from django.db import Error, connections
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from .. import outbox
from ..conf import mailer_settings
from ..content.references import AT_LIMITS
from ..exceptions import ContentError, ContentNotReady, NoFreeConnection, TransportUnavailable
from ..mime.addresses import domain_of
from ..mime.outgoing import OutgoingMail
from ..models import Message
from ..outbox.backoff import FLOOR
from ..redaction import error_summary, redact_error, redact_outcome, redact_unavailable
from ..replies import Outcome, error_text
from ..suppressions.lookup import suppressed_recipients
from ..throttling import RateLimiter, rate_limiter_for
from ..transports.base import ComposedMail
from ..transports.pool import max_mails_per_call, transport_for
from . import routing
from .availability import CircuitBreaker
from .composing import Composer
from .host_code import contained
from .recording import LONGEST_PENDING, Recorder
from .shutdown import deferred_sigterm

logger = logging.getLogger("congressy_mailer.delivery")

_R = TypeVar("_R")

# For the next mail's permit.
_LONGEST_PAUSE = timedelta(seconds=1)

# However low the rate is: it may be another one by then.
_LONGEST_PUT_BACK = timedelta(minutes=1)

# Bytes and seconds that are composed ahead, at the most.
_BYTES_AHEAD = 1_000_000
_UNWRITTEN_SIZE = 100_000
_SECONDS_AHEAD = 0.05

# Seconds between two looks, in the midst of a batch, for what should go before it.
_URGENT_CHECK_INTERVAL = 0.2

# A message that has waited for longer is in a queue, where others may be more urgent.
_QUEUED_FOR = timedelta(seconds=1)


@dataclass
class SliceResult:
    """What is left to do after a slice."""

    #: Put back because the time was over, to be published again.
    unfinished: list[UUID] = field(default_factory=list)
    #: To be claimed each alone: a worker died while holding them.
    solo: list[UUID] = field(default_factory=list)
    #: To be tried again after so many seconds.
    retries: dict[int, list[UUID]] = field(default_factory=dict)
    #: Of the batch: when somebody should go on with it; ``None`` where nothing of it is waiting.
    continue_at: datetime | None = None


class Delivery:
    """Delivers messages for one task."""

    def __init__(self, token: str) -> None:
        conf = mailer_settings()
        self._token = token
        #: By :func:`time.monotonic`, when the time slice is over; 0 where it is to end at once.
        self._slice_ends = time.monotonic() + conf.TIME_SLICE.total_seconds()
        self._slice_size = conf.SLICE_SIZE
        self._hold = conf.ON_CRASH == "hold"
        # Not to the last moment: another worker may take the message then.
        self._lease_ends = time.monotonic() + conf.LEASE.total_seconds() * 0.9
        self._recorder = Recorder(
            # Where a crash leaves it to a person what was not written down, as little as possible is.
            token, lease_ends=self._lease_ends, batch_accepted=not self._hold, on_interrupt=self._end_slice,
        )  # fmt: skip
        #: Claimed, and not handed to a transport.
        self._open: dict[UUID, Message] = {}
        #: Handed to a transport, and without an outcome.
        self._handed_over: dict[UUID, Message] = {}
        #: Put back because the time was over.
        self._unfinished: list[UUID] = []
        self._stopped = False
        #: How many messages are composed before the first of them is handed over.
        self._compose_ahead = 4
        #: When something more urgent than a batch was last looked for; ``None`` where there is nothing to go before.
        self._urgent_checked_at: float | None = None
        #: Mail backends that cannot be used, and until when.
        self._unavailable_until: dict[str, datetime] = {}
        #: What would go before a batch cannot be sent now.
        self._urgent_blocked = False
        #: Until when what was put back need not be looked at.
        self._put_back_until: datetime | None = None
        self._composer = Composer()
        #: What was raised while an outcome was recorded; nothing more is handed over then.
        self._recording_error: BaseException | None = None
        #: How long the next mail's turn is away, where that ended the slice.
        self._permit_wait = timedelta(0)
        self._result = SliceResult()

    @sensitive_variables()
    def run(self, ids: Sequence[UUID], *, redelivered: bool) -> SliceResult:
        """Deliver what can be claimed of these messages.

        Raises:
            TransportUnavailable: a mail server cannot be used. Everything that was not sent is queued again.
            django.db.OperationalError: the database is away.
        """
        with deferred_sigterm(self._stop):
            messages = self._claim(lambda: outbox.claim(ids, self._token, redelivered=redelivered))
            mine = len(messages)
            if messages and _was_queued(messages):
                least = max(message.priority for message in messages)
                urgent = partial(outbox.claim_waiting, self._token, self._slice_size, before=least)
                messages = sorted(messages + self._claim(urgent), key=lambda message: message.priority)
            self._work(messages)
            self._result.unfinished += self._unfinished
            if mine < len(ids) > 1:
                self._result.solo = outbox.needing_solo(ids)
            return self._result

    @sensitive_variables()
    def run_batch(self, key: UUID, generation: int) -> SliceResult:
        """Deliver what comes next of a batch, and before it what is in none and has been left waiting.

        Raises:
            TransportUnavailable: a mail server cannot be used. Everything that was not sent is queued again.
            django.db.OperationalError: the database is away.
        """
        with deferred_sigterm(self._stop):
            batch = outbox.batch_with_content(key)
            size = self._slice_size
            while batch is not None:
                self._deliver_urgent()
                mine = self._claim(partial(outbox.claim_from_batch, batch, self._token, size))
                self._put_back_until = None
                self._work(mine)
                if not mine and not outbox.reschedule_batch(key, generation):
                    break
                if self._put_back_until is not None or time.monotonic() > self._slice_ends or not mine:
                    self._result.continue_at = self._put_back_until or timezone.now() + self._permit_wait
                    break
                if len(mine) == size and mailer_settings().RATE_LIMIT is None:
                    # All of it was sent, and there is time left: where many may share a call, more of them do.
                    size = max(size, min(2 * size, max_mails_per_call(batch.using)))
            return self._result

    def _deliver_urgent(self) -> None:
        """Deliver what goes before a batch: what is in none, and has been left waiting."""
        self._urgent_checked_at = time.monotonic()
        if self._urgent_blocked:
            return
        try:
            self._work(self._claim(lambda: outbox.claim_waiting(self._token, self._slice_size)))
        except TransportUnavailable:
            # Its own tasks see to it; the batch may have another mail backend.
            self._urgent_blocked = True
        self._urgent_blocked |= self._put_back_until is not None
        self._result.unfinished += self._unfinished

    def _may_begin(self) -> bool:
        return not self._stopped and time.monotonic() < self._lease_ends

    def _stop(self) -> None:
        self._end_slice()
        self._stopped = True

    def _end_slice(self) -> None:
        self._slice_ends = 0.0

    @sensitive_variables()
    def _work(self, messages: Sequence[Message]) -> None:
        """Deliver what has been claimed. What the time does not reach is put back, and listed in ``_unfinished``."""
        self._unfinished.clear()
        self._open |= {message.id: message for message in messages}
        unavailable: TransportUnavailable | None = None
        # If this raises, the caller cannot publish what is left: make it due now for the next sweep.
        put_back_until: datetime | None = timezone.now()
        try:
            unavailable = self._deliver_together_or_alone(messages)
            if unavailable is None and not self._stopped:
                put_back_until = None
        finally:
            # Also on the way out of an error: nothing has to wait for the lease to run out.
            self._unfinished += self._open
            try:
                self._recorder.flush()
            finally:
                self._put_back(self._unfinished, until=put_back_until)
        if unavailable is not None:
            raise unavailable

    @sensitive_variables()
    def _deliver_together_or_alone(self, messages: Sequence[Message]) -> TransportUnavailable | None:
        """Deliver these messages; after an unexpected error each by itself, so that it is one message's alone.

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
            self._take_back_handed_over()
            if isinstance(error, SoftTimeLimitExceeded) or self._recorder.gave_up or outbox.is_away():
                raise
            if len(messages) == 1:
                self._failed_unexpectedly(messages[0], error)
                return None
            logger.warning(
                "%s while %d messages were delivered together; each is now delivered by itself.",
                error_summary(error), len(messages),
            )  # fmt: skip
        unavailable: TransportUnavailable | None = None
        for begun, message in enumerate([message for message in messages if message.id in self._open]):
            # One at the least: what used up the time may do so in each slice.
            if begun and time.monotonic() > self._slice_ends:
                break
            unavailable = self._deliver_together_or_alone([message]) or unavailable
        return unavailable

    def _failed_unexpectedly(self, message: Message, error: BaseException) -> None:
        """An error that no step provides for ends this attempt, as a temporary refusal does: tried again for a while.

        It may be a fault of the host's code, of a row that an older version stored, or of ours.
        """
        waits = message.id in self._open
        reason = redact_error(message, error) if message.sensitive else error_text(error)
        # A traceback ends with the exception's words.
        trace = None if message.sensitive else error
        if waits:
            self._schedule_retry(message, self._record_reason(outbox.postpone, message, reason))
            del self._open[message.id]
        # Recorded already: nothing that a handler or filter of the host's raises may stop the messages behind it.
        with suppress(Exception):
            logger.error("Message %s %s: %s", message.id, "waits" if waits else "was recorded", reason, exc_info=trace)

    def _deliver_over_backends(self, messages: Sequence[Message]) -> TransportUnavailable | None:
        messages = self._without_suppressed(messages)
        unavailable: TransportUnavailable | None = None
        for begun, using in enumerate(dict.fromkeys(message.using for message in messages)):
            if begun and time.monotonic() > self._slice_ends:
                break
            try:
                self._deliver_over_routes(using, [message for message in messages if message.using == using])
            except TransportUnavailable as error:
                # Another backend's mail need not wait for this one.
                unavailable = error
        return unavailable

    def _take_back_handed_over(self) -> None:
        """What was handed to a transport and has no outcome was not sent."""
        self._open |= self._handed_over
        self._handed_over.clear()

    def _without_suppressed(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Those that somebody is left of who is not on the suppression list; the others are ended."""
        suppressed = suppressed_recipients(messages)
        if not suppressed:
            return messages
        matches = [(message, suppressed[message.id]) for message in messages if message.id in suppressed]
        remaining = self._recorder.retry_until_recorded(partial(outbox.remove_suppressed, self._token, matches))
        for message, _ in matches:
            if message.id not in remaining:
                del self._open[message.id]
        return [message for message in messages if message.id in self._open]

    def _claim(self, claim: Callable[[], list[Message]]) -> list[Message]:
        try:
            return claim()
        except BaseException:
            # They may have been claimed, and not read: nobody would know of it until the lease is over.
            with suppress(Exception):
                connections[outbox.database()].close()
                outbox.release_claim(self._token)
            raise

    def _deliver_over_routes(self, using: str, messages: Sequence[Message]) -> None:
        """Deliver over the first mail backend that can be used, and whatever is bound to another one over that.

        Raises:
            TransportUnavailable: for some of them there is none.
        """
        unavailable: TransportUnavailable | None = None
        bound_mail_waits = False
        for route in routing.routes(using, messages):
            mine = [message for message in messages if message.id in self._open and routing.may_use(message, route)]
            if not mine:
                continue
            unbound = {message.id for message in mine if not routing.is_bound(message)}
            try:
                self._deliver(route, mine, reroutable=unbound)
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
            self._put_back(unfinished, until=until)
            if unavailable is not None and unavailable.retry_in is not None:
                unavailable.retry_in = min(unavailable.retry_in, max(until - timezone.now(), FLOOR))
        if unavailable is not None and (unfinished or bound_mail_waits):
            raise unavailable

    def _deliver(self, using: str, messages: Sequence[Message], reroutable: Set[UUID]) -> None:
        """Deliver over one mail backend.

        Args:
            using: its alias.
            messages: what may go over it.
            reroutable: those of them that stay open where it cannot be used, since another may take them. Until when
                that is, is in ``_unavailable_until`` afterwards.

        Raises:
            TransportUnavailable: the backend as a whole was found to be.
        """
        self._unavailable_until.pop(using, None)
        self._recording_error = None
        senders = {domain_of(message.from_email) for message in messages}
        breaker = CircuitBreaker(using, senders, before_update=self._recorder.flush)
        rate_limiter = rate_limiter_for(using)
        self._permit_wait = timedelta(0)
        try:
            if "" in breaker.open_until:
                self._unavailable_until[using] = breaker.open_until[""]
                messages = [message for message in messages if message.id not in reroutable]
            messages = self._sendable_now(breaker, messages)
            if messages:
                self._set_route(using, messages)
                with transport_for(using) as transport:
                    for outcome in transport.deliver(
                        self._compose_all(breaker, rate_limiter, messages), self._recorder.flush
                    ):
                        self._record_or_remember(breaker, rate_limiter, outcome)
                if self._recording_error is not None:
                    raise self._recording_error
            # It was taken, and its time was over before it was begun.
            self._take_back_handed_over()
            self._put_back_for(self._permit_wait, messages)
        except NoFreeConnection as no_connection:
            self._take_back_handed_over()
            self._put_back_for(no_connection.retry_in, messages)
        except TransportUnavailable as raised:
            self._recorder.flush()
            error = redact_unavailable(self._handed_over.values(), raised)
            self._take_back_handed_over()
            error.retry_in = breaker.record_failure("", str(error), minimum_wait=raised.retry_in)
            self._unavailable_until[using] = breaker.open_until[""]
            self._put_back(
                [message.id for message in messages if message.id not in reroutable], until=breaker.open_until[""]
            )
            raise error from (raised.__cause__ if error is raised else None)
        finally:
            breaker.release_probes()

    def _set_route(self, route: str, messages: Sequence[Message]) -> None:
        """Before any of them is handed over. Mail that goes where it always does needs no writing down."""
        new = [message for message in messages if message.route != route and not message.using]
        if new:
            self._recorder.retry_until_recorded(
                partial(outbox.set_route, self._token, [message.id for message in new], route)
            )
            for message in new:
                message.route = route

    def _put_back_for(self, wait: timedelta, messages: Sequence[Message]) -> None:
        """Put back what has not begun, without an attempt, to be looked at when there may be room for it."""
        # What is left for less is published at once, as at the end of any time slice.
        if wait >= _LONGEST_PAUSE:
            self._recorder.flush()
            wait = min(wait, _LONGEST_PUT_BACK)
            unfinished = [message for message in messages if message.id in self._open]
            self._put_back([message.id for message in unfinished], until=timezone.now() + wait)
            for message in unfinished:
                if not message.waits_with_batch:
                    self._schedule_retry(message, wait)

    def _wait_for_permit(self, rate_limiter: RateLimiter) -> bool:
        """Wait until the next mail may be handed over; false where the time slice ends before."""
        while wait := rate_limiter.acquire(self._recorder.flush):
            # Not for long: an envelope may be open, and the server waits for its content.
            if wait > _LONGEST_PAUSE or time.monotonic() + wait.total_seconds() > self._slice_ends:
                self._permit_wait = wait
                self._end_slice()
                return False
            self._recorder.flush()
            self._recorder.sleep(wait.total_seconds())
        return True

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
            self._put_back(ids, until=until)
        return sendable

    def _put_back(self, ids: Sequence[UUID], until: datetime | None = None) -> None:
        mine = [message for key in ids if (message := self._open.pop(key, None)) is not None]
        if mine:
            self._put_back_until = until or self._put_back_until
            self._recorder.retry_until_recorded(partial(outbox.release, self._token, mine, until))

    def _record_or_remember(self, breaker: CircuitBreaker, rate_limiter: RateLimiter, outcome: Outcome) -> None:
        """Record an outcome; after an error the outcomes of all that was handed over still follow, and nothing else.

        A transport may know several outcomes at once. Mails whose outcome were lost here would be sent again.
        """
        try:
            self._record(breaker, rate_limiter, outcome)
        except BaseException as error:
            self._recording_error = self._recording_error or error

    def _record(self, breaker: CircuitBreaker, rate_limiter: RateLimiter, outcome: Outcome) -> None:
        message = self._handed_over.pop(outcome.key)
        outcome = redact_outcome(message, outcome)
        if outcome.sender_refused:
            sender_domain = domain_of(message.from_email)
            breaker.record_failure(sender_domain, str(outcome.reply))
            self._open[message.id] = message
            self._put_back([message.id], until=breaker.open_until[sender_domain])
            breaker.record_success()
            return
        self._schedule_retry(message, self._recorder.record(message, outcome))
        replies = (outcome.reply, *outcome.deferred.values(), *outcome.rejected.values())
        if any(reply.code is not None for reply in replies):
            # Whatever it thinks of the mail, the server is there.
            breaker.record_success()
        if outcome.accepted:
            breaker.record_success(domain_of(message.from_email))
        rate_limiter.observe_replies(replies, self._recorder.flush)

    def _compose_all(
        self, breaker: CircuitBreaker, rate_limiter: RateLimiter, messages: Sequence[Message]
    ) -> Iterator[ComposedMail]:
        """Mails as a transport asks for them, some composed at a time.

        Composing may take any time, or end the process. So what was accepted is written down before it begins, and
        so much is composed at once that this is not needed for each mail.
        """
        try:
            with contained():
                self._composer.prepare(messages)
        except SoftTimeLimitExceeded as error:
            self._exhausted(messages, error, "while its context was read")
            return
        except (SystemExit, KeyboardInterrupt) as error:
            # The process is being ended, perhaps because of one of these messages: each is tried again alone.
            for message in messages:
                self._record_crash(message, f"{type(error).__name__} while its context was read")
                del self._open[message.id]
            raise
        waiting = deque(messages)
        begun = handed_over = False
        while waiting and not (begun and time.monotonic() > self._slice_ends) and time.monotonic() < self._lease_ends:
            begun = True
            self._recorder.flush()
            composed = self._compose_chunk(breaker, waiting)
            began = time.monotonic()
            for message, mail in composed:
                # What has been composed is sent, unless the process is to end.
                if (handed_over and not self._slice_ends) or time.monotonic() > self._lease_ends:
                    return
                if self._recording_error is not None:
                    return
                if not self._still_sendable(breaker, message):
                    continue
                if not self._wait_for_permit(rate_limiter):
                    return
                if self._hold and not self._recorder.retry_until_recorded(
                    partial(outbox.start_handover, self._token, message.id)
                ):
                    del self._open[message.id]
                    continue
                # From here on only an outcome tells what became of it; without one it stays under its lease.
                self._handed_over[message.id] = self._open.pop(message.id)
                handed_over = True
                yield ComposedMail(message.id, mail, self._may_begin)
            self._adjust_compose_ahead(took=time.monotonic() - began)
            if self._urgent_mail_waits():
                return

    def _compose_chunk(self, breaker: CircuitBreaker, waiting: deque[Message]) -> list[tuple[Message, OutgoingMail]]:
        """As many as are sent in the time that an outcome may wait, and no more than fit into little memory."""
        composed: list[tuple[Message, OutgoingMail]] = []
        began = time.monotonic()
        size = 0
        while waiting and len(composed) < self._compose_ahead and size < _BYTES_AHEAD:
            message = waiting.popleft()
            if self._still_sendable(breaker, message) and (mail := self._compose_or_record(message)) is not None:
                composed.append((message, mail))
                # One that Django writes is written when it is sent.
                size += _UNWRITTEN_SIZE if mail.wire is None else len(mail.wire)
            if time.monotonic() - began > _SECONDS_AHEAD:
                break
        return composed

    def _still_sendable(self, breaker: CircuitBreaker, message: Message) -> bool:
        until = breaker.open_until.get(domain_of(message.from_email))
        if until is not None:
            self._recorder.flush()
            self._put_back([message.id], until=until)
        return until is None

    def _adjust_compose_ahead(self, took: float) -> None:
        """Compose as many at once as are sent in about the time that an outcome may wait."""
        if took < LONGEST_PENDING:
            self._compose_ahead = min(self._compose_ahead * 2, self._slice_size)
        elif took > 2 * LONGEST_PENDING:
            self._compose_ahead = max(self._compose_ahead // 2, 1)

    def _urgent_mail_waits(self) -> bool:
        """Now and then, in the midst of a batch: whether something has come that goes before it."""
        if self._urgent_checked_at is None or time.monotonic() - self._urgent_checked_at < _URGENT_CHECK_INTERVAL:
            return False
        self._urgent_checked_at = time.monotonic()
        return outbox.has_waiting_messages()

    @sensitive_variables()
    def _compose_or_record(self, message: Message) -> OutgoingMail | None:
        """The mail; ``None`` where it cannot be composed, and the message is looked after."""
        try:
            with contained():
                return self._composer.compose(message)
        # Recorded before it is logged: a handler or filter of the host's may raise.
        except ContentNotReady as error:
            reason = redact_error(message, error)
            self._schedule_retry(message, self._record_reason(outbox.postpone, message, reason))
            del self._open[message.id]
            logger.warning("Message %s waits: %s", message.id, reason)
        except ContentError as error:
            reason = redact_error(message, error)
            self._record_reason(outbox.fail, message, reason)
            del self._open[message.id]
            logger.error("Message %s failed: %s", message.id, reason)
        except AT_LIMITS as error:
            self._exhausted([message], error, "while it was composed")
        except (SystemExit, KeyboardInterrupt) as error:
            # The process is being ended, perhaps because of this message.
            self._record_crash(message, f"{type(error).__name__} while it was composed")
            raise
        except BaseException as error:
            if isinstance(error, Error) and outbox.is_away():
                raise
            self._failed_unexpectedly(message, error)
        return None

    def _exhausted(self, messages: Sequence[Message], error: Exception, when: str) -> None:
        """The process ran out of time or memory, one of these messages being the cause: each is tried again alone."""
        for message in messages:
            reason = f"{type(error).__name__} {when}"
            if message.sensitive:
                # A traceback ends with the exception's words.
                logger.error("Message %s: %s %s.", message.id, error_summary(error), when)
            else:
                logger.error("Message %s: %s.", message.id, reason, exc_info=error)
            self._record_crash(message, reason)
            del self._open[message.id]
        self._end_slice()

    def _record_reason(self, change: Callable[[str, UUID, str], _R], message: Message, reason: str) -> _R:
        say = partial(change, self._token, message.id)
        return self._recorder.retry_until_recorded(partial(say, reason), plainer=partial(say, ascii(reason)))

    def _record_crash(self, message: Message, reason: str) -> None:
        self._recorder.retry_until_recorded(lambda: outbox.record_crash(self._token, message, reason))

    def _schedule_retry(self, message: Message, wait: timedelta | None) -> None:
        if wait is not None:
            # A second more: the message must be due when its id comes.
            seconds = round(wait.total_seconds()) + 1
            self._result.retries.setdefault(seconds, []).append(message.id)


def _was_queued(messages: Sequence[Message]) -> bool:
    """Whether one of them has waited so long that there must be a queue."""
    before = timezone.now() - _QUEUED_FOR
    return any(message.queued_at is not None and message.queued_at < before for message in messages)
