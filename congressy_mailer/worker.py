"""What a Celery worker takes on by itself: our queues, and the sweep, without beat and without configuration."""

from __future__ import annotations

import logging
from typing import Any

from celery.signals import celeryd_init, worker_ready

from .broker.sending import publish_sweep
from .conf import mailer_settings

logger = logging.getLogger("congressy_mailer.worker")


def _our_queues() -> list[str]:
    conf = mailer_settings()
    return [conf.QUEUE, conf.BULK_QUEUE]


@celeryd_init.connect(dispatch_uid="congressy_mailer.consume")
def consume_our_queues(sender: str, instance: Any, options: dict[str, Any], **kwargs: Any) -> None:
    """Let a worker started without ``-Q`` consume our queues too; ``-X`` and ``-Q`` stay as told."""
    if not options.get("queues"):
        for name in _our_queues():
            instance.app.amqp.queues.select_add(name)


@celeryd_init.connect(dispatch_uid="congressy_mailer.reconnect")
def keep_reconnecting(sender: str, conf: Any, **kwargs: Any) -> None:
    """Let a worker connect again whatever its broker goes through, unless the host has decided otherwise.

    By default a worker ends when Redis answers with an error, as one does that is read-only or full; and Celery 5.7
    ends one that has something to acknowledge when its Redis dies.
    """
    if not conf.value_set_for("broker_channel_error_retry"):
        conf.broker_channel_error_retry = True
    if not conf.value_set_for("worker_consumer"):
        conf.worker_consumer = "congressy_mailer.broker.consumer:ReconnectingConsumer"


@worker_ready.connect(dispatch_uid="congressy_mailer.sweep")
def start_sweeping(sender: Any, **kwargs: Any) -> None:
    """Publish a sweep now and at every interval, if this worker serves the queue that it goes to."""
    conf = mailer_settings()
    served = sender.app.amqp.queues.consume_from
    missing = [name for name in _our_queues() if name not in served]
    if missing:
        logger.warning(
            "This worker does not serve %s: mail there waits for another worker. Started with -Q, a worker "
            "serves only the queues that are named.",
            " and ".join(repr(name) for name in missing),
        )
    if conf.QUEUE in served:
        publish_sweep()
        sender.timer.call_repeatedly(conf.SWEEP_INTERVAL.total_seconds(), publish_sweep)
