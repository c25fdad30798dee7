"""Publishing the mailer's tasks by name, with their queues and expiry."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from celery import Celery
from celery.app.routes import Router
from django.core.exceptions import ImproperlyConfigured
from kombu import Queue

from ..conf import mailer_settings
from ..credentials import loggable
from ..replies import error_text
from . import host_clock, publisher
from .celery_app import find_celery_app

DELIVER = "congressy_mailer.deliver"
DELIVER_BATCH = "congressy_mailer.deliver_batch"
SWEEP = "congressy_mailer.sweep"
REPORT = "congressy_mailer.report"
PURGE = "congressy_mailer.purge"
SYNC_SUPPRESSIONS = "congressy_mailer.sync_suppressions"
PROCESS_WEBHOOKS = "congressy_mailer.process_webhooks"

#: Header of a message whose task is to wait so many seconds: see :mod:`.countdown`.
COUNTDOWN_HEADER = "congressy_mailer_countdown"

#: Seconds after which a sweep or purge that nobody has taken from the broker is not worth doing any more. A queue may
#: be hours long, and only what comes through it tells how far it has moved.
_EXPIRES = 86_400.0


#: Header of a task in which a worker tells of itself.
WORKER_HEADER = "congressy_mailer_worker"


def publish_sweep(worker: Mapping[str, Any] | None = None) -> bool:
    """Ask for a sweep. It tells when it was published, and so how far the queue has moved when it comes through.

    Args:
        worker: what the worker that publishes it tells of itself.
    """
    return send(SWEEP, time.time(), host_clock.seconds_behind(), expires=_EXPIRES, headers=_telling(worker))


def publish_report(worker: Mapping[str, Any]) -> bool:
    """Have it written down that a worker is alive which serves the queue of bulk mail alone, and so publishes no sweep.

    Args:
        worker: what it tells of itself.
    """
    return send(REPORT, queue=mailer_settings().BULK_QUEUE, expires=_EXPIRES, headers=_telling(worker))


def _telling(worker: Mapping[str, Any] | None) -> dict[str, Any]:
    # In a header and no argument: a worker of an older version takes the task all the same.
    return {} if worker is None else {WORKER_HEADER: {**worker, "published_at": time.time()}}


def publish_purge() -> bool:
    """Ask for a purge."""
    return send(PURGE, queue=mailer_settings().BULK_QUEUE, expires=_EXPIRES)


def publish_sync() -> bool:
    """Ask for the suppression list to be brought together with SparkPost's."""
    return send(SYNC_SUPPRESSIONS, queue=mailer_settings().BULK_QUEUE, expires=_EXPIRES)


def send(task: str, *arguments: Any, queue: str | None = None, **options: Any) -> bool:
    try:
        app = find_celery_app()
        if app.conf.task_always_eager:
            return _run_eagerly(app, task, arguments, **options)
        if countdown := options.get("countdown"):
            options["headers"] = {**options.get("headers", {}), COUNTDOWN_HEADER: countdown}
        conf = mailer_settings()
        return publisher.send(
            app,
            task,
            args=arguments,
            queue=declare_queue(app, queue or conf.QUEUE),
            # The host's routes are for its own tasks: a queue that they name may have no worker.
            router=Router(),
            # JSON, also where the host's own tasks use another serializer.
            serializer="json",
            ignore_result=True,
            soft_time_limit=conf.TIME_LIMIT.total_seconds(),
            # Until then it may have something to write down; afterwards nothing it does counts any more.
            time_limit=conf.LEASE.total_seconds(),
            **options,
        )
    except ImproperlyConfigured as error:
        publisher.logger.error("Mail is stored but not published: %s", error)
    except Exception as error:
        publisher.logger.error("Mail is stored but not published: %s", error_text(error), exc_info=loggable(error))
    return False


def declare_queue(app: Celery, name: str) -> Queue:
    """Our queue, declared the same by publishers and workers: brokers refuse a queue that is declared in two ways.

    As Celery makes those that are missing, such as quorum queues; and where the host has it make none, a plain one.
    """
    queues: Any = app.amqp.queues
    if name not in queues and not queues.create_missing:
        queues.add(Queue(name, routing_key=name))
    queue: Queue = queues[name]
    return queue


def _run_eagerly(
    app: Celery, task: str, arguments: tuple[Any, ...], *, countdown: float | None = None, **options: Any
) -> bool:
    """Celery's own ``task_always_eager``, which ``send_task()`` does not know. What is to wait stays deferred."""
    if not countdown:
        app.tasks[task].apply(args=arguments)
    return True
