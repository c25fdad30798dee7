"""What the admin's dashboard costs beside a long history."""

from __future__ import annotations

import time
from datetime import timedelta
from statistics import median

from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from congressy_mailer import metrics
from congressy_mailer.models import CountSample, clock
from congressy_mailer.monitoring import dashboard

from ..report import Goal, Line, Report
from .databases import Sides, using
from .work import store

_LOOKS = 20
#: Processes, each of which has written a sample in each of the last seconds.
_PROCESSES = 16
_SECONDS = 30
#: Mails that wait meanwhile.
_WAITING = 20_000


def measure(sides: Sides, rows: int, report: Report) -> None:
    """The page as it is put together, with counts of a week, while mail waits; and how many statements that takes."""
    for alias in (sides.small, sides.large):
        with using(alias):
            _count_a_week()
            store(_WAITING)
    small, large = (_look(alias) for alias in sides[1:])
    report.add(
        Line("scale", f"{sides.vendor}: the admin's dashboard", large * 1000, "small", small * 1000, "ms",
             Goal("ours", at_most=300.0))
    )  # fmt: skip


def _look(alias: str) -> float:
    with using(alias):
        with CaptureQueriesContext(connections[alias]) as queries:
            dashboard.page("week")
        times = []
        for number in range(_LOOKS):
            began = time.perf_counter()
            dashboard.page(("hour", "day", "week")[number % 3])
            times.append(time.perf_counter() - began)
        assert len(queries) < 60, len(queries)
        return median(times)


def _count_a_week() -> None:
    """Counts as the workers of a week leave them: each minute has a dozen, and the last seconds are not added up."""
    now = timezone.now().replace(second=0, microsecond=0)
    entries = [
        [backend, queue, 5, name, 100]
        for backend, queue in (("", "mailer"), ("", "mailer.bulk"), ("other", "mailer"))
        for name in ("accepted", "failed", "deferred:mailbox", "delivered", "bounced", "bucket:1", "bucket:3")
    ]
    for hour in range(7 * 24):
        CountSample.objects.create(minute=now - timedelta(hours=hour), counts=entries)
    for minute in range(24 * 60):
        CountSample.objects.create(minute=now - timedelta(minutes=minute), counts=entries)
    while metrics.fold():
        pass
    CountSample.objects.bulk_create(
        CountSample(minute=clock.now().replace(second=0, microsecond=0), counts=entries)
        for _ in range(_PROCESSES * _SECONDS)
    )
