"""Writing down what became of messages: what was simply accepted together, and never long after the server said so."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import TypeVar

from celery.exceptions import SoftTimeLimitExceeded
from django.db import DataError, Error, IntegrityError, connections

from .. import metrics, outbox
from ..models import Message, State
from ..replies import Outcome, Reply, error_text, with_ascii_replies
from .announcing import announce
from .deadlines import Deadlines
from .noting import Notes

# As delivery's: it is one story.
logger = logging.getLogger("congressy_mailer.delivery")

_R = TypeVar("_R")
_LONGEST_WAIT_FOR_DATABASE = 5.0

#: Seconds that a server's word may wait to be written down together with others. Together with the time that writing
#: takes this must stay below 100 ms: the window in which a killed worker may have a mail sent twice.
LONGEST_PENDING = 0.05


class Recorder:
    """Writes down outcomes for one claim."""

    def __init__(self, token: str, deadlines: Deadlines, *, batch_accepted: bool, notes: Notes | None = None) -> None:
        """
        Args:
            token: of the claim.
            deadlines: of the task. Its slice is ended when the time that Celery allows is over: writing down comes
                first.
            batch_accepted: whether what was accepted may wait for what comes next.
            notes: where what was accepted stands until it is recorded; ``None``: nowhere.
        """
        self._token = token
        #: Of the task.
        self.deadlines = deadlines
        self._batch_accepted = batch_accepted
        self._notes = notes or Notes(token)
        #: Something could not be written down in time: no message's fault, and nothing more may be begun.
        self.gave_up = False
        #: Accepted, and not written down.
        self._pending: list[tuple[Message, Reply]] = []
        #: Since when the first of them waits.
        self._pending_since = 0.0
        #: Recorded, and not yet announced to the receivers of signals.
        self._unannounced: deque[Message] = deque()

    @property
    def pending(self) -> int:
        """How many acceptances wait to be written down."""
        return len(self._pending)

    def note(self, message: Message, outcome: Outcome) -> None:
        """Note what became of a message, as soon as that is known: killed, this process would know it no more.

        Args:
            message: which is claimed.
            outcome: as it may be stored.
        """
        self._notes.note(message, outcome)

    def record(self, message: Message, outcome: Outcome) -> timedelta | None:
        """Write down what became of a message, now or within :data:`LONGEST_PENDING`.

        Returns:
            As :func:`congressy_mailer.outbox.record`.

        Raises:
            django.db.OperationalError: the database is away, and the lease is about to end.
        """
        self._notes.note(message, outcome)
        only_accepted = outcome.accepted and not (outcome.deferred or outcome.rejected or outcome.in_doubt)
        if not (self._batch_accepted and only_accepted) or message.sensitive:
            # What is to be written down now may have to wait for another's lock.
            self.flush()
            wait = self._record_one(message, outcome)
            metrics.count_state(message, outcome)
            self._notes.forget([message.id])
            self._unannounced.append(message)
            return wait
        if not self._pending:
            self._pending_since = time.monotonic()
        self._pending.append((message, outcome.reply))
        if time.monotonic() - self._pending_since >= LONGEST_PENDING:
            self.flush()
        return None

    def flush(self) -> None:
        """Write down what waits.

        Raises:
            django.db.OperationalError: the database is away, and the lease is about to end.
        """
        if not self._pending:
            return
        accepted = self._pending
        self.retry_until_recorded(
            partial(outbox.record_accepted, self._token, accepted),
            # That a mail was accepted must not depend on words which the database does not take, least of all on those
            # about another mail.
            plainer=lambda: self._record_each_in_ascii(accepted),
        )
        # Not before: what could not be written down is tried again on the way out.
        self._pending = []
        metrics.count_sent([message for message, _ in accepted])
        self._notes.forget([message.id for message, _ in accepted])
        for message, _ in accepted:
            message.state = State.SENT
            self._unannounced.append(message)

    def announce(self) -> None:
        """Tell receivers of signals what was written down.

        Not while a content is on its way to a server: a receiver may take any time, or end the process.
        """
        metrics.flush_if_due(ends=False)
        while self._unannounced:
            announce(self._unannounced.popleft())

    def _record_each_in_ascii(self, accepted: Sequence[tuple[Message, Reply]]) -> None:
        for message, reply in accepted:
            outcome = Outcome(message.id, accepted=tuple(message.envelope), reply=reply)
            outbox.record(self._token, message, with_ascii_replies(outcome))

    def _record_one(self, message: Message, outcome: Outcome) -> timedelta | None:
        return self.retry_until_recorded(
            partial(outbox.record, self._token, message, outcome),
            plainer=partial(outbox.record, self._token, message, with_ascii_replies(outcome)),
        )

    def retry_until_recorded(self, change: Callable[[], _R], *, plainer: Callable[[], _R] | None = None) -> _R:
        """What the server has taken must be written down, also where the database is away for a while.

        Args:
            change: of the outbox, in a transaction of its own.
            plainer: the same without texts that a database may refuse; made where it refuses ``change``.

        Raises:
            django.db.DatabaseError: the database is away or read-only, and the lease is about to end.
        """
        wait = 0.1
        while True:
            try:
                return change()
            except (DataError, IntegrityError, UnicodeError):
                # Another time would make no difference.
                if plainer is None:
                    raise
                change, plainer = plainer, None
            except Error as error:
                # Away, or read-only after a failover, or a connection that an interruption has left in a bad way.
                connection = connections[outbox.database()]
                if connection.in_atomic_block or wait > self.deadlines.claims_left:
                    self.gave_up = True
                    raise
                if plainer is not None and not outbox.is_away():
                    # MariaDB calls a character that a column cannot hold an operational error.
                    with suppress(Error, UnicodeError):
                        return plainer()
                logger.warning("The database is away; what was sent is recorded when it is back: %s", error_text(error))
                connection.close()
                self.sleep(wait)
                wait = min(wait * 2, _LONGEST_WAIT_FOR_DATABASE)
            except SoftTimeLimitExceeded:
                # Raised once. The record matters more, for as long as the lease holds.
                self.deadlines.end_slice()

    def sleep(self, seconds: float) -> None:
        """Wait, unless the time that Celery allows is over."""
        try:
            time.sleep(seconds)
        except SoftTimeLimitExceeded:
            self.deadlines.end_slice()
