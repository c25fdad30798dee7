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

from django.db import DataError, InterfaceError, OperationalError, connections
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from .. import outbox
from ..conf import mailer_settings
from ..exceptions import ContentError, ContentNotReady, NoFreeConnection, TransportUnavailable
from ..mime.addresses import domain_of
from ..mime.outgoing import OutgoingMail
from ..models import Message, Priority
from ..outbox.backoff import FLOOR
from ..redaction import described, discreet, discreet_error, told
from ..replies import Outcome
from ..suppressions.lookup import listed_recipients
from ..throttling import Pace, pace_for
from ..transports.base import Composed
from ..transports.pool import most_in_a_call, transport_for
from . import routing
from .availability import Gate
from .composing import Composer
from .recording import LONGEST_PENDING, Recorder
from .shutdown import sigterm_waits

logger = logging.getLogger("congressy_mailer.delivery")

_R = TypeVar("_R")

# For the next mail's turn.
_LONGEST_PAUSE = timedelta(seconds=1)

# However low the rate is: it may be another one by then.
_LONGEST_ABSENCE = timedelta(minutes=1)

# Bytes and seconds that are composed ahead, at the most.
_BYTES_AHEAD = 1_000_000
_LARGE = 100_000
_COMPOSING_AHEAD = 0.05

# Seconds between two looks, in the midst of a batch, for what should go before it.
_LOOK_AROUND = 0.2

# A message that has waited for longer is in a queue, where others may be more urgent.
_IN_A_QUEUE = timedelta(seconds=1)


@dataclass
class Slice:
    """What is left to do after a slice."""

    #: Put back because the time was over.
    left: list[UUID] = field(default_factory=list)
    #: To be claimed each alone: a worker died while holding them.
    alone: list[UUID] = field(default_factory=list)
    #: To be tried again after so many seconds.
    waiting: dict[int, list[UUID]] = field(default_factory=dict)
    #: Of the batch: when somebody should go on with it; ``None`` where nothing of it is waiting.
    go_on_at: datetime | None = None


class Delivery:
    """Delivers messages for one task."""

    def __init__(self, token: str) -> None:
        conf = mailer_settings()
        self._token = token
        #: By :func:`time.monotonic`, when the time slice is over; 0 where it is to end at once.
        self._until = time.monotonic() + conf.TIME_SLICE.total_seconds()
        self._slice_size = conf.SLICE_SIZE
        self._hold = conf.ON_CRASH == "hold"
        # Not to the last moment: another worker may take the message then.
        self._lease_ends = time.monotonic() + conf.LEASE.total_seconds() * 0.9
        self._recorder = Recorder(
            # Where a crash leaves it to a person what was not written down, as little as possible is.
            token, lease_ends=self._lease_ends, together=not self._hold, interrupted=self._end_slice,
        )  # fmt: skip
        #: Claimed, and not handed to a transport.
        self._open: dict[UUID, Message] = {}
        #: Handed to a transport, and without an outcome.
        self._handed_over: dict[UUID, Message] = {}
        #: Put back because the time was over.
        self._left: list[UUID] = []
        self._stopped = False
        #: How many messages are composed before the first of them is handed over.
        self._ahead = 4
        #: When something more urgent than a batch was last looked for; ``None`` where there is nothing to go before.
        self._looked_around: float | None = None
        #: Mail backends that cannot be used, and until when.
        self._closed: dict[str, datetime] = {}
        #: What would go before a batch cannot be sent now.
        self._way_is_closed = False
        #: Until when what was put back need not be looked at.
        self._put_back_until: datetime | None = None
        self._composer = Composer()
        #: How long the next mail's turn is away, where that ended the slice.
        self._too_early = timedelta(0)
        self._slice = Slice()

    @sensitive_variables()
    def run(self, ids: Sequence[UUID], *, redelivered: bool) -> Slice:
        """Deliver what can be claimed of these messages.

        Raises:
            TransportUnavailable: a mail server cannot be used. Everything that was not sent is queued again.
            django.db.OperationalError: the database is away.
        """
        with sigterm_waits(self._stop):
            messages = self._claim(lambda: outbox.claim(ids, self._token, redelivered=redelivered))
            mine = len(messages)
            if messages and _has_queued(messages):
                least = max(message.priority for message in messages)
                urgent = partial(outbox.claim_waiting, self._token, self._slice_size, before=Priority(least))
                messages = sorted(messages + self._claim(urgent), key=lambda message: message.priority)
            self._work(messages)
            self._slice.left += self._left
            if mine < len(ids) > 1:
                self._slice.alone = outbox.suspects(ids)
            return self._slice

    @sensitive_variables()
    def run_batch(self, key: UUID, round: int) -> Slice:
        """Deliver what comes next of a batch, and before it what is in none and has been left waiting.

        Raises:
            TransportUnavailable: a mail server cannot be used. Everything that was not sent is queued again.
            django.db.OperationalError: the database is away.
        """
        with sigterm_waits(self._stop):
            batch = outbox.batch_with_content(key)
            size = self._slice_size
            while batch is not None:
                self._give_way()
                mine = self._claim(partial(outbox.claim_of_batch, batch, self._token, size))
                self._put_back_until = None
                self._work(mine)
                if not mine and not outbox.rest(key, round):
                    break
                if self._put_back_until is not None or time.monotonic() > self._until or not mine:
                    self._slice.go_on_at = self._put_back_until or timezone.now() + self._too_early
                    break
                if len(mine) == size and mailer_settings().RATE_LIMIT is None:
                    # All of it was sent, and there is time left: where many may share a call, more of them do.
                    size = max(size, min(2 * size, most_in_a_call(batch.using)))
            return self._slice

    def _give_way(self) -> None:
        """Deliver what goes before a batch: what is in none, and has been left waiting."""
        self._looked_around = time.monotonic()
        if self._way_is_closed:
            return
        try:
            self._work(self._claim(lambda: outbox.claim_waiting(self._token, self._slice_size)))
        except TransportUnavailable:
            # Its own tasks see to it; the batch may have another mail backend.
            self._way_is_closed = True
        self._way_is_closed |= self._put_back_until is not None
        self._slice.left += self._left

    def _may_begin(self) -> bool:
        return not self._stopped and time.monotonic() < self._lease_ends

    def _stop(self) -> None:
        self._end_slice()
        self._stopped = True

    def _end_slice(self) -> None:
        self._until = 0.0

    @sensitive_variables()
    def _work(self, messages: Sequence[Message]) -> None:
        """Deliver what has been claimed. What the time does not reach is put back, and is in ``_left`` afterwards."""
        self._left.clear()
        self._open |= {message.id: message for message in messages}
        unavailable: TransportUnavailable | None = None
        # Where this ends in an error nobody publishes what is left, and the next sweep does.
        left_until: datetime | None = timezone.now()
        try:
            messages = self._sifted(messages)
            for begun, using in enumerate(dict.fromkeys(message.using for message in messages)):
                if begun and time.monotonic() > self._until:
                    break
                try:
                    self._deliver_over_routes(using, [message for message in messages if message.using == using])
                except TransportUnavailable as error:
                    # Another backend's mail need not wait for this one.
                    unavailable = error
            if unavailable is None and not self._stopped:
                left_until = None
        finally:
            # Also on the way out of an error: nothing has to wait for the lease to run out.
            self._left += self._open
            try:
                self._recorder.flush()
            finally:
                self._put_back(self._left, until=left_until)
        if unavailable is not None:
            raise unavailable

    def _sifted(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Those that somebody is left of who is not on the suppression list; the others are ended."""
        listed = listed_recipients(messages)
        if not listed:
            return messages
        found = [(message, listed[message.id]) for message in messages if message.id in listed]
        left = self._recorder.insist(partial(outbox.leave_out, self._token, found))
        for message, _ in found:
            if message.id not in left:
                del self._open[message.id]
        return [message for message in messages if message.id in self._open]

    def _claim(self, claim: Callable[[], list[Message]]) -> list[Message]:
        try:
            return claim()
        except BaseException:
            # They may have been claimed, and not read: nobody would know of it until the lease is over.
            with suppress(Exception):
                connections[outbox.database()].close()
                outbox.give_back(self._token)
            raise

    def _deliver_over_routes(self, using: str, messages: Sequence[Message]) -> None:
        """Deliver over the first mail backend that can be used, and whatever is bound to another one over that.

        Raises:
            TransportUnavailable: for some of them there is none.
        """
        unavailable: TransportUnavailable | None = None
        bound_to_it = False
        for route in routing.routes(using, messages):
            mine = [message for message in messages if message.id in self._open and routing.may_go(message, route)]
            if not mine:
                continue
            free = {message.id for message in mine if not routing.is_bound(message)}
            try:
                self._deliver(route, mine, elsewhere=free)
            except TransportUnavailable as error:
                unavailable = error
                bound_to_it |= len(free) < len(mine)
            if route not in self._closed:
                # It can be used: what has not been begun waits for it.
                messages = [message for message in messages if routing.is_bound(message)]
        left = [message.id for message in messages if not routing.is_bound(message)]
        if left:
            # Whichever is tried first.
            until = min(self._closed.values())
            self._put_back(left, until=until)
            if unavailable is not None and unavailable.retry_in is not None:
                unavailable.retry_in = min(unavailable.retry_in, max(until - timezone.now(), FLOOR))
        if unavailable is not None and (left or bound_to_it):
            raise unavailable

    def _deliver(self, using: str, messages: Sequence[Message], elsewhere: Set[UUID]) -> None:
        """Deliver over one mail backend.

        Args:
            using: its alias.
            messages: what may go over it.
            elsewhere: those of them that stay open where it cannot be used, since another may take them. Until when
                that is, is in ``_closed`` afterwards.

        Raises:
            TransportUnavailable: the backend as a whole was found to be.
        """
        self._closed.pop(using, None)
        senders = {domain_of(message.from_email) for message in messages}
        gate = Gate(using, senders, before_telling=self._recorder.flush)
        pace = pace_for(using)
        self._too_early = timedelta(0)
        try:
            if "" in gate.closed:
                self._closed[using] = gate.closed[""]
                messages = [message for message in messages if message.id not in elsewhere]
            messages = self._admitted(gate, messages)
            if messages:
                self._note_route(using, messages)
                with transport_for(using) as transport:
                    for outcome in transport.deliver(self._compose_all(gate, pace, messages), self._recorder.flush):
                        self._record(gate, pace, outcome)
            # It was taken, and its time was over before it was begun.
            self._open |= self._handed_over
            self._handed_over.clear()
            self._leave_for(self._too_early, messages)
        except NoFreeConnection as busy:
            # What was handed over and has no outcome was not sent.
            self._open |= self._handed_over
            self._handed_over.clear()
            self._leave_for(busy.retry_in, messages)
        except TransportUnavailable as found:
            self._recorder.flush()
            error = discreet_error(self._handed_over.values(), found)
            # What was handed over and has no outcome was not sent.
            self._open |= self._handed_over
            self._handed_over.clear()
            error.retry_in = gate.failed("", str(error), at_least=found.retry_in)
            self._closed[using] = gate.closed[""]
            self._put_back([message.id for message in messages if message.id not in elsewhere], until=gate.closed[""])
            raise error from (found.__cause__ if error is found else None)
        finally:
            gate.leave()

    def _note_route(self, route: str, messages: Sequence[Message]) -> None:
        """Before any of them is handed over. Mail that goes where it always does needs no writing down."""
        new = [message for message in messages if message.via != route and not message.using]
        if new:
            self._recorder.insist(partial(outbox.note_route, self._token, [message.id for message in new], route))
            for message in new:
                message.via = route

    def _leave_for(self, wait: timedelta, messages: Sequence[Message]) -> None:
        """Put back what has not begun, without an attempt, to be looked at when there may be room for it."""
        # What is left for less is published at once, as at the end of any time slice.
        if wait >= _LONGEST_PAUSE:
            self._recorder.flush()
            wait = min(wait, _LONGEST_ABSENCE)
            left = [message for message in messages if message.id in self._open]
            self._put_back([message.id for message in left], until=timezone.now() + wait)
            for message in left:
                if not message.waits_with_batch:
                    self._wait(message, wait)

    def _turn_comes(self, pace: Pace) -> bool:
        """Wait until the next mail may be handed over; false where the time slice ends before."""
        while wait := pace.wait_for_turn(self._recorder.flush):
            # Not for long: an envelope may be open, and the server waits for its content.
            if wait > _LONGEST_PAUSE or time.monotonic() + wait.total_seconds() > self._until:
                self._too_early = wait
                self._end_slice()
                return False
            self._recorder.flush()
            self._recorder.sleep(wait.total_seconds())
        return True

    def _admitted(self, gate: Gate, messages: Sequence[Message]) -> list[Message]:
        """Those that may be sent now; the others are put back until it makes sense to look again."""
        admitted = []
        shut: dict[datetime, list[UUID]] = {}
        for message in messages:
            until = gate.closed.get("") or gate.closed.get(domain_of(message.from_email))
            if until is None:
                admitted.append(message)
            else:
                shut.setdefault(until, []).append(message.id)
        for until, ids in shut.items():
            self._put_back(ids, until=until)
        return admitted

    def _put_back(self, ids: Sequence[UUID], until: datetime | None = None) -> None:
        mine = [message for key in ids if (message := self._open.pop(key, None)) is not None]
        if mine:
            self._put_back_until = until or self._put_back_until
            self._recorder.insist(partial(outbox.release, self._token, mine, until))

    def _record(self, gate: Gate, pace: Pace, outcome: Outcome) -> None:
        message = self._handed_over.pop(outcome.key)
        sender_domain = domain_of(message.from_email)
        outcome = discreet(message, outcome)
        if outcome.sender_refused:
            gate.failed(sender_domain, str(outcome.reply))
            self._open[message.id] = message
            self._put_back([message.id], until=gate.closed[sender_domain])
            gate.succeeded()
            return
        self._wait(message, self._recorder.record(message, outcome))
        replies = (outcome.reply, *outcome.deferred.values(), *outcome.rejected.values())
        if any(reply.code is not None for reply in replies):
            # Whatever it thinks of the mail, the server is there.
            gate.succeeded()
        if outcome.accepted:
            gate.succeeded(sender_domain)
        pace.heard(replies, self._recorder.flush)

    def _compose_all(self, gate: Gate, pace: Pace, messages: Sequence[Message]) -> Iterator[Composed]:
        """Mails as a transport asks for them, some composed at a time.

        Composing may take any time, or end the process. So what was accepted is written down before it begins, and
        so much is composed at once that this is not needed for each mail.
        """
        self._composer.prepare(messages)
        waiting = deque(messages)
        begun = handed_over = False
        while waiting and not (begun and time.monotonic() > self._until) and time.monotonic() < self._lease_ends:
            begun = True
            self._recorder.flush()
            composed = self._compose_some(gate, waiting)
            began = time.monotonic()
            for message, mail in composed:
                # What has been composed is sent, unless the process is to end.
                if (handed_over and not self._until) or time.monotonic() > self._lease_ends:
                    return
                if not self._still_admitted(gate, message):
                    continue
                if not self._turn_comes(pace):
                    return
                if self._hold and not self._recorder.insist(partial(outbox.begin, self._token, message.id)):
                    del self._open[message.id]
                    continue
                # From here on only an outcome tells what became of it; without one it stays under its lease.
                self._handed_over[message.id] = self._open.pop(message.id)
                handed_over = True
                yield Composed(message.id, mail, self._may_begin)
            self._look_ahead(took=time.monotonic() - began)
            if self._should_give_way():
                return

    def _compose_some(self, gate: Gate, waiting: deque[Message]) -> list[tuple[Message, OutgoingMail]]:
        """As many as are sent in the time that an outcome may wait, and no more than fit into little memory."""
        composed: list[tuple[Message, OutgoingMail]] = []
        began = time.monotonic()
        size = 0
        while waiting and len(composed) < self._ahead and size < _BYTES_AHEAD:
            message = waiting.popleft()
            if self._still_admitted(gate, message) and (mail := self._composed(message)) is not None:
                composed.append((message, mail))
                # One that Django writes is written when it is sent.
                size += _LARGE if mail.wire is None else len(mail.wire)
            if time.monotonic() - began > _COMPOSING_AHEAD:
                break
        return composed

    def _still_admitted(self, gate: Gate, message: Message) -> bool:
        until = gate.closed.get(domain_of(message.from_email))
        if until is not None:
            self._recorder.flush()
            self._put_back([message.id], until=until)
        return until is None

    def _look_ahead(self, took: float) -> None:
        """Compose as many at once as are sent in about the time that an outcome may wait."""
        if took < LONGEST_PENDING:
            self._ahead = min(self._ahead * 2, self._slice_size)
        elif took > 2 * LONGEST_PENDING:
            self._ahead = max(self._ahead // 2, 1)

    def _should_give_way(self) -> bool:
        """Now and then, in the midst of a batch: whether something has come that goes before it."""
        if self._looked_around is None or time.monotonic() - self._looked_around < _LOOK_AROUND:
            return False
        self._looked_around = time.monotonic()
        return outbox.anything_waiting()

    @sensitive_variables()
    def _composed(self, message: Message) -> OutgoingMail | None:
        """The mail; ``None`` where it cannot be composed, and the message is looked after."""
        try:
            return self._composer.compose(message)
        except ContentNotReady as error:
            said = told(message, error)
            logger.warning("Message %s waits: %s", message.id, said)
            self._wait(message, self._say(outbox.postpone, message, said))
        except ContentError as error:
            said = told(message, error)
            logger.error("Message %s failed: %s", message.id, said)
            self._say(outbox.fail, message, said)
        except (OperationalError, InterfaceError):
            # The database's fault, and no message's.
            raise
        except Exception as error:
            # Out of time, out of memory, or a fault of ours: none of it may stop the messages behind it.
            said = f"{type(error).__name__} while it was composed"
            if message.sensitive:
                # A traceback ends with the exception's words.
                logger.error("Message %s: %s while it was composed.", message.id, described(error))
            else:
                logger.exception("Message %s: %s.", message.id, said)
            self._crashed(message, said)
            self._until = 0.0
        except BaseException as error:
            # The process is being ended, most likely because of this message.
            self._crashed(message, f"{type(error).__name__} while it was composed")
            raise
        del self._open[message.id]
        return None

    def _say(self, change: Callable[[str, UUID, str], _R], message: Message, said: str) -> _R:
        try:
            return self._recorder.insist(partial(change, self._token, message.id, said))
        except (DataError, UnicodeError):
            return self._recorder.insist(partial(change, self._token, message.id, ascii(said)))

    def _crashed(self, message: Message, said: str) -> None:
        self._recorder.insist(lambda: outbox.crashed(self._token, message, said))

    def _wait(self, message: Message, wait: timedelta | None) -> None:
        if wait is not None:
            # A second more: the message must be due when its id comes.
            seconds = round(wait.total_seconds()) + 1
            self._slice.waiting.setdefault(seconds, []).append(message.id)


def _has_queued(messages: Sequence[Message]) -> bool:
    """Whether one of them has waited so long that there must be a queue."""
    long_ago = timezone.now() - _IN_A_QUEUE
    return any(message.queued_at is not None and message.queued_at < long_ago for message in messages)
