"""What a Celery worker takes on by itself: our queues, and the sweep, without beat and without configuration.

Every process of the host imports this module, so it imports little.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from typing import Any

from celery.signals import (
    celeryd_init,
    task_prerun,
    worker_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)
from django.conf import settings

from .broker import host_queues, turns, waiting_tasks
from .broker.sending import declare_queue, publish_report, publish_sweep
from .conf import default_sender, mailer_settings

logger = logging.getLogger("congressy_mailer.worker")


def _our_queues() -> list[str]:
    conf = mailer_settings()
    return [conf.QUEUE, conf.BULK_QUEUE]


@celeryd_init.connect(dispatch_uid="congressy_mailer.consume")
def consume_our_queues(sender: str, instance: Any, options: dict[str, Any], **kwargs: Any) -> None:
    """Let a worker started without ``-Q`` consume our queues too; ``-X`` and ``-Q`` are left as given."""
    for name in _our_queues():
        # Also with -Q: Celery would not know the names where the host has it make no queue that is missing.
        queue = declare_queue(instance.app, name)
        if not options.get("queues"):
            instance.app.amqp.queues.select_add(queue)


@celeryd_init.connect(dispatch_uid="congressy_mailer.reconnect")
def keep_reconnecting(sender: str, conf: Any, **kwargs: Any) -> None:
    """Let a worker reconnect after any failure of its broker, unless the host has decided otherwise.

    By default a worker ends when Redis answers with an error, as one does that is read-only or full; and Celery 5.7
    ends one that has something to acknowledge when its Redis dies.
    """
    if not conf.value_set_for("broker_channel_error_retry"):
        conf.broker_channel_error_retry = True
    if not conf.value_set_for("worker_consumer"):
        conf.worker_consumer = "congressy_mailer.broker.consumer:ReconnectingConsumer"


def _log_destinations(served: Collection[str]) -> None:
    """Log at the start where mail leaves, so that it can be seen without sending one."""
    from .transports.destinations import destinations

    for alias, destination in destinations().items():
        logger.log(
            # On a developer's machine that is as it should be.
            logging.INFO if settings.DEBUG or destination.is_real else logging.WARNING,
            "%s %s.", "Mail" if alias == "default" else f"Mail over the backend {alias!r}", destination.text,
        )  # fmt: skip
    names = ", ".join(name for name in _our_queues() if name in served)
    logger.info("Sender: %s. Queues of the mailer that this worker serves: %s.", default_sender(), names or "none")


@worker_init.connect(dispatch_uid="congressy_mailer.load")
def load_delivery(sender: Any, **kwargs: Any) -> None:
    """Load what the tasks need before the worker forks: its processes share the memory, and no first mail waits."""
    from .delivery import runs, upkeep  # noqa: F401
    from .throttling import share_connections

    share_connections(_tasks_at_once(sender))
    waiting_tasks.share()


def _tasks_at_once(worker: Any) -> int:
    """How many tasks a worker runs at the same time, at the most; 0 where it has not decided yet."""
    # A class, or its name in the host's settings: Celery looks at no concurrency then.
    pool = worker.pool_cls if isinstance(worker.pool_cls, str) else worker.pool_cls.__module__
    if pool.rpartition(".")[2].partition(":")[0] == "solo":
        return 1
    # Celery has both as numbers or as what was given on the command line, such as "auto" and "10,3".
    autoscale = getattr(worker, "autoscale", None) or ()
    given = [worker.concurrency, *(autoscale.split(",") if isinstance(autoscale, str) else autoscale)]
    return max((int(number) for number in given if str(number).isdigit()), default=0)


@worker_ready.connect(dispatch_uid="congressy_mailer.sweep")
def start_sweeping(sender: Any, **kwargs: Any) -> None:
    """Publish a sweep now and at every interval, if this worker serves the queue that it goes to."""
    conf = mailer_settings()
    # Under every pool there is this timer.
    sender.timer.call_repeatedly(waiting_tasks.INTERVAL, waiting_tasks.observe, (sender,))
    served = sender.app.amqp.queues.consume_from
    _log_destinations(served)
    missing = [name for name in _our_queues() if name not in served]
    if missing:
        logger.warning(
            "This worker does not serve %s: mail there waits for another worker. Started with -Q, a worker "
            "serves only the queues that are named.",
            " and ".join(repr(name) for name in missing),
        )
    told = describe_worker(sender)
    # One that serves bulk mail alone must not sweep: nothing of what it publishes comes through the other queue.
    publish = publish_sweep if conf.QUEUE in served else publish_report if conf.BULK_QUEUE in served else None
    if publish is not None:
        publish(told)
        sender.timer.call_repeatedly(conf.SWEEP_INTERVAL.total_seconds(), publish, (told,))


def describe_worker(consumer: Any) -> dict[str, Any]:
    """What a worker tells of itself: its name, queues, pool, how many tasks it runs at a time, version and start."""
    from . import __version__

    return {
        "name": str(consumer.hostname),
        "queues": sorted(consumer.app.amqp.queues.consume_from),
        # As -P names it: the module of "threads" is called "thread".
        "pool": type(consumer.pool).__module__.rpartition(".")[2].replace("thread", "threads"),
        "concurrency": _tasks_at_once(consumer.controller),
        "version": __version__,
        "started_at": time.time(),
    }


@worker_shutting_down.connect(dispatch_uid="congressy_mailer.stop")
def end_slices(sender: Any, **kwargs: Any) -> None:
    """Have no task go on for longer than a time slice once the worker is to stop."""
    waiting_tasks.stop()


@task_prerun.connect(dispatch_uid="congressy_mailer.turn")
def begin_turn(sender: Any, **kwargs: Any) -> None:
    """Have a process know that it is another task's turn than a batch's."""
    if sender.name not in waiting_tasks.OUR_DELIVERIES:
        turns.others_begin()


@worker_shutdown.connect(dispatch_uid="congressy_mailer.close")
def close_connections(**kwargs: Any) -> None:
    """Close what was opened to ask the broker."""
    host_queues.close()


@worker_process_shutdown.connect(dispatch_uid="congressy_mailer.write_counts_of_process")
@worker_shutdown.connect(dispatch_uid="congressy_mailer.write_counts")
def write_counts(**kwargs: Any) -> None:
    """Write what this process has counted and not written yet."""
    from . import metrics

    metrics.flush_and_close()
