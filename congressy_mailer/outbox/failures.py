"""Delivery tasks that end in an error again and again: ``health`` reports that their mail does not move."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import F

from ..conf import mailer_settings
from ..models import Message, Retention, TaskFailure, clock
from ..models.transactions import database, retry_on_conflict

#: So many failures one after another are no accident any more: a deadlock or a restart makes one or two.
TOO_MANY = 3


def _window() -> timedelta:
    """A task that goes on failing is published again within this time."""
    conf = mailer_settings()
    return 2 * conf.LOST_AFTER + 4 * conf.SWEEP_INTERVAL


@retry_on_conflict
def record_task_failure(task: str, error: str) -> None:
    """Count a failure; after a time without any the count begins anew.

    Args:
        task: what the task delivers, as in :attr:`.TaskFailure.task`.
        error: its type and place.
    """
    now = clock.now()
    begins_anew = now - _window()
    rows = TaskFailure.objects.using(database()).filter(task=task)
    one_more = {"failures": F("failures") + 1, "last_failed_at": now, "error": error}
    if rows.filter(last_failed_at__gte=begins_anew).update(**one_more):
        return
    if rows.filter(last_failed_at__lt=begins_anew).update(failures=1, since=now, last_failed_at=now, error=error):
        return
    try:
        with transaction.atomic(using=database()):
            TaskFailure.objects.using(database()).create(task=task, since=now, last_failed_at=now, error=error)
    except IntegrityError:
        # Another worker has just written the row.
        rows.update(**one_more)


def failing_tasks() -> list[TaskFailure]:
    """Tasks that failed several times, the last time lately, while none of their mail was sent or ended."""
    failures = TaskFailure.objects.using(database()).filter(
        failures__gte=TOO_MANY, last_failed_at__gte=clock.now() - _window()
    )
    return [failure for failure in failures.order_by("since") if not _has_progress(failure)]


def _has_progress(failure: TaskFailure) -> bool:
    # A range of an index for each of them.
    ended = Message.objects.using(database()).filter(retention__in=list(Retention), finished_at__gt=failure.since)
    try:
        return ended.filter(batch_id=UUID(failure.task)).exists()
    except ValueError:
        # The name of a queue: its messages are in no batch.
        return ended.filter(batch=None).exists()
