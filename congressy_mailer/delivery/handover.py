"""Mail on its way over one mail backend: handed over as long as it may be, and recorded as the server answers."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Sequence, Set
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from ..conf import mailer_settings
from ..exceptions import login_missing_error
from ..mime.addresses import domain_of
from ..models import Message, State
from ..redaction import redact_outcome
from ..replies import Outcome
from ..throttling import RateLimiter
from ..transports.base import ComposedMail, Transport
from ..transports.pool import max_mails_per_call
from . import missing_login, sending_rate
from .availability import CircuitBreaker
from .claims import LONGEST_PAUSE, Claims
from .composing_ahead import ComposingAhead
from .deadlines import Deadlines
from .mails import Mails
from .memory import HeldMails, expected_size
from .recording import Recorder

logger = logging.getLogger("congressy_mailer.delivery")


class Handover:
    """One delivery over one mail backend."""

    def __init__(
        self,
        using: str,
        *,
        claims: Claims,
        deadlines: Deadlines,
        recorder: Recorder,
        composing: ComposingAhead,
        breaker: CircuitBreaker,
        rate_limiter: RateLimiter,
        should_yield: Callable[[], bool],
        before_chunk: Callable[[], None],
        hold_back: Callable[[Sequence[UUID], datetime], None],
        claim_more: Callable[[], Sequence[Message]] | None,
    ) -> None:
        """
        Args:
            using: the backend's alias.
            claims: which hold the messages.
            deadlines: of the task.
            recorder: which writes down outcomes.
            composing: which composes the messages.
            breaker: of the backend.
            rate_limiter: of the backend.
            should_yield: whether something more urgent waits, asked between two chunks of mails.
            before_chunk: called before it is looked whether the slice is over.
            hold_back: puts back, until then, what waits for a sender that is refused.
            claim_more: claims what comes next, once all that was claimed is handed over; ``None``: nothing does.
        """
        self._using = using
        self._claims = claims
        self._deadlines = deadlines
        self._recorder = recorder
        self._composing = composing
        self._breaker = breaker
        self._rate_limiter = rate_limiter
        self._should_yield = should_yield
        self._before_chunk = before_chunk
        self._hold_back = hold_back
        self._claim_more = claim_more
        #: Many mails go out together.
        self._shares_calls = max_mails_per_call(using) > 1
        self._hold = mailer_settings().ON_CRASH == "hold"
        #: Refused over a connection without login, perhaps for that: see :mod:`.missing_login`.
        self._login_doubts: list[tuple[Message, Outcome]] = []
        #: The backend has taken a mail.
        self._accepts = False
        #: What was raised while an outcome was recorded; nothing more is handed over then.
        self._recording_error: BaseException | None = None
        #: How long the next mail's turn is away, where that ended the slice.
        self.permit_wait = timedelta(0)
        self._waiting: deque[Message] = deque()
        #: Claimed while the mails before them were on their way.
        self._claimed_ahead: Sequence[Message] = ()
        #: Since mails were last composed it was asked what comes next.
        self._asked_ahead = False
        #: Something more urgent waits.
        self._yields = False
        self._held_mails = HeldMails()
        self._source = Mails(
            self._mails(),
            composing,
            rate_limiter,
            breaker,
            start_contents=self._start_contents,
            note=self._note,
            take_late=self._record_or_remember,
            use_wait=self._use_wait,
            has_room=self._has_room,
        )

    def deliver(self, transport: Transport, messages: Sequence[Message]) -> None:
        """Hand over these messages, in this order, and record what becomes of them.

        Raises:
            TransportUnavailable: the backend cannot be used.
        """
        self._waiting.extend(messages)
        self._source.claimed = len(messages)
        self._source.more_to_claim = self._claim_more is not None and len(messages) >= self._fitting
        began, count = time.monotonic(), 0
        outcomes = transport.deliver(self._source, self._before_waiting)
        try:
            for outcome in outcomes:
                count += 1
                self._record_or_remember(outcome)
        finally:
            # A signal's exception may come between two outcomes, while others are still to be heard.
            if isinstance(outcomes, Generator):
                outcomes.close()
            self._held_mails.release_all()
        sending_rate.observe(self._using, count, time.monotonic() - began)
        if self._recording_error is not None:
            raise self._recording_error
        self._settle_login_doubts()

    def _before_waiting(self) -> None:
        """Before a server is waited for: record what is known, and keep the claims on what is in its hands."""
        self._recorder.flush()
        self._claims.keep_handed_over()

    # Handing over

    @property
    def _fitting(self) -> int:
        """How many mails are sent in the time that is left."""
        return sending_rate.sent_in(self._using, self._deadlines.slice_left)

    def _mails(self) -> Iterator[ComposedMail]:
        """Mails as a transport asks for them, some composed at a time.

        Composing may take any time, or end the process. So what was accepted is written down before it begins, and
        so much is composed at once that this is not needed for each mail.
        """
        waiting, source = self._waiting, self._source
        if not self._composing.prepare(waiting):
            return
        begun = handed_over = False
        while self._goes_on(begun=begun):
            begun = True
            self._recorder.flush()
            self._recorder.announce()
            limit = len(waiting) if self._shares_calls else self._fitting
            if not waiting:
                self._claim_ahead()
                waiting.extend(self._claimed_ahead)
                self._claimed_ahead = ()
                if not waiting or not self._composing.prepare(waiting):
                    return
            composed = self._composing.next_chunk(waiting, self._may_be_sent, limit, source.width)
            source.claimed = len(waiting)
            for message, mail in composed:
                self._held_mails.hold(message.id, mail)
            self._asked_ahead = False
            # Who asks the database before each mail is not asked while others are on their way.
            asks_each = self._hold and not source.asks_before_contents
            source.composed = 0 if asks_each else len(composed)
            for message, mail in composed:
                source.composed = max(source.composed - 1, 0)
                # What has been composed is sent, unless the process is to end.
                if (handed_over and not self._deadlines.slice_ends) or self._deadlines.lease_is_over:
                    return
                if self._recording_error is not None:
                    return
                if not self._may_be_sent(message):
                    self._held_mails.release(message.id)
                    continue
                if not self._wait_for_permit():
                    return
                if asks_each and not self._claims.start_handover([message.id]):
                    del self._claims.waiting[message.id]
                    self._held_mails.release(message.id)
                    continue
                self._claims.hand_over(message)
                handed_over = True
                yield ComposedMail(message.id, mail, self._deadlines.may_begin, partial(self._may_send, message))
            if self._yields or self._should_yield():
                return

    def _has_room(self) -> bool:
        """Whether the next mail fits into what this process may hold."""
        return self._held_mails.has_room(expected_size(self._waiting[0]) if self._waiting else 0)

    def _may_send(self, message: Message) -> bool:
        may_send = self._claims.may_send(message)
        if not may_send:
            # Another worker has it, and it gets no outcome here.
            self._held_mails.release(message.id)
        return may_send

    def _use_wait(self) -> None:
        """Find out what follows while the contents of what was composed are on their way."""
        self._before_chunk()
        self._yields = self._yields or self._should_yield()
        if not (self._waiting or self._yields or self._deadlines.slice_is_over):
            self._claim_ahead()

    def _claim_ahead(self) -> None:
        """Claim what comes next, once for what was composed last."""
        if self._asked_ahead or self._recording_error is not None or self._claim_more is None:
            return
        self._asked_ahead = True
        limit = self._fitting
        self._claimed_ahead = self._claim_more()
        self._source.claimed = len(self._claimed_ahead)
        self._source.more_to_claim = len(self._claimed_ahead) >= limit

    def _start_contents(self, keys: Collection[UUID]) -> Set[UUID]:
        return self._claims.start_handover(keys) if self._hold else set(keys)

    def _goes_on(self, *, begun: bool) -> bool:
        self._before_chunk()
        return not (begun and self._deadlines.slice_is_over) and not self._deadlines.lease_is_over

    def _may_be_sent(self, message: Message) -> bool:
        """Whether its sender is still accepted; it is put back if not."""
        until = self._breaker.open_until.get(domain_of(message.from_email))
        if until is not None:
            self._recorder.flush()
            self._hold_back([message.id], until)
        return until is None

    def _wait_for_permit(self) -> bool:
        """Wait until the next mail may be handed over; false where the time slice ends before."""
        while wait := self._rate_limiter.acquire(self._recorder.flush):
            # Not for long: an envelope may be open, and the server waits for its content.
            if wait > LONGEST_PAUSE or wait.total_seconds() > self._deadlines.slice_left:
                self.permit_wait = wait
                self._deadlines.end_slice()
                return False
            self._recorder.flush()
            self._recorder.sleep(wait.total_seconds())
        return True

    # Recording

    def _note(self, outcome: Outcome) -> None:
        message = self._claims.handed_over.get(outcome.key)
        if message is not None:
            self._recorder.note(message, redact_outcome(message, outcome))

    def _record_or_remember(self, outcome: Outcome) -> None:
        """Record an outcome; after an error the outcomes of all that was handed over still follow, and nothing else.

        A transport may know several outcomes at once. Mails whose outcome were lost here would be sent again.
        """
        try:
            self._record(outcome)
        except BaseException as error:
            self._recording_error = self._recording_error or error

    def _record(self, outcome: Outcome) -> None:
        message = self._claims.handed_over.pop(outcome.key)
        self._held_mails.release(message.id)
        if outcome.interrupted:
            logger.warning("Message %s was interrupted: the mail server takes longer than TIME_LIMIT.", message.id)
            self._deadlines.end_slice()
        if outcome.perhaps_no_login and not self._accepts:
            # No recipient has it. The end of the slice decides its state.
            self._claims.handed_over[message.id] = message
            self._login_doubts.append((message, outcome))
            return
        outcome = redact_outcome(message, outcome)
        if outcome.sender_refused:
            self._record_refused_sender(message, outcome)
            return
        self._claims.record(message, outcome)
        # What was simply accepted may be written down a moment later.
        state = State.SENT if outcome.accepted and not outcome.deferred else message.state
        self._claims.counts[state] += 1
        replies = (outcome.reply, *outcome.deferred.values(), *outcome.rejected.values())
        if any(reply.code is not None for reply in replies):
            # Any reply, also a refusal of the mail, shows that the server is reachable.
            self._breaker.record_success()
        if outcome.accepted:
            self._accepts = True
            self._breaker.record_success(domain_of(message.from_email))
        self._rate_limiter.observe_replies(replies, self._recorder.flush)

    def _record_refused_sender(self, message: Message, outcome: Outcome) -> None:
        sender_domain = domain_of(message.from_email)
        # What was composed may be put back now: the next mail may have to be composed.
        self._source.composed = 0
        self._breaker.record_failure(sender_domain, str(outcome.reply))
        self._claims.waiting[message.id] = message
        self._hold_back([message.id], self._breaker.open_until[sender_domain])
        self._breaker.record_success()

    def _settle_login_doubts(self) -> None:
        """Record what was refused over a connection without login, unless all mail is refused for that.

        Raises:
            TransportUnavailable: no login is configured, and the server takes no mail without one.
        """
        doubts, self._login_doubts = self._login_doubts, []
        if not doubts:
            return
        if not self._accepts and missing_login.explains(self._using, [outcome for _, outcome in doubts]):
            raise login_missing_error(doubts[0][1].reply)
        for message, outcome in doubts:
            del self._claims.handed_over[message.id]
            self._claims.record(message, redact_outcome(message, outcome))
