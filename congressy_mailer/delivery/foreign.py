"""Tasks that another project has put into a queue which both use: they are handed on until its workers get them.

Celery keeps two projects apart by the number of the Redis database, a ``global_keyprefix`` or the names of the queues.
Where none of them differs, each worker is given tasks of both. Ids say whose they are: only one database knows them.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from ..broker import sending

logger = logging.getLogger("congressy_mailer.delivery")

_HEADER = "congressy_mailer_handed_on"
#: How often a task is handed on: for a minute and a half, each time after a longer wait. Each time a worker of the
#: other project may take it; what they never get, their sweep finds.
_MOST_TIMES = 11
_FIRST_WAIT = 0.5
_BACKOFF = 1.5

# Seconds between two warnings of a process, and when the last one was.
_TELL_EVERY = 600.0
_told_at = -_TELL_EVERY


def hand_on(request: Any, task: str, *arguments: Any, queue: str) -> None:
    """Give a task back to the broker whose ids this project's database does not know.

    Args:
        request: Celery's, of the task.
        task: its name.
        arguments: which it has.
        queue: that it came through.
    """
    global _told_at
    if request.is_eager:
        return
    times = int(request.get(_HEADER) or 0)
    if times >= _MOST_TIMES:
        return
    if time.monotonic() >= _told_at + _TELL_EVERY:
        _told_at = time.monotonic()
        logger.warning(
            "The queue %r had a task whose ids are not in this project's database, as where another project uses the "
            "same queue. It is handed on. To keep them apart, give one of them another Redis database or virtual host "
            "in CELERY_BROKER_URL, a global_keyprefix in CELERY_BROKER_TRANSPORT_OPTIONS, or other names by QUEUE and "
            "BULK_QUEUE.",
            queue,
        )
    sending.send(task, *arguments, queue=queue, countdown=_FIRST_WAIT * _BACKOFF**times, headers={_HEADER: times + 1})
