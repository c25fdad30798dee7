"""Which workers are alive: each tells of itself in the header of the sweep that it publishes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from ..conf import mailer_settings
from ..models import Worker, clock
from ..models.transactions import database

#: Intervals of the sweep after which a worker that was not heard of is missing.
_MISSED_SWEEPS = 4
# How long it is remembered.
_KEPT = timedelta(days=1)


def record_worker(told: Mapping[str, Any]) -> None:
    """Write down that a worker is alive.

    Args:
        told: by the worker, as :func:`congressy_mailer.worker.describe_worker` has it.
    """
    values = {
        "queues": sorted(map(str, told["queues"])),
        "pool": str(told["pool"])[:50],
        "concurrency": int(told["concurrency"]),
        "version": str(told["version"])[:50],
        "started_at": datetime.fromtimestamp(float(told["started_at"]), UTC),
        "published_at": datetime.fromtimestamp(float(told["published_at"]), UTC),
        "seen_at": clock.now(),
    }
    name = str(told["name"])[:255]
    if _workers().filter(name=name).update(**values):
        return
    try:
        with transaction.atomic(using=database()):
            _workers().bulk_create([Worker(name=name, **values)])
    except IntegrityError:
        # Another process has just written it.
        return


def known_workers() -> list[Worker]:
    """All workers of the last day, by name."""
    return list(_workers().filter(seen_at__gt=clock.now() - _KEPT).order_by("name"))


def is_alive(worker: Worker) -> bool:
    """Whether it was heard of within the last sweeps."""
    return clock.now() - worker.seen_at <= mailer_settings().SWEEP_INTERVAL * _MISSED_SWEEPS


def forget_workers() -> None:
    """Drop those that were not heard of for a day."""
    _workers().filter(seen_at__lt=clock.now() - _KEPT).delete()


def _workers() -> QuerySet[Worker]:
    return Worker.objects.using(database())
