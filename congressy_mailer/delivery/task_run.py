"""What each run of a task has around it: changes that commit by themselves, what was counted, one line in the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import ParamSpec

from celery import current_task
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from .. import metrics, outbox
from ..models.transactions import explaining_missing_tables
from .kept_connection import kept_connection

_P = ParamSpec("_P")


def task_run(run: Callable[_P, None]) -> Callable[_P, None]:
    """Have each change of a worker commit by itself, over the connection of the task before where there is one.

    Raises:
        ImproperlyConfigured: the host runs our tasks inside a transaction of its own, which may be rolled back.
        NotMigrated: a table or column of ours is missing.
    """
    run = explaining_missing_tables()(run)

    @wraps(run)
    def committing(*args: _P.args, **options: _P.kwargs) -> None:
        request = current_task.request if current_task else None
        connection = connections[outbox.database()]
        if request is None or request.is_eager or request.called_directly:
            run(*args, **options)
            metrics.flush()
            return
        if connection.in_atomic_block:
            raise ImproperlyConfigured(
                "A task of the mailer runs inside a transaction of the host's. What it records about a mail that has "
                "left must not be rolled back: do not wrap these tasks in atomic()."
            )
        of_host = connection.settings_dict
        if of_host["AUTOCOMMIT"]:
            with kept_connection():
                _run_and_count(run, *args, **options)
            return
        # Nobody would commit, and each sweep would find the same mail again. In the settings of this connection alone,
        # since it may be opened once more while the task runs.
        connection.settings_dict = {**of_host, "AUTOCOMMIT": True}
        connection.close()
        try:
            _run_and_count(run, *args, **options)
        finally:
            connection.settings_dict = of_host
            connection.close()

    return committing


def _run_and_count(run: Callable[_P, None], *args: _P.args, **options: _P.kwargs) -> None:
    try:
        run(*args, **options)
    finally:
        metrics.flush_if_due()


def log_run(logger: logging.Logger, what: str, counts: dict[str, int], began: float) -> None:
    """One line with what a run has done; at the level DEBUG where that is nothing.

    Args:
        logger: of the room whose work it was.
        what: has run.
        counts: what it has done, in the order in which it is told.
        began: when, by :func:`time.monotonic`.
    """
    done = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    # Everything is recorded already: a handler or filter of the host's that raises must not repeat it.
    with suppress(Exception):
        logger.log(
            logging.INFO if done else logging.DEBUG,
            "%s: %s, %.1f s", what, done or "nothing to do", time.monotonic() - began,
        )  # fmt: skip
