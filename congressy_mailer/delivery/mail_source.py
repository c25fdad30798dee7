"""The mails of a delivery as a transport asks for them: claimed, composed, and each once the rate limit lets it go."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence, Set
from datetime import timedelta
from functools import partial
from uuid import UUID

from ..conf import mailer_settings
from ..mime.addresses import domain_of
from ..models import Message
from ..replies import Outcome
from ..transports.base import ComposedMail, MailSource
from ..transports.selection import max_mails_per_call
from . import sending_rate
from .claims import LONGEST_PAUSE
from .handover_outcomes import Outcomes
from .memory import HeldMails, expected_size
from .task_parts import Route, TaskParts

# Mails that a full claim lets one expect behind it.
_MANY = 1000


class Mails(MailSource):
    """The mails of one delivery over one mail backend."""

    def __init__(
        self,
        messages: Sequence[Message],
        parts: TaskParts,
        route: Route,
        outcomes: Outcomes,
        held_mails: HeldMails,
        claim_more: Callable[[], Sequence[Message]] | None,
    ) -> None:
        """
        Args:
            messages: which are sent first, in this order.
            parts: of the task.
            route: the backend.
            outcomes: by which outcomes are recorded that the transport hears of.
            held_mails: where the mails in memory are counted.
            claim_more: claims what comes next, once all that was claimed is handed over; ``None``: nothing does.
        """
        self._parts = parts
        self._route = route
        self._outcomes = outcomes
        self._held_mails = held_mails
        self._claim_more = claim_more
        #: Many mails go out together.
        self._shares_calls = max_mails_per_call(self._route.using) > 1
        self._hold = mailer_settings().ON_CRASH == "hold"
        #: How long the next mail's turn is away, where that ended the slice.
        self.permit_wait = timedelta(0)
        self._waiting: deque[Message] = deque(messages)
        #: Claimed while the mails before them were on their way.
        self._claimed_ahead: Sequence[Message] = ()
        #: Since mails were last composed it was asked what comes next.
        self._asked_ahead = False
        #: Something more urgent waits.
        self._yields = False
        self._mails = self._composed_mails()
        #: Composed last, and not handed over.
        self._last_composed = 0
        #: Claimed, and not composed.
        self._claimed = len(messages)
        #: As many were claimed as there may be: most likely there are more.
        self._more_to_claim = claim_more is not None and len(messages) >= self._fitting

    # What the transport asks

    def __next__(self) -> ComposedMail:
        return next(self._mails)

    @property
    def ready(self) -> int:
        # A wait for the rate would keep replies from being read, and so may the store that is asked for it.
        return self._composed if self._route.rate_limiter.grants_at_once else 0

    @property
    def has_room(self) -> bool:
        if self._composed > 0:
            return True
        return self._held_mails.has_room(expected_size(self._waiting[0]) if self._waiting else 0)

    @property
    def is_paced(self) -> bool:
        return self._route.rate_limiter.is_limited

    @property
    def expected(self) -> int:
        if self._route.breaker.is_probing:
            # A probe sends one mail before all others, and its result goes to the receivers of a signal.
            return 1
        return self._composed + self._claimed + (_MANY if self._more_to_claim else 0)

    @property
    def composing_seconds(self) -> float:
        return self._parts.composing.seconds

    def start_contents(self, keys: Collection[UUID]) -> Set[UUID]:
        return self._parts.claims.start_handover(keys) if self._hold else set(keys)

    def use_wait(self) -> None:
        """Find out what follows while the contents of what was composed are on their way."""
        self._parts.before_chunk()
        self._yields = self._yields or self._parts.should_yield()
        if not (self._waiting or self._yields or self._parts.deadlines.slice_is_over):
            self._claim_ahead()

    def note(self, outcome: Outcome) -> None:
        self._outcomes.note(outcome)

    def take_late(self, outcome: Outcome) -> None:
        self._outcomes.record(outcome)

    # What it is given

    @property
    def _composed(self) -> int:
        """How many are composed and not handed over; 0 where some of them may be put back."""
        return 0 if self._outcomes.sender_refused else self._last_composed

    @property
    def _fitting(self) -> int:
        """How many mails are sent in the time that is left."""
        return sending_rate.sent_in(self._route.using, self._parts.deadlines.slice_left)

    def _composed_mails(self) -> Iterator[ComposedMail]:
        """Mails as they are asked for, some composed at a time.

        Composing may take any time, or end the process. So what was accepted is written down before it begins, and
        so much is composed at once that this is not needed for each mail.
        """
        waiting = self._waiting
        if not self._parts.composing.prepare(waiting):
            return
        begun = handed_over = False
        while self._goes_on(begun=begun):
            begun = True
            self._parts.recorder.flush()
            self._parts.recorder.announce()
            limit = len(waiting) if self._shares_calls else self._fitting
            if not waiting:
                self._claim_ahead()
                waiting.extend(self._claimed_ahead)
                self._claimed_ahead = ()
                if not waiting or not self._parts.composing.prepare(waiting):
                    return
            composed = self._parts.composing.next_chunk(waiting, self._may_be_sent, limit, self.width)
            self._claimed = len(waiting)
            for message, mail in composed:
                self._held_mails.hold(message.id, mail)
            self._asked_ahead = False
            # Who asks the database before each mail is not asked while others are on their way.
            asks_each = self._hold and not self.asks_before_contents
            self._last_composed = 0 if asks_each else len(composed)
            self._outcomes.sender_refused = False
            for message, mail in composed:
                self._last_composed = max(self._last_composed - 1, 0)
                # What has been composed is sent, unless the process is to end.
                if (handed_over and not self._parts.deadlines.slice_ends) or self._parts.deadlines.lease_is_over:
                    return
                if self._outcomes.error is not None:
                    return
                if not self._may_be_sent(message):
                    self._held_mails.release(message.id)
                    continue
                if not self._wait_for_permit():
                    return
                if asks_each and not self._parts.claims.start_handover([message.id]):
                    del self._parts.claims.waiting[message.id]
                    self._held_mails.release(message.id)
                    continue
                self._parts.claims.hand_over(message)
                handed_over = True
                yield ComposedMail(message.id, mail, self._parts.deadlines.may_begin, partial(self._may_send, message))
            if self._yields or self._parts.should_yield():
                return

    def _may_send(self, message: Message) -> bool:
        may_send = self._parts.claims.may_send(message)
        if not may_send:
            # Another worker has it, and it gets no outcome here.
            self._held_mails.release(message.id)
        return may_send

    def _claim_ahead(self) -> None:
        """Claim what comes next, once for what was composed last."""
        if self._asked_ahead or self._outcomes.error is not None or self._claim_more is None:
            return
        self._asked_ahead = True
        limit = self._fitting
        self._claimed_ahead = self._claim_more()
        self._claimed = len(self._claimed_ahead)
        self._more_to_claim = len(self._claimed_ahead) >= limit

    def _goes_on(self, *, begun: bool) -> bool:
        self._parts.before_chunk()
        return not (begun and self._parts.deadlines.slice_is_over) and not self._parts.deadlines.lease_is_over

    def _may_be_sent(self, message: Message) -> bool:
        """Whether its sender is still accepted; it is put back if not."""
        until = self._route.breaker.open_until.get(domain_of(message.from_email))
        if until is not None:
            self._parts.recorder.flush()
            self._route.hold_back([message.id], until)
        return until is None

    def _wait_for_permit(self) -> bool:
        """Wait until the next mail may be handed over; false where the time slice ends before."""
        while wait := self._route.rate_limiter.acquire(self._parts.recorder.flush):
            # Not for long: an envelope may be open, and the server waits for its content.
            if wait > LONGEST_PAUSE or wait.total_seconds() > self._parts.deadlines.slice_left:
                self.permit_wait = wait
                self._parts.deadlines.end_slice()
                return False
            self._parts.recorder.flush()
            self._parts.recorder.sleep(wait.total_seconds())
        return True
