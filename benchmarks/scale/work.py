"""What workers and callers do with the outbox, in the small database and in the large one in turns."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import timedelta
from statistics import median
from typing import Any

from django.db import connections
from django.test import override_settings

from congressy_mailer import outbox, send_bulk
from congressy_mailer.health import check_health
from congressy_mailer.models import Batch, Message, clock

from ..mails import SHARED, TEMPLATE
from ..report import Goal, Line, Report
from .databases import Sides, analyze, log_position, using
from .history import ACCEPTED, DAYS

_GOAL = Goal("ratio", at_most=1.5)
#: Messages of a batch of which claims, records and its end are measured.
_BATCH = 10_000
_ROUNDS = 30
_CANCELLED = 1000
#: Messages that are purged.
_PURGED = 5000
#: Messages a second.
_PURGE_GOALS = {"postgresql": 10_000.0, "mariadb": 5_000.0}
_MAILS_IN_LOG = 10_000
_LOG_GOAL = 1900.0


def store(size: int) -> Batch:
    """A batch that a caller stores, with a context for each recipient."""
    people = (
        (f"pessoa{number}@example.com", {"name": f"Pessoa {number}", "code": f"{number:08}"}) for number in range(size)
    )
    return send_bulk(people, template=TEMPLATE, context=SHARED)


def send(batch: Batch, at_once: int, most: int) -> Iterator[tuple[float, float]]:
    """Claim and record messages, and tell how long each of the two took, in milliseconds."""
    for number in range(0, most, at_once):
        token = outbox.new_claim_token(f"scale-{number}")
        began = time.perf_counter()
        held = outbox.claim_from_batch(batch, token, at_once)
        claimed = time.perf_counter()
        if not held:
            return
        outbox.record_accepted(token, [(message, ACCEPTED) for message in held])
        yield 1000 * (claimed - began), 1000 * (time.perf_counter() - claimed)


def measure(sides: Sides, rows: int, report: Report) -> None:
    """All comparisons of the two databases."""
    for statistics in ("stale", "fresh"):
        _compare(sides, rows, report, f", {statistics} statistics", _queue_of(sides, statistics == "fresh"))
    _compare(sides, rows, report, "", _asked(sides))
    _purge(sides, rows, report)
    if sides.vendor == "postgresql":
        _log(sides, report)


def _compare(sides: Sides, rows: int, report: Report, how: str, found: dict[str, dict[str, list[float]]]) -> None:
    for what, values in found.items():
        small, large = median(values[sides.small]), median(values[sides.large])
        report.add(
            Line(
                "scale",
                f"{sides.vendor}: {what} at {rows:,}{how}",
                large,
                "at 10,000",
                small,
                "ms",
                _GOAL,
                runs={"small": values[sides.small], "large": values[sides.large]},
            )  # fmt: skip
        )


def _queue_of(sides: Sides, fresh: bool) -> dict[str, dict[str, list[float]]]:
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    batches = {}
    for alias in sides[1:]:
        with using(alias):
            # Statistics of a table in which no message was waiting.
            analyze(alias)
            batches[alias] = store(_BATCH)
            if fresh:
                analyze(alias)
    senders = {alias: send(batch, 100, _BATCH) for alias, batch in batches.items()}
    for _ in range(_ROUNDS):
        for alias, sender in senders.items():
            with using(alias):
                claim, record = next(sender)
            found["claim of 100"][alias].append(claim)
            found["record of 100"][alias].append(record)
    for alias, sender in senders.items():
        with using(alias):
            list(sender)
    for _ in range(_ROUNDS):
        for alias, batch in batches.items():
            with using(alias):
                found["end of a batch"][alias].append(_milliseconds(lambda: outbox.reschedule_batch(batch.pk, 0)))  # noqa: B023
    for _ in range(7):
        for alias in sides[1:]:
            with using(alias):
                batch = store(_CANCELLED)
                found["cancel() for 1,000"][alias].append(_milliseconds(batch.cancel))
    return found


def _asked(sides: Sides) -> dict[str, dict[str, list[float]]]:
    """What is asked again and again, where nothing is to be done."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def sweep() -> None:
        outbox.claim_due_batches()
        outbox.sweep(clock.now())

    for _ in range(_ROUNDS):
        for alias in sides[1:]:
            with using(alias):
                found["idle sweep"][alias].append(_milliseconds(sweep))
                found["health"][alias].append(_milliseconds(check_health))
    return found


def _milliseconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - began)


def _purge(sides: Sides, rows: int, report: Report) -> None:
    speed = {}
    for alias, count in ((sides.small, 10_000), (sides.large, rows)):
        with using(alias):
            # So long that only the first of them are older.
            keep = timedelta(days=DAYS * (1 - _PURGED / count))
            with override_settings(CONGRESSY_MAILER={"KEEP_CONTENT": None, "KEEP_MESSAGES": keep}):
                ended: set[str] = set()
                before, began = _estimate(), time.perf_counter()
                while outbox.purge(ended):
                    pass
                speed[alias] = (before - _estimate()) / (time.perf_counter() - began)
    goal = _PURGE_GOALS.get(sides.vendor)
    report.add(
        Line(
            "scale",
            f"{sides.vendor}: messages purged at {rows:,}",
            speed[sides.large],
            "at 10,000",
            speed[sides.small],
            "/s",
            goal and Goal("ours", at_least=goal),
        )  # fmt: skip
    )


def _estimate() -> int:
    return Message.objects.count()


def _log(sides: Sides, report: Report) -> None:
    """Bytes of PostgreSQL's log, without the images of whole pages after a checkpoint."""
    with using(sides.large):
        with connections[sides.large].cursor() as cursor:
            cursor.execute("ALTER SYSTEM SET full_page_writes = 'off'")
            cursor.execute("SELECT pg_reload_conf()")
        # Nothing tells when the processes have read it: the first batch is thrown away.
        list(send(store(1000), 100, 1000))
        before = log_position(sides.large)
        batch = store(_MAILS_IN_LOG)
        stored = log_position(sides.large)
        list(send(batch, 100, _MAILS_IN_LOG))
        after = log_position(sides.large)
    report.add(
        Line("scale", "postgresql: log of a mail, stored, claimed and recorded", (after - before) / _MAILS_IN_LOG,
             "stored alone", (stored - before) / _MAILS_IN_LOG, "bytes", Goal("ours", at_most=_LOG_GOAL))
    )  # fmt: skip


__all__ = ["measure", "send", "store"]
