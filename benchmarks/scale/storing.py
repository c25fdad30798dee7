"""What callers and workers do to each other while batches are stored."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection

from django.db import Error, connections

from congressy_mailer import outbox, send_bulk
from congressy_mailer.delivery.deadlines import Deadlines
from congressy_mailer.delivery.recording import Recorder
from congressy_mailer.models import Batch, Message
from congressy_mailer.replies import Outcome

from ..report import Goal, Line, Report, percentile
from .databases import Sides, using
from .history import ACCEPTED
from .work import store

_SECONDS = 8.0
#: Between two words of a server: some 200 mails a second.
_PAUSE = 0.005


def measure(sides: Sides, rows: int, report: Report) -> None:
    """Conflicts at callers, and how long a server's word waits to be recorded."""
    if sides.vendor == "sqlite":
        return
    with using(sides.large):
        batch = store(int(2 * _SECONDS / _PAUSE))
        # A process that is made by fork() must not share a connection.
        connections.close_all()
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        callers = [context.Process(target=_call, args=(theirs, name), daemon=True) for name in ("a", "b")]
        for caller in callers:
            caller.start()
        try:
            delays = _record(batch)
        finally:
            for caller in callers:
                caller.join(60)
        told = [ours.recv() for _ in callers]
        batch.cancel()
    calls, failed = (sum(values) for values in zip(*told, strict=True))
    vendor = sides.vendor
    report.add(
        Line("scale", f"{vendor}: errors of callers, of {calls} calls of send_bulk() beside a worker", failed, "", None,
             "", Goal("ours", at_most=0.0))
    )  # fmt: skip
    report.add(
        Line("scale", f"{vendor}: from a server's word to its record, while batches are stored, 99th percentile",
             1000 * percentile(delays, 0.99), "median", 1000 * percentile(delays, 0.5), "ms",
             Goal("ours", at_most=100.0), runs={"delays": delays})
    )  # fmt: skip


def _call(told: Connection, name: str) -> None:
    """Store batches until the time is over."""
    calls = failed = 0
    until = time.monotonic() + _SECONDS
    while time.monotonic() < until:
        people = (f"{name}{calls}-{place}@example.com" for place in range(2000))
        calls += 1
        try:
            send_bulk(people, subject="s", message="b", key=f"{name}{calls}", on_invalid="skip")
        except Error:
            failed += 1
    told.send((calls, failed))


def _record(batch: Batch) -> list[float]:
    """Record as a worker does, also mail of what is being stored; returns the seconds that each word waited."""
    delays: list[float] = []
    heard: list[float] = []
    token = outbox.new_claim_token("scale")
    recorder = Recorder(token, Deadlines(), batch_accepted=True)
    until = time.monotonic() + _SECONDS
    held: list[Message] = []
    while time.monotonic() < until:
        held = held or _claim(token) or outbox.claim_from_batch(batch, token, 100)
        message = held.pop()
        heard.append(time.monotonic())
        recorder.record(message, Outcome(message.pk, accepted=tuple(message.envelope), reply=ACCEPTED))
        if not held:
            recorder.flush()
        if not recorder.pending:
            now = time.monotonic()
            delays += [now - moment for moment in heard]
            heard.clear()
        time.sleep(_PAUSE)
    recorder.flush()
    outbox.release(token, held)
    return delays


def _claim(token: str) -> list[Message]:
    """What a task for a batch does that a caller is still storing."""
    stored = Batch.objects.filter(stored_at=None, cancelled_at=None).order_by("-created_at").first()
    if stored is None or not outbox.heartbeat(stored.pk, stored.generation):
        return []
    held = outbox.claim_from_batch(stored, token, 20)
    if not held:
        outbox.reschedule_batch(stored.pk, stored.generation)
    return held
