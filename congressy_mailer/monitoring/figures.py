"""What the workers have counted, as people ask for it: outcomes over time, times to acceptance, rates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Final

from .. import metrics
from ..metrics import counters
from ..metrics.rollups import Counts
from ..models import clock

#: Of the mail that providers took: what Gmail and Yahoo call too much ("Email sender guidelines", spam rate of 0.3 %).
COMPLAINT_LIMIT: Final = 0.003
#: From here on they have senders do something about it (the same: "below 0.1 %").
COMPLAINT_WARNING: Final = 0.001
#: Of the mail that was sent: what providers of mail services call too much, SparkPost and Amazon SES among them.
BOUNCE_LIMIT: Final = 0.05
BOUNCE_WARNING: Final = 0.02
#: Days that the rates cover. Complaints come days after the mail.
RATE_DAYS: Final = 7


@dataclass(frozen=True, slots=True)
class Span:
    """A length of time that is shown."""

    #: How it is called in an address.
    key: str
    #: How long.
    length: timedelta
    #: Of one column.
    step: timedelta


SPANS: Final = {
    span.key: span
    for span in (
        Span("hour", timedelta(hours=1), timedelta(minutes=1)),
        Span("day", timedelta(days=1), timedelta(hours=1)),
        Span("week", timedelta(days=7), timedelta(hours=6)),
    )
}


@dataclass(frozen=True, slots=True)
class Column:
    """What was counted within one step."""

    #: When it begins.
    start: datetime
    #: By name, summed over backend, queue and priority.
    counts: Counter[str]

    @property
    def deferred(self) -> int:
        """Deferrals, for all reasons."""
        return sum(count for name, count in self.counts.items() if name.startswith(counters.DEFERRED))

    def percentile(self, share: float) -> float | None:
        """Seconds within which this share of the accepted messages was; ``None``: none was accepted."""
        return percentile(self.counts, share)


def week() -> dict[datetime, Counts]:
    """What was counted in each hour of the last :data:`RATE_DAYS`."""
    return metrics.hours(_floor(clock.now() - timedelta(days=RATE_DAYS), timedelta(hours=1)))


def columns(span: Span, week: Mapping[datetime, Counts]) -> list[Column]:
    """What was counted in each step of a span, the last one being under way.

    Args:
        span: which.
        week: as :func:`week` has it.
    """
    now = clock.now()
    first = _floor(now - span.length, span.step) + span.step
    counted = metrics.minutes(first) if span.step < timedelta(hours=1) else week
    found = {start: Counter[str]() for start in _steps(first, now, span.step)}
    for start, counts in counted.items():
        # A clock that was set back may have left something in the time to come.
        if (step := _floor(start, span.step)) in found:
            found[step].update(by_name(counts))
    return [Column(start, counts) for start, counts in found.items()]


def _floor(moment: datetime, step: timedelta) -> datetime:
    seconds = step.total_seconds()
    return datetime.fromtimestamp(moment.timestamp() // seconds * seconds, moment.tzinfo)


def _steps(first: datetime, last: datetime, step: timedelta) -> Iterable[datetime]:
    while first <= last:
        yield first
        first += step


def by_name(counts: Counts) -> Counter[str]:
    """Counts, summed over backend, queue and priority."""
    found: Counter[str] = Counter()
    for (_backend, _queue, _priority, name), count in counts.items():
        found[name] += count
    return found


def percentile(counts: Mapping[str, int], share: float) -> float | None:
    """Seconds within which a share of messages was accepted, as well as the buckets tell."""
    buckets = [counts.get(f"{counters.BUCKET}{index}", 0) for index in range(len(counters.BUCKETS) + 1)]
    total = sum(buckets)
    if not total:
        return None
    wanted = share * total
    for index, (reached, count) in enumerate(zip(accumulate(buckets), buckets, strict=True)):
        if count and reached >= wanted:
            if index == len(counters.BUCKETS):
                break
            lower = counters.BUCKETS[index - 1] if index else 0.0
            return lower + (counters.BUCKETS[index] - lower) * (wanted - (reached - count)) / count
    return counters.BUCKETS[-1]


@dataclass(frozen=True, slots=True)
class Rates:
    """How mailbox providers see the sender, by SparkPost's events within :data:`RATE_DAYS`."""

    accepted: int
    delivered: int
    bounced: int
    complained: int

    @property
    def bounce_rate(self) -> float | None:
        """Share of the delivered and bounced mails; ``None``: there were no events."""
        told = self.delivered + self.bounced
        return self.bounced / told if told else None

    @property
    def complaint_rate(self) -> float | None:
        """Share of the delivered mails; ``None``: there were no events."""
        return self.complained / self.delivered if self.delivered else None


def rates(week: Mapping[datetime, Counts]) -> Rates:
    """Of the last days.

    Args:
        week: as :func:`week` has it.
    """
    counts: Counter[str] = Counter()
    for hour in week.values():
        counts.update(by_name(hour))
    return Rates(
        counts[counters.ACCEPTED], counts[counters.DELIVERED], counts[counters.BOUNCED], counts[counters.COMPLAINED]
    )  # fmt: skip
