"""The metrics for monitoring systems of any kind: each with its name, labels and value.

Counters come from the counts that all processes write, so that any web process tells the whole, and none starts at zero
again after a deployment.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate
from typing import Literal

from .. import metrics, outbox, periodic
from ..conf import mailer_settings
from ..metrics import counters
from ..models import TransportStatus, clock
from ..outbox import waiting
from .queues import BATCHES

_PREFIX = "congressy_mailer_"


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a measure."""

    #: After the measure's name: empty, ``_total``, ``_bucket``, ``_sum`` or ``_count``.
    suffix: str
    labels: dict[str, str]
    value: float


@dataclass(slots=True)
class Measure:
    """One measure, in the terms of OpenMetrics and Prometheus."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    #: What it is, in a sentence.
    meaning: str
    values: list[Value] = field(default_factory=list)

    def add(self, value: float, suffix: str = "", **labels: str) -> None:
        """Tell a value."""
        self.values.append(Value("_total" if self.kind == "counter" else suffix, labels, value))


def measures() -> list[Measure]:
    """All measures; the number of queries does not grow with the outbox.

    Raises:
        django.db.OperationalError: the database is away.
    """
    return [*_counters(), *_queues(), *_conditions()]


def _counters() -> Iterator[Measure]:
    messages = Measure(
        f"{_PREFIX}messages",
        "counter",
        "Messages by what became of them: accepted, failed, suppressed, held, expired.",
    )
    deferrals = Measure(f"{_PREFIX}deferrals", "counter", "Attempts after which a message is tried again, by reason.")
    events = Measure(
        f"{_PREFIX}events", "counter", "What SparkPost told of recipients: delivered, bounced or complained."
    )
    times = Measure(
        f"{_PREFIX}acceptance_seconds", "histogram",
        "Time from when a message could be sent until the mail server accepted it.",
    )  # fmt: skip
    by_labels: dict[tuple[str, str, int], dict[str, int]] = defaultdict(dict)
    for (backend, queue, priority, name), count in metrics.totals().items():
        by_labels[backend, queue, priority][name] = count
    for (backend, queue, priority), counts in sorted(by_labels.items()):
        labels = {"backend": backend or "default", "queue": queue, "priority": str(priority)}
        for name in (counters.ACCEPTED, counters.FAILED, counters.SUPPRESSED, counters.HELD, counters.EXPIRED):
            messages.add(counts.get(name, 0), outcome=name, **labels)
        for name in (counters.DELIVERED, counters.BOUNCED, counters.COMPLAINED):
            events.add(counts.get(name, 0), event=name, **labels)
        for reason in counters.REASONS:
            if found := counts.get(counters.DEFERRED + reason):
                deferrals.add(found, reason=reason, **labels)
        buckets = [counts.get(f"{counters.BUCKET}{index}", 0) for index in range(len(counters.BUCKETS) + 1)]
        for bound, reached in zip((*map(str, counters.BUCKETS), "+Inf"), accumulate(buckets), strict=True):
            times.add(reached, "_bucket", le=bound, **labels)
        times.add(sum(buckets), "_count", **labels)
        times.add(counts.get(counters.MILLISECONDS, 0) / 1000, "_sum", **labels)
    yield from (messages, deferrals, events, times)


def _queues() -> Iterator[Measure]:
    conf = mailer_settings()
    waits = Measure(
        f"{_PREFIX}waiting_messages", "gauge",
        f"Messages that could be sent now, counted up to {waiting.COUNTED:,}; of batches, of the first {BATCHES}.",
    )  # fmt: skip
    oldest = Measure(
        f"{_PREFIX}oldest_waiting_seconds", "gauge", "How long the oldest of them has waited; 0: none does."
    )
    single = outbox.waiting_messages()
    batches = waiting.batches_with_mail(BATCHES)
    waits.add(single.count, queue=conf.QUEUE)
    waits.add(sum(batch.count for batch in batches), queue=conf.BULK_QUEUE)
    oldest.add(_age(single.oldest), queue=conf.QUEUE)
    oldest.add(_age(min((batch.since for batch in batches), default=None)), queue=conf.BULK_QUEUE)
    yield from (waits, oldest)
    for name, meaning, number in (
        ("deferred_messages", "Messages that are tried again later.", outbox.deferred_messages().count),
        ("held_messages", "Messages that wait for a person to decide.", outbox.count_held()),
        (
            "overdue_messages",
            "Messages that no worker has looked at although they are due.",
            outbox.count_overdue(conf.SWEEP_INTERVAL * 4),
        ),
    ):
        measure = Measure(_PREFIX + name, "gauge", meaning)
        measure.add(number)
        yield measure


def _conditions() -> Iterator[Measure]:
    sweep = Measure(
        f"{_PREFIX}last_sweep_seconds", "gauge", "How long ago a worker last looked for what is due; -1: never."
    )
    last = periodic.last_run(periodic.SWEEP)
    sweep.add(-1 if last is None else _age(last))
    unavailable = Measure(
        f"{_PREFIX}backend_unavailable", "gauge", "1 for each mail backend or sender domain that cannot be used."
    )
    for status in TransportStatus.objects.using(outbox.database()).order_by("using", "sender_domain"):
        unavailable.add(1, backend=status.using or "default", sender_domain=status.sender_domain)
    workers = Measure(f"{_PREFIX}workers", "gauge", "Workers that are alive, by the queue that they serve.")
    alive = [worker for worker in metrics.known_workers() if metrics.is_alive(worker)]
    for queue in (mailer_settings().QUEUE, mailer_settings().BULK_QUEUE):
        workers.add(sum(queue in worker.queues for worker in alive), queue=queue)
    paused = Measure(f"{_PREFIX}pauses", "gauge", "What somebody has paused: all sending, a queue, a campaign, …")
    paused.add(outbox.list_pauses().count())
    yield from (sweep, unavailable, workers, paused)


def _age(moment: datetime | None) -> float:
    return 0.0 if moment is None else max((clock.now() - moment).total_seconds(), 0.0)
