"""How long a task waits in the worker that it comes to, measured there: no two hosts need have the same time.

Celery makes of a countdown the time of day when the task is to begin, by the clock of the host that publishes it.
A worker whose clock is an hour behind would keep the task for an hour, and one that is ahead would begin it at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from celery.worker.strategy import default

from .sending import COUNTDOWN_HEADER

# Where a message comes from that RabbitMQ has kept for its time, as Celery has it with quorum queues. A project may
# have a prefix before it.
_DELAYED_BY_BROKER = "celery_delayed_delivery"


def strategy(task: Any, app: Any, consumer: Any, **options: Any) -> Callable[..., Any]:
    """Celery's own way to begin a task, which waits from when the task has come, and not until a time of day."""
    begin = default(task, app, consumer, **options)

    def begin_after_countdown(message: Any, *arguments: Any, **keywords: Any) -> Any:
        countdown = message.headers.get(COUNTDOWN_HEADER)
        if countdown is not None:
            has_waited = str(message.delivery_info.get("exchange")).endswith(_DELAYED_BY_BROKER)
            begins_at = datetime.fromtimestamp(time.time() + countdown, UTC)
            message.headers["eta"] = None if has_waited else begins_at.isoformat()
        return begin(message, *arguments, **keywords)

    return begin_after_countdown
