"""Processing a batch of events: read, and written down some at a time. What cannot be is set aside, and named."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

from celery.exceptions import SoftTimeLimitExceeded
from django.db import InterfaceError, InternalError, OperationalError

from ..conf import mailer_settings
from ..models import WebhookBatch
from ..redaction import error_summary
from ..sparkpost.events import ParsedEvent, parse_events
from . import inbox
from .inbox import Ticket
from .recording import track

logger = logging.getLogger("congressy_mailer.sparkpost")

# Events of one transaction: enough to be fast, and few enough that nobody waits for its locks.
_CHUNK = 500

#: The database's fault, and no event's.
DATABASE_ERRORS = (OperationalError, InterfaceError, InternalError)


def process(ticket: Ticket) -> None:
    """Process a batch, unless another has taken it or it has been processed.

    Raises:
        django.db.OperationalError: the database is away. The batch is given back.
    """
    batch = inbox.claim(ticket)
    if batch is None:
        return
    if batch.attempts > mailer_settings().MAX_CRASHES:
        _set_aside(batch, f"{batch.attempts - 1} workers have died while processing it.")
        return
    try:
        problems = _process(batch)
    except (*DATABASE_ERRORS, SoftTimeLimitExceeded):
        inbox.release_claim(batch)
        raise
    except Exception as error:
        # Whatever it is, the other batches are to be processed.
        _set_aside(batch, f"It cannot be read: {error_summary(error)}.")
        return
    if problems:
        first, *others = problems
        _set_aside(batch, f"{first} So it was with {len(others)} other events." if others else first)
    else:
        inbox.finish(batch)


def _process(batch: WebhookBatch) -> list[str]:
    """Returns what could not be written down."""
    events = list(parse_events(json.loads(inbox.body_of(batch)), batch.received_at))
    problems: list[str] = []
    for start in range(0, len(events), _CHUNK):
        if start and not inbox.extend_lease(batch):
            # It took so long that another has begun, who comes to the end of it.
            break
        problems += _record(events[start : start + _CHUNK])
    return problems


def _record(events: Sequence[ParsedEvent]) -> list[str]:
    """Write down what can be: where one event is the reason that others cannot, it is left behind alone."""
    try:
        track(events)
    except (*DATABASE_ERRORS, SoftTimeLimitExceeded):
        raise
    except Exception as error:
        if len(events) == 1:
            return [f"Event {events[0].key} cannot be written down: {error_summary(error)}."]
        middle = len(events) // 2
        return _record(events[:middle]) + _record(events[middle:])
    return []


def _set_aside(batch: WebhookBatch, problem: str) -> None:
    # Without what it says: addresses are in it.
    logger.error("A batch of SparkPost's events, %s, is set aside, and kept with what it says: %s", batch.key, problem)
    inbox.finish(batch, problem)
