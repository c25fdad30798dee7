"""What one task holds of the outbox: claimed messages, from the claim to their outcome or back to the queue."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence, Set
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar
from uuid import UUID

from django.db import connections

from .. import metrics, outbox
from ..credentials import loggable
from ..models import Message, Pause, State, clock
from ..redaction import error_summary, redact_error
from ..replies import Outcome, error_text
from .announcing import announce
from .deadlines import Deadlines
from .outcome_log import log_outcome, log_reason
from .recording import Recorder

logger = logging.getLogger("congressy_mailer.delivery")

_R = TypeVar("_R")

#: Counted beside the states that messages have come to.
PUT_BACK = "put back"
HELD_BACK = "paused"

#: For the next mail's permit. What is left for less is published at once, as at the end of any time slice.
LONGEST_PAUSE = timedelta(seconds=1)

# However long a backend or a rate limit holds mail back: it may be otherwise by then.
_LONGEST_PUT_BACK = timedelta(minutes=1)


class Claims:
    """The messages that one task has claimed; every change of them is recorded in the outbox at once."""

    def __init__(self, token: str, recorder: Recorder, deadlines: Deadlines) -> None:
        """
        Args:
            token: of the claim.
            recorder: by which changes are written down.
            deadlines: of the task.
        """
        self.token = token
        self._recorder = recorder
        self._deadlines = deadlines
        #: Claimed, and not handed to a transport.
        self.waiting: dict[UUID, Message] = {}
        #: Handed to a transport, and without an outcome.
        self.handed_over: dict[UUID, Message] = {}
        #: When each was handed over, by ``time.monotonic()``.
        self._began: dict[UUID, float] = {}
        #: How many messages have come to each state, and how many were put back without an attempt.
        self.counts: Counter[str] = Counter()
        #: To be tried again after so many seconds.
        self.retries: dict[int, list[UUID]] = {}
        #: Until when what was put back need not be looked at.
        self.put_back_until: datetime | None = None
        #: One of the messages of this task is sensitive.
        self.sensitive = False

    def claim(self, claim: Callable[[], list[Message]]) -> list[Message]:
        """Claim messages by a function of the outbox.

        Raises:
            BaseException: what the function raises. What it may have claimed is given back first; what was claimed
                before stays, since its content may be on its way.
        """
        try:
            return claim()
        except BaseException:
            # They may be claimed although the answer was lost: no worker would look at them until the lease is over.
            with suppress(Exception):
                connections[outbox.database()].close()
                outbox.release_claim(self.token, self.waiting.keys() | self.handed_over.keys())
            raise

    def add(self, messages: Sequence[Message]) -> None:
        """Hold what has been claimed."""
        self.sensitive |= any(message.sensitive for message in messages)
        self.waiting |= {message.id: message for message in messages}

    def take_none_unavailable(self, messages: Sequence[Message]) -> bool:
        """Whether the claim of these messages has found no mail backend unavailable. It counts once: that changes."""
        none = not any(outbox.answer(message, outbox.IS_UNAVAILABLE) for message in messages)
        for message in messages:
            outbox.forget_answer(message, outbox.IS_UNAVAILABLE)
        return none

    # What is about to be sent

    def set_route(self, route: str, messages: Sequence[Message]) -> None:
        """Before any of them is handed over. Mail that goes where it always does needs no writing down."""
        new = [message for message in messages if message.route != route and not message.using]
        if new:
            ids = [message.id for message in new]
            self._recorder.retry_until_recorded(partial(outbox.set_route, self.token, ids, route))
            for message in new:
                message.route = route

    def hand_over(self, message: Message) -> None:
        """From here on only an outcome tells what became of it; without one it stays under its lease."""
        self.handed_over[message.id] = self.waiting.pop(message.id)
        self._began[message.id] = time.monotonic()

    def start_handover(self, ids: Collection[UUID]) -> Set[UUID]:
        """Write down that messages are about to be sent; returns those that the claim still holds."""
        return self._recorder.retry_until_recorded(partial(outbox.start_handover, self.token, ids))

    def take_back_handed_over(self) -> None:
        """What was handed to a transport and has no outcome was not sent."""
        self.waiting |= self.handed_over
        self.handed_over.clear()

    def may_send(self, message: Message) -> bool:
        """Whether the claim on a message still holds, before its content leaves.

        A claim of the first half of a lease is not asked for, unless an earlier one of another worker ran out: that
        one may have an acceptance to write down.
        """
        if not (self._deadlines.extension_is_due or message.crashes):
            return True
        self._recorder.flush()
        return self._extend([message.id]) > 0

    def keep_handed_over(self) -> None:
        """Keep the claims on what is in a server's hands, where half of their lease is over."""
        if self._deadlines.extension_is_due and self.handed_over:
            self._extend(list(self.handed_over))

    def _extend(self, ids: Sequence[UUID]) -> int:
        """Hold these messages for another lease, since they are being worked on; returns how many are still held."""
        since = clock.elapsed()
        held = self._recorder.retry_until_recorded(partial(outbox.extend_claim, self.token, ids))
        self._deadlines.claims_extended(since)
        return held

    # What is not sent now

    def put_back(self, ids: Sequence[UUID], until: datetime | None = None) -> None:
        """Put those of these that wait back on the queue, without an attempt.

        Args:
            ids: of messages.
            until: when they become due again; ``None`` where the caller publishes them itself.
        """
        mine = [message for key in ids if (message := self.waiting.pop(key, None)) is not None]
        if mine:
            self.put_back_until = until or self.put_back_until
            self._recorder.retry_until_recorded(partial(outbox.release, self.token, mine, until))
            self.counts[PUT_BACK] += len(mine)

    def put_back_for(self, wait: timedelta, messages: Sequence[Message]) -> None:
        """Put back what has not begun, without an attempt, to be looked at when there may be room for it."""
        if wait < LONGEST_PAUSE:
            return
        self._recorder.flush()
        wait = min(wait, _LONGEST_PUT_BACK)
        unfinished = [message for message in messages if message.id in self.waiting]
        self.put_back([message.id for message in unfinished], until=clock.now() + wait)
        for message in unfinished:
            if not message.waits_with_batch:
                self.schedule_retry(message, wait)

    def hold(self, messages: Sequence[Message], pause: Pause) -> None:
        """Put messages back until a pause is resumed, without an attempt."""
        mine = [message.id for message in messages if self.waiting.pop(message.id, None) is not None]
        if mine:
            self._recorder.retry_until_recorded(partial(outbox.hold, self.token, mine, pause))
            self.counts[HELD_BACK] += len(mine)

    def remove_suppressed(self, matches: Sequence[tuple[Message, dict[str, str]]]) -> None:
        """Leave out suppressed recipients; a message that has no other is ended."""
        remaining = self._recorder.retry_until_recorded(partial(outbox.remove_suppressed, self.token, matches))
        for message, _ in matches:
            if message.id not in remaining:
                self._end(message)

    def record(self, message: Message, outcome: Outcome) -> None:
        """Record what became of a message that is held no more."""
        self.schedule_retry(message, self._recorder.record(message, outcome))
        log_outcome(message, outcome, self._began.pop(message.id, None))

    def fail(self, message: Message, reason: str) -> None:
        """End a message that can never be sent."""
        recorded = self._record_reason(partial(outbox.fail, self.token, message.id), reason)
        del self.waiting[message.id]
        self.counts[State.FAILED] += 1
        if recorded:
            # A message that one recipient has received counts as sent, also where the others were refused.
            message.state = State.SENT if message.sent_at else State.FAILED
            if not message.sent_at:
                metrics.count_state(message)
            log_reason(message, reason)
            announce(message)

    def withhold(self, message: Message, reason: str) -> None:
        """Set a message aside for a person to decide."""
        self._record_reason(partial(outbox.withhold, self.token, message), reason)
        self._end(message)
        log_reason(message, reason)
        announce(message)

    def postpone(self, message: Message, reason: str) -> str:
        """Put a message aside that cannot be composed now. Returns the reason, with the time of the next try."""
        wait = self._record_reason(partial(outbox.postpone, self.token, message), reason)
        self._end(message)
        log_reason(message, message.reason or reason)
        self.schedule_retry(message, wait)
        announce(message)
        return message.reason or reason

    def fail_unexpectedly(self, message: Message, error: BaseException) -> None:
        """An error that no step provides for ends this attempt, as a temporary refusal does: tried again for a while.

        It may be a fault of the host's code, of a row that an older version stored, or of ours.
        """
        waits = message.id in self.waiting
        reason = redact_error(message, error) if message.sensitive else error_text(error)
        # A traceback ends with the exception's words.
        trace = None if message.sensitive else loggable(error)
        if waits:
            reason = self.postpone(message, reason)
        # Recorded already: nothing that a handler or filter of the host's raises may stop the messages behind it.
        with suppress(Exception):
            logger.error("Message %s %s: %s", message.id, "waits" if waits else "was recorded", reason, exc_info=trace)

    def exhausted(self, messages: Sequence[Message], error: Exception, when: str) -> None:
        """The process ran out of time or memory, one of these messages being the cause: each is tried again alone."""
        for message in messages:
            reason = f"{type(error).__name__} {when}"
            if message.sensitive:
                # A traceback ends with the exception's words.
                logger.error("Message %s: %s %s.", message.id, error_summary(error), when)
            else:
                logger.error("Message %s: %s.", message.id, reason, exc_info=loggable(error))
            self.record_crash(message, reason)
            del self.waiting[message.id]
        self.end_slice()

    def end_slice(self) -> None:
        """Begin nothing more."""
        self._deadlines.end_slice()

    def record_crash(self, message: Message, reason: str) -> None:
        """The process ends with this message, and perhaps because of it."""
        self._recorder.retry_until_recorded(lambda: outbox.record_crash(self.token, message, reason))
        self.counts[PUT_BACK if message.state == State.QUEUED else message.state] += 1
        metrics.count_state(message)
        announce(message)

    def schedule_retry(self, message: Message, wait: timedelta | None) -> None:
        """Have a message published again after a while; ``None``: a sweep or its batch finds it."""
        if wait is not None:
            # A second more: the message must be due when its id comes.
            self.retries.setdefault(round(wait.total_seconds()) + 1, []).append(message.id)

    def _end(self, message: Message) -> None:
        del self.waiting[message.id]
        self.counts[message.state] += 1
        if message.state != State.SENT:
            metrics.count_state(message)

    def _record_reason(self, change: Callable[[str], _R], reason: str) -> _R:
        return self._recorder.retry_until_recorded(partial(change, reason), plainer=partial(change, ascii(reason)))
