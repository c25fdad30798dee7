"""What a host does in its workers beside our mail, and how long our statements take there meanwhile.

Celery imports it in each worker (``CELERY_IMPORTS``).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import shared_task
from django.db.backends.signals import connection_created

from tests.chaos.journal import JournalWriter

#: Seconds. What takes longer is written down.
SLOW = 0.03


@shared_task(name="tests.chaos.slow", ignore_result=True)
def slow(seconds: float) -> None:
    """Occupies a process, as an export or a report does."""
    time.sleep(seconds)


def _timed(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
    # The monotonic clock is the same for all processes of a system, and right where the other one is not.
    began = time.monotonic()
    result = execute(sql, params, many, context)
    ended = time.monotonic()
    if ended - began > SLOW:
        with JournalWriter(Path(os.environ["MAILER_CHAOS_STATEMENTS"])) as journal:
            journal.write("statement", began, f"{ended:.6f}", " ".join(sql.split())[:80])
    return result


def _time_statements(connection: Any, **kwargs: Any) -> None:
    if _timed not in connection.execute_wrappers:
        connection.execute_wrappers.append(_timed)


if "MAILER_CHAOS_STATEMENTS" in os.environ:
    connection_created.connect(_time_statements, dispatch_uid="tests.chaos.host")
