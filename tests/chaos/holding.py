"""Transactions of the host that stay open for seconds, over rows of messages and of batches."""

from __future__ import annotations

import queue
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event

from django.db import DatabaseError, InterfaceError, connection, transaction

from congressy_mailer.exceptions import IdempotencyConflict
from tests.chaos.journal import JournalWriter
from tests.chaos.mails import Mail

_BETWEEN = 0.3


class _RollBack(Exception):
    """Ends a transaction that must leave no trace."""


@dataclass
class Holder:
    """Holds one transaction after the other, in a thread of its own."""

    seed: int
    journal: JournalWriter
    #: Stores the rest of a batch that is stored in part, inside a transaction that is open.
    go_on: Callable[[Sequence[Mail]], bool]
    #: All mails of each batch that is stored in part.
    in_part: queue.SimpleQueue[Sequence[Mail]] = field(default_factory=queue.SimpleQueue)
    #: Set once all other mails are stored.
    ended: Event = field(default_factory=Event)

    def run(self) -> None:
        """Hold transactions until everything is stored."""
        rng = random.Random(f"holder {self.seed}")
        # SQLite has one writer: whoever holds a transaction open there holds up everything.
        shortest, longest, between = (0.3, 1.0, 3.0) if connection.vendor == "sqlite" else (2.0, 5.0, _BETWEEN)
        try:
            while not (self.ended.is_set() and self.in_part.empty()):
                seconds = rng.uniform(shortest, longest)
                kind = rng.choice(["message", "message, committed", "batch"])
                try:
                    mails = self.in_part.get_nowait()
                except queue.Empty:
                    self._cancel(kind, seconds)
                else:
                    while not self._hold("send_bulk(key=…) goes on", seconds, lambda mails=mails: self.go_on(mails)):  # type: ignore[misc]
                        time.sleep(_BETWEEN)
                    for mail in mails:
                        self.journal.write("committed", time.time(), mail.key)
                self.ended.wait(rng.uniform(0.5, 1.0) * between)
        finally:
            connection.close()

    def _cancel(self, kind: str, seconds: float) -> None:
        from congressy_mailer import bulk, cancel
        from congressy_mailer.models import Batch, Message, State

        def of_message() -> bool:
            message = Message.objects.filter(state__in=[State.QUEUED, State.DEFERRED], batch=None).last()
            if message is None or not cancel(message):
                return False
            if kind == "message, committed":
                # Before the commit: whether one that is broken off has happened is never known.
                self.journal.write("cancelled", time.time(), str(message.idempotency_key))
            return True

        def of_batch() -> bool:
            batch = Batch.objects.filter(messages__state=State.QUEUED).last()
            return batch is not None and bool(bulk.cancel(batch))

        do = of_batch if kind == "batch" else of_message
        self._hold(f"cancel() of a {kind}", seconds, do, rolled_back=kind != "message, committed")

    def _hold(self, what: str, seconds: float, do: Callable[[], bool], *, rolled_back: bool = False) -> bool:
        """Do something in a transaction that stays open; returns whether it ended as it was meant to."""
        try:
            with transaction.atomic():
                began = time.monotonic()
                if not do():
                    return True
                time.sleep(seconds)
                held_until = time.monotonic()
                if rolled_back:
                    raise _RollBack
        except _RollBack:
            pass
        except (DatabaseError, InterfaceError, IdempotencyConflict) as error:
            print(f"{time.time():.3f} {what}, not ended, or not known: {error}", flush=True)
            connection.close()
            return False
        self.journal.write("held", began, f"{held_until:.6f}", what)
        ended = time.time()
        self.journal.write("wrote", ended - (time.monotonic() - began), f"{ended:.6f}")
        return True
