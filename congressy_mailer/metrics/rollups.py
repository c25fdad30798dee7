"""Adding up what the processes have counted, and what was counted so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from ..models import CountRollup, CountSample, clock
from ..models.transactions import database, lock_free, retry_on_conflict

Period = CountRollup.Period

#: Backend, queue, priority, name.
Key = tuple[str, str, int, str]
#: What was counted, by key.
Counts = Counter[Key]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Samples of one transaction.
_CHUNK = 2000
#: How long each rollup is kept.
KEPT = {Period.MINUTE: timedelta(days=1), Period.HOUR: timedelta(days=90)}


def fold() -> bool:
    """Add a chunk of samples to the rollups of their minutes and hours and to the total, and drop rollups that are old.

    Several processes at once share the samples; each is added once.

    Returns:
        Whether there may be more samples.
    """
    _create_total()
    folded = _fold_chunk()
    now = clock.now()
    for period, kept in KEPT.items():
        old = _rollups().filter(period=period, start__lt=now - kept)
        if old.exists():
            old.delete()
    return folded >= _CHUNK


@retry_on_conflict
def _fold_chunk() -> int:
    # The lock on the total guards the other rollups.
    total = _rollups().select_for_update().get(period=Period.TOTAL)
    samples = list(lock_free(_samples().order_by("id"))[:_CHUNK])
    if not samples:
        return 0
    changes: dict[tuple[Period, datetime], Counts] = {}
    for sample in samples:
        counts = read(sample.counts)
        hour = sample.minute.replace(minute=0)
        for period, start in ((Period.TOTAL, total.start), (Period.MINUTE, sample.minute), (Period.HOUR, hour)):
            changes.setdefault((period, start), Counter()).update(counts)
    for (period, start), counts in sorted(changes.items()):
        _add(period, start, counts)
    _samples().filter(id__in=[sample.id for sample in samples]).delete()
    return len(samples)


def _add(period: Period, start: datetime, counts: Counts) -> None:
    row = _rollups().filter(period=period, start=start).first()
    if row is None:
        _rollups().bulk_create([CountRollup(period=period, start=start, counts=_written(counts))])
    else:
        _rollups().filter(pk=row.pk).update(counts=_written(read(row.counts) + counts))


def _create_total() -> None:
    if _rollups().filter(period=Period.TOTAL).exists():
        return
    try:
        with transaction.atomic(using=database()):
            _rollups().bulk_create([CountRollup(period=Period.TOTAL, start=_EPOCH, counts=[])])
    except IntegrityError:
        # Another worker did it at the same moment.
        return


def read(entries: Iterable[Sequence[Any]]) -> Counts:
    """Stored counts."""
    # Of each key there is one, and a dict is filled faster than a Counter.
    return Counter({(backend, queue, priority, name): count for backend, queue, priority, name, count in entries})


def _written(counts: Counts) -> list[list[object]]:
    return [[*key, count] for key, count in sorted(counts.items())]


def minutes(since: datetime) -> dict[datetime, Counts]:
    """What was counted in each minute since then; minutes without any are left out."""
    return _by_start(Period.MINUTE, since)


def hours(since: datetime) -> dict[datetime, Counts]:
    """The same for each hour; ``since`` is a full one."""
    return _by_start(Period.HOUR, since)


def totals() -> Counts:
    """All that was ever counted, also what was purged since."""
    return sum(_by_start(Period.TOTAL, _EPOCH).values(), Counter())


def _by_start(period: Period, since: datetime) -> dict[datetime, Counts]:
    """Rollups and samples, by one statement: a sample that is being added to a rollup is seen once."""
    rollups = _rollups().filter(period=period, start__gte=since).order_by().values_list("start", "counts")
    samples = _samples().filter(minute__gte=since).order_by().values_list("minute", "counts")
    found: dict[datetime, Counts] = {}
    for moment, entries in rollups.union(samples, all=True):
        start = moment.replace(minute=0) if period == Period.HOUR else moment
        found.setdefault(start, Counter()).update(read(entries))
    return dict(sorted(found.items()))


def _rollups() -> QuerySet[CountRollup]:
    return CountRollup.objects.using(database())


def _samples() -> QuerySet[CountSample]:
    return CountSample.objects.using(database())
