"""Counting in a process: into memory at once, into the database about once a second.

A process that is killed loses what it has counted within the last two seconds. The messages themselves say what became
of them, so that counts need not be exact at the price of a statement for each mail.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from datetime import datetime, timedelta

from django.db import Error, connections, transaction

from ..conf import mailer_settings
from ..models import Batch, CountSample, Message, State, clock
from ..models.transactions import database
from ..replies import Outcome
from . import counters

logger = logging.getLogger("congressy_mailer.metrics")

#: Seconds between two writes of one process.
WRITE_EVERY = 1.0
#: Seconds after which a process writes that has no task any more.
WRITE_IDLE_AFTER = 2.0

# What a database that was away did not take is dropped after this time.
_LONGEST_PENDING = timedelta(hours=1)

#: Minute, backend, queue, priority, name.
_Key = tuple[datetime, str, str, int, str]

_STATES = {State.FAILED: counters.FAILED, State.SUPPRESSED: counters.SUPPRESSED, State.HELD: counters.HELD}


class _Pending:
    """What this process has counted and not written."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.counts: Counter[_Key] = Counter()
        self.written_at = 0.0
        self.timer: threading.Timer | None = None
        os.register_at_fork(after_in_child=self._reset_after_fork)

    def _reset_after_fork(self) -> None:
        # What was counted is the parent's to write, and its lock may be held.
        self.lock = threading.Lock()
        self.counts = Counter()
        self.timer = None

    def add(self, keys: Iterable[_Key], amount: int = 1) -> None:
        with self.lock:
            for key in keys:
                self.counts[key] += amount

    def take(self) -> Counter[_Key]:
        with self.lock:
            taken, self.counts = self.counts, Counter()
            self.written_at = time.monotonic()
        return taken

    def put_back(self, counts: Counter[_Key]) -> None:
        with self.lock:
            self.counts.update(counts)


_pending = _Pending()


def count_state(message: Message, outcome: Outcome | None = None) -> None:
    """Count the state that a message has come to.

    Args:
        message: its new state is set.
        outcome: what the server made of it; ``None``: it did not come to a server.
    """
    if message.state == State.SENT:
        count_sent([message])
    elif message.state == State.DEFERRED:
        replies = outcome.deferred.values() if outcome is not None else ()
        _pending.add([_key(message, counters.deferral(replies, in_doubt=outcome is not None and outcome.in_doubt))])
    elif (name := _STATES.get(State(message.state))) is not None:
        _pending.add([_key(message, name)])


def count_sent(messages: Sequence[Message]) -> None:
    """Count messages that a server has accepted just now, and how long each took."""
    now = clock.now()
    minute = _minute(now)
    counted: Counter[_Key] = Counter()
    for message in messages:
        backend, queue, priority = dimensions(message)
        counted[minute, backend, queue, priority, counters.ACCEPTED] += 1
        if message.queued_at is not None:
            seconds = max((now - message.queued_at).total_seconds(), 0.0)
            counted[minute, backend, queue, priority, counters.bucket(seconds)] += 1
            counted[minute, backend, queue, priority, counters.MILLISECONDS] += round(seconds * 1000)
    _pending.put_back(counted)


def count_expired(messages: Iterable[Message]) -> None:
    """Count messages that have just expired; of each its key, backend, route, batch and priority are needed."""
    _pending.add(_key(message, counters.EXPIRED) for message in messages)


def count_expired_in_batch(batch: Batch, count: int) -> None:
    """Count messages that have expired with their batch.

    Args:
        batch: what they have in common.
        count: how many they were.
    """
    if count:
        key = (_minute(clock.now()), batch.using, mailer_settings().BULK_QUEUE, batch.priority, counters.EXPIRED)
        _pending.add([key], count)


def count_events(events: Iterable[tuple[Message, str]]) -> None:
    """Count the events of messages that were sent.

    Args:
        events: the message, and one of the names.
    """
    _pending.add(_key(message, name) for message, name in events)


def count_at_call(messages: Sequence[Message]) -> None:
    """Write at once which messages were suppressed at the call, in the transaction of the caller."""
    suppressed = [message for message in messages if message.state == State.SUPPRESSED]
    if suppressed:
        counts = Counter((*dimensions(message), counters.SUPPRESSED) for message in suppressed)
        _insert(_minute(clock.now()), [[*key, count] for key, count in counts.items()])


def dimensions(message: Message) -> tuple[str, str, int]:
    """What counts are kept apart by: mail backend, queue and priority."""
    conf = mailer_settings()
    return message.route or message.using, conf.BULK_QUEUE if message.batch_id else conf.QUEUE, message.priority


def _key(message: Message, name: str) -> _Key:
    return (_minute(clock.now()), *dimensions(message), name)


def _minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


def flush_if_due(*, ends: bool = True) -> None:
    """Write what was counted, unless this process did within the last second.

    Args:
        ends: the task ends. What is not written now is written after a later task; where none follows, by a thread that
            opens a connection for it.
    """
    if not _pending.counts:
        return
    if time.monotonic() - _pending.written_at >= WRITE_EVERY:
        flush()
        return
    if not ends:
        return
    with _pending.lock:
        if _pending.timer is None or not _pending.timer.is_alive():
            _pending.timer = threading.Timer(WRITE_IDLE_AFTER, _flush_when_idle)
            _pending.timer.daemon = True
            _pending.timer.start()


def flush() -> None:
    """Write what this process has counted. Never raises: what the database does not take now is written later."""
    counts = _pending.take()
    by_minute: dict[datetime, list[list[object]]] = {}
    for (minute, *dimensions, name), count in counts.items():
        by_minute.setdefault(minute, []).append([*dimensions, name, count])
    for minute, entries in by_minute.items():
        try:
            _insert(minute, entries)
        except Error as error:
            logger.debug("Counts could not be written (%s) and are written later.", type(error).__name__)
            if clock.now() - minute < _LONGEST_PENDING:
                _pending.put_back(Counter({key: count for key, count in counts.items() if key[0] == minute}))


def flush_and_close() -> None:
    """Write what is left where no task runs: in a process that ends, or a thread of its own."""
    if _pending.counts:
        try:
            flush()
        finally:
            connections[database()].close()


def _flush_when_idle() -> None:
    # Tasks that came meanwhile have written, or do so when they end.
    if time.monotonic() - _pending.written_at >= WRITE_EVERY:
        flush_and_close()


def _insert(minute: datetime, entries: list[list[object]]) -> None:
    """One statement, without the transaction that Django's ORM would open and without signals."""
    connection = connections[database()]
    fields = [field for field in CountSample._meta.concrete_fields if not field.primary_key]
    row = CountSample(minute=minute, counts=entries)
    values = [field.get_db_prep_save(getattr(row, field.attname), connection) for field in fields]
    quoted = connection.ops.quote_name
    table = quoted(CountSample._meta.db_table)
    columns = ", ".join(quoted(str(field.column)) for field in fields)
    # A surrounding transaction must survive an error here.
    savepoint = transaction.atomic(using=database()) if connection.in_atomic_block else nullcontext()
    with savepoint, connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {table} ({columns}) VALUES (%s, %s)", values)  # noqa: S608
