"""The tasks of upkeep: dropping what is old, and bringing the suppression list together with SparkPost's."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from .. import outbox, periodic, suppressions
from ..broker import sending
from ..conf import mailer_settings
from ..exceptions import SparkPostError
from ..suppressions.sync import SyncResult, sync
from .task_run import log_run, task_run

_retention_logger = logging.getLogger("congressy_mailer.retention")
_suppressions_logger = logging.getLogger("congressy_mailer.suppressions")

# Seconds that one task purges; where more is left, it publishes another.
_PURGE_TIME = 10.0


@task_run
def purge() -> None:
    """Run :func:`congressy_mailer.tasks.purge`."""
    lease = mailer_settings().LEASE
    token = outbox.new_claim_token("purge")
    if not periodic.begin_part(periodic.PURGE, token, lease):
        _retention_logger.debug("Purge: another task works at it")
        return
    began = time.monotonic()
    outbox.may_delete_files(rotate=True)
    ended: set[str] = set()
    while purge_some(ended):
        if not periodic.renew_part(periodic.PURGE, token, lease):
            return
        if time.monotonic() - began >= _PURGE_TIME:
            periodic.hand_over(periodic.PURGE, token, lease)
            _retention_logger.info("Purge: some is left, and goes on in a further task, %.1f s", _PURGE_TIME)
            sending.publish_purge()
            return
    periodic.end_chain(periodic.PURGE, token)
    _retention_logger.info("Purge: done, %.1f s", time.monotonic() - began)


def purge_some(ended: set[str] | None = None) -> bool:
    """Drop a chunk of everything that is old, and delete some of the files that nothing uses.

    Args:
        ended: as :func:`.outbox.purge` has it.

    Returns:
        Whether there may be more.
    """
    ended = set() if ended is None else ended
    parts: dict[str, Callable[[], object]] = {
        "messages": partial(outbox.purge, ended),
        "suppressions": suppressions.purge,
        "lost files": outbox.find_lost_files,
    }
    # None waits for the others to come to their end.
    ended |= {name for name, part in parts.items() if name not in ended and not part()}
    # Asked each time: the others have just made more of them due.
    return outbox.delete_files() or not ended.issuperset(parts)


@task_run
def sync_suppressions() -> None:
    """Run :func:`congressy_mailer.tasks.sync_suppressions`."""
    began = time.monotonic()
    try:
        result: SyncResult = sync()
    except SparkPostError as error:
        _suppressions_logger.warning("The suppression list is brought together with SparkPost's later: %s", error)
        every = mailer_settings().SUPPRESSION_SYNC
        if every is not None and error.retry_after is not None:
            periodic.postpone_run(periodic.SYNC, timedelta(seconds=error.retry_after), every)
        return
    counts = {
        name: getattr(result, name) for name in ("fetched", "imported", "removed", "exported", "deleted", "refused")
    }
    log_run(_suppressions_logger, "Suppression list", counts, began)
    if not result.complete:
        sending.publish_sync()
