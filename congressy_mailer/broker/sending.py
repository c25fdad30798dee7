"""Publishing the mailer's tasks by name, with their queues and expiry."""

from __future__ import annotations

import time
from typing import Any

from celery import Celery
from celery.app.routes import Router
from django.core.exceptions import ImproperlyConfigured
from kombu import Queue

from ..conf import mailer_settings
from . import publisher
from .celery_app import find_celery_app

DELIVER = "congressy_mailer.deliver"
DELIVER_BATCH = "congressy_mailer.deliver_batch"
SWEEP = "congressy_mailer.sweep"
PURGE = "congressy_mailer.purge"
SYNC_SUPPRESSIONS = "congressy_mailer.sync_suppressions"
PROCESS_WEBHOOKS = "congressy_mailer.process_webhooks"

#: Seconds after which a sweep or purge that nobody has taken from the broker is not worth doing any more. A queue may
#: be hours long, and only what comes through it tells how far it has moved.
_EXPIRES = 86_400.0


def publish_sweep() -> bool:
    """Ask for a sweep. It tells when it was published, and so how far the queue has moved when it comes through."""
    return send(SWEEP, time.time(), expires=_EXPIRES)


def publish_purge() -> bool:
    """Ask for a purge."""
    return send(PURGE, expires=_EXPIRES)


def publish_sync() -> bool:
    """Ask for the suppression list to be brought together with SparkPost's."""
    return send(SYNC_SUPPRESSIONS, queue=mailer_settings().BULK_QUEUE, expires=_EXPIRES)


def send(task: str, *arguments: Any, queue: str | None = None, **options: Any) -> bool:
    try:
        app = find_celery_app()
        if app.conf.task_always_eager:
            return _run_eagerly(app, task, arguments, **options)
        conf = mailer_settings()
        return publisher._publisher.send(
            app,
            task,
            args=arguments,
            queue=_queue(app, queue or conf.QUEUE),
            # Without the host's routes: they are for its own tasks, and nobody may serve where they lead.
            router=Router(),
            # Whatever the host's own tasks travel as.
            serializer="json",
            ignore_result=True,
            soft_time_limit=conf.TIME_LIMIT.total_seconds(),
            # Until then it may have something to write down; afterwards nothing it does counts any more.
            time_limit=conf.LEASE.total_seconds(),
            **options,
        )
    except ImproperlyConfigured as error:
        publisher.logger.error("Mail is stored but not published: %s", error)
    except Exception:
        publisher.logger.exception("Mail is stored but not published.")
    return False


def _queue(app: Celery, name: str) -> Queue:
    """Our queue, declared as our workers declare it, also where the host has Celery create none that is missing."""
    queues = app.amqp.queues
    if name not in queues:
        queues.add(Queue(name, routing_key=name))
    return queues[name]


def _run_eagerly(
    app: Celery, task: str, arguments: tuple[Any, ...], *, countdown: float | None = None, **options: Any
) -> bool:
    """Celery's own ``task_always_eager``, which ``send_task()`` does not know. What is to wait stays deferred."""
    if not countdown:
        app.tasks[task].apply(args=arguments)
    return True
