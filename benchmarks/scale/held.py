"""What workers do while a transaction of the host's is open."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from statistics import median
from typing import Any

from django.db import connections, transaction

from congressy_mailer import outbox
from congressy_mailer.models import Batch, clock

from ..report import Goal, Line, Report
from .databases import Sides, using
from .history import ACCEPTED
from .work import send, store

#: Mails of a batch that are sent while the transaction is open, or as many as the large database has; and how many of
#: its claims are compared with those of a batch of which nothing was sent.
_SENT = 60_000
_CLAIMS = 30
_HELD_SECONDS = 3.0


def measure(sides: Sides, rows: int, report: Report) -> None:
    """Claims behind an open transaction, and the longest wait for one."""
    if sides.vendor == "sqlite":
        # Its only lock would be the host's, and what it deletes from an index is gone at once.
        return
    with using(sides.large):
        _claims(sides, min(_SENT, rows), report)
        _waits(sides, report)


@contextmanager
def _open_transaction(alias: str, change: Callable[[], Any]) -> Iterator[None]:
    """Another connection that has read, has changed something, and does not end."""
    begun, over = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with transaction.atomic(using=alias):
                with connections[alias].cursor() as cursor:
                    if connections[alias].vendor == "postgresql":
                        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                    else:
                        cursor.execute("ROLLBACK")
                        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                        cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
                change()
                begun.set()
                over.wait()
                transaction.set_rollback(True, using=alias)
        finally:
            begun.set()
            connections.close_all()

    host = threading.Thread(target=hold)
    host.start()
    begun.wait()
    try:
        yield
    finally:
        over.set()
        host.join()


def _claims(sides: Sides, mails: int, report: Report) -> None:
    batch, new = store(mails + 100 * _CLAIMS), store(100 * _CLAIMS)
    with _open_transaction(sides.large, lambda: Batch.objects.filter(pk=store(1).pk).update(skipped=0)):
        sender = send(batch, 100, mails + 100 * _CLAIMS)
        before = list(islice(sender, mails // 100))
        # In turns: what else the machine has to do slows both.
        turns = list(zip(islice(sender, _CLAIMS), send(new, 100, 100 * _CLAIMS), strict=True))
        list(sender)
    assert len(before) == mails // 100
    sent, unsent = (median(claim for claim, _ in claims) for claims in zip(*turns, strict=True))
    report.add(
        Line("scale", f"{sides.vendor}: claim of 100 behind a transaction open since {mails:,} mails of it", sent,
             "since none", unsent, "ms", Goal("ratio", at_most=1.5))
    )  # fmt: skip


def _waits(sides: Sides, report: Report) -> None:
    """A host has cancelled a batch, which holds its row and all that waits in it, and does not commit."""
    batch, other = store(2000), store(20_000)
    held = outbox.claim_from_batch(batch, "held", 100)
    worst, step = 0.0, ""
    with _open_transaction(sides.large, batch.cancel):
        steps: dict[str, Callable[[], Any]] = {
            "sweep": lambda: (outbox.claim_due_batches(), outbox.sweep(clock.now())),
            "heartbeat": lambda: outbox.heartbeat(batch.pk, batch.generation),
            "claim": lambda: outbox.claim_from_batch(batch, "worker", 100),
            "end of a batch": lambda: outbox.reschedule_batch(batch.pk, batch.generation),
            "claim and record of another batch": lambda: next(send(other, 10, 10)),
            "record": lambda: outbox.record_accepted("held", [(held.pop(), ACCEPTED)] if held else []),
        }
        until = time.monotonic() + _HELD_SECONDS
        while time.monotonic() < until and held:
            for name, call in steps.items():
                began = time.perf_counter()
                call()
                took = 1000 * (time.perf_counter() - began)
                worst, step = max((worst, step), (took, name))
    batch.cancel()
    other.cancel()
    report.add(
        Line("scale", f"{sides.vendor}: longest wait of a worker for a host's open transaction ({step})", worst, "",
             None, "ms", Goal("ours", at_most=50.0))
    )  # fmt: skip
