"""Processing a batch of events: read, and given to :mod:`.recording` some at a time.

What cannot be processed is set aside, and named.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from celery.exceptions import SoftTimeLimitExceeded

from ..conf import mailer_settings
from ..exceptions import DATABASE_AWAY
from ..models import WebhookBatch
from ..models.transactions import is_away, is_conflict
from ..redaction import error_summary
from ..sparkpost.event_batches import TooDeep, read_items
from ..sparkpost.events import ParsedEvent, parse_events
from . import inbox
from .inbox import Ticket
from .recording import track

logger = logging.getLogger("congressy_mailer.sparkpost")

# Events of one transaction: enough to be fast, and few enough that its locks are short.
_CHUNK = 500


def process(ticket: Ticket) -> None:
    """Process a batch, unless another has taken it or it has been processed.

    Raises:
        django.db.OperationalError: the database is away, or kept on breaking off our transactions. The batch is given
            back, to be continued.
    """
    began = time.monotonic()
    batch = inbox.claim(ticket)
    if batch is None:
        return
    if batch.attempts > mailer_settings().MAX_CRASHES:
        _set_aside(batch, f"It was begun {batch.attempts - 1} times without progress.")
        return
    try:
        problems = _process(batch)
    except SoftTimeLimitExceeded:
        # Counted, so that a batch which never makes progress within the time ends.
        inbox.postpone(batch)
        raise
    except DATABASE_AWAY:
        if is_away():
            inbox.release_claim(batch)
        else:
            inbox.postpone(batch)
        raise
    except Exception as error:
        # Of any type: the other batches are to be processed.
        _set_aside(batch, f"It cannot be read: {error_summary(error)}.")
        return
    if problems:
        _set_aside(batch, problems.problem)
    else:
        inbox.finish(batch)
        logger.info("SparkPost's events: processed %d, %.1f s", batch.events, time.monotonic() - began)


@dataclass
class _Problems:
    """Why events could not be recorded: the first reason, and how many events there were."""

    problem: str = ""
    _first: str = ""
    _count: int = 0

    def __bool__(self) -> bool:
        return bool(self.problem)

    def add(self, problem: str) -> None:
        self._count += 1
        self._first = self._first or problem
        others = self._count - 1
        self.problem = f"{self._first} The same holds for {others} other events." if others else self._first


def _process(batch: WebhookBatch) -> _Problems:
    """Record the events some at a time, from where the last worker came to."""
    problems = _Problems()
    if batch.problem:
        problems.add(batch.problem)
    processed = batch.processed
    remaining = islice(_events(batch), processed, None)
    while chunk := list(islice(remaining, _CHUNK)):
        if processed != batch.processed and not inbox.save_progress(batch, processed, problems.problem):
            # It took so long that another has begun, who comes to the end of it.
            return _Problems()
        readable = [one for one in chunk if isinstance(one, ParsedEvent)]
        for _ in range(len(chunk) - len(readable)):
            problems.add("An event is nested too deeply to be read.")
        _record(readable, problems)
        processed += len(chunk)
    return problems


def _events(batch: WebhookBatch) -> Iterator[ParsedEvent | TooDeep]:
    for item in read_items(inbox.body_of(batch)):
        if isinstance(item, TooDeep):
            yield item
        else:
            yield from parse_events([item], batch.received_at)


def _record(events: Sequence[ParsedEvent], problems: _Problems) -> None:
    """Record what can be: where one event is the reason that others cannot be, it is left behind alone."""
    try:
        track(events)
    except SoftTimeLimitExceeded:
        raise
    except Exception as error:
        # A database that answers has refused these events; what it broke off in favour of others is tried again.
        if isinstance(error, DATABASE_AWAY) and (is_conflict(error) or is_away()):
            raise
        if len(events) == 1:
            problems.add(f"Event {events[0].key} cannot be recorded: {error_summary(error)}.")
            return
        middle = len(events) // 2
        _record(events[:middle], problems)
        _record(events[middle:], problems)


def _set_aside(batch: WebhookBatch, problem: str) -> None:
    # Without the body, which contains addresses.
    logger.error("A batch of SparkPost's events, %s, is set aside, and kept with what it says: %s", batch.key, problem)
    inbox.finish(batch, problem)
