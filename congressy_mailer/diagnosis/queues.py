"""The way through the broker: publishing, workers that take what was published, and how many at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta

from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from kombu.exceptions import OperationalError

from .. import __version__, periodic
from ..broker import sending
from ..broker.depths import queue_depths
from ..conf import mailer_settings
from ..metrics.workers import is_alive, known_workers
from ..models import Worker, clock
from ..replies import error_text
from .findings import Finding, error, examination, good, skipped, warning

# Seconds that a broker may take to answer, and a worker to take a task.
_BROKER_TIMEOUT = 3.0
_WORKER_TIMEOUT = 10.0

# Clocks that are closer need not bother anybody.
_CLOCKS_APART = timedelta(seconds=2)


@examination("broker", gettext_lazy("Broker"))
def examine_broker() -> Iterator[Finding]:
    """Connects to the broker of the host's Celery app, and counts the tasks in the mailer's queues.

    While the broker is unreachable, mail is stored and waits.
    """
    conf = mailer_settings()
    try:
        depths = queue_depths((conf.QUEUE, conf.BULK_QUEUE), _BROKER_TIMEOUT)
    except (OperationalError, ImproperlyConfigured) as failure:
        yield error(
            _("The broker cannot be reached: %(error)s") % {"error": error_text(failure)},
            _("Look at CELERY_BROKER_URL, and whether the broker runs and lets this host in."),
        )
        return
    yield good(", ".join(_("%(queue)s: %(count)d tasks") % {"queue": name, "count": depths[name]} for name in depths))


@examination("worker-takes-tasks", gettext_lazy("A task goes through the broker to a worker"))
def examine_round_trip() -> Iterator[Finding]:
    """Publishes a sweep, as every worker does each ``SWEEP_INTERVAL``, and waits up to ten seconds until a worker has
    run one.

    If none does, no worker runs, none serves ``QUEUE``, all are busy, or they use another broker.
    """
    before = periodic.last_run(periodic.SWEEP)
    if not sending.publish_sweep():
        yield error(_("The broker took no task."), _("See the finding about the broker."))
        return
    began = time.monotonic()
    while time.monotonic() - began < _WORKER_TIMEOUT:
        if periodic.last_run(periodic.SWEEP) != before:
            yield good(_("A worker ran it after %(seconds).1f s.") % {"seconds": time.monotonic() - began})
            return
        time.sleep(0.1)
    yield error(
        _("Within %(seconds)d s no worker ran it.") % {"seconds": _WORKER_TIMEOUT},
        _("Start one with celery -A project worker. Does it use this broker, and serve the queue %(queue)s?")
        % {"queue": mailer_settings().QUEUE},
    )


def _alive() -> list[Worker]:
    return [worker for worker in known_workers() if is_alive(worker)]


@examination("worker-queues", gettext_lazy("Workers and their queues"))
def examine_queues() -> Iterator[Finding]:
    """Lists the workers that have reported lately, and checks that each of the mailer's queues is served.

    A worker that is started with ``-Q`` serves the named queues only.
    """
    alive = _alive()
    if not alive:
        yield error(_("No worker has reported lately."), _("Start one with celery -A project worker."))
        return
    conf = mailer_settings()
    for queue in (conf.QUEUE, conf.BULK_QUEUE):
        if not any(queue in worker.queues for worker in alive):
            yield error(
                _("No worker serves the queue %(queue)s: its mail is never sent.") % {"queue": queue},
                _("Add it to the option -Q of a worker, or start a worker without -Q."),
            )
    yield good(", ".join(f"{worker.name} ({', '.join(worker.queues)})" for worker in alive))


@examination("worker-versions", gettext_lazy("Version of the workers"))
def examine_versions() -> Iterator[Finding]:
    """Compares each worker's version of ``congressy_mailer`` with that of this process."""
    alive = _alive()
    if not alive:
        yield skipped(_("No worker has reported lately."))
    for worker in alive:
        if worker.version != __version__:
            yield warning(
                _("The worker %(name)s runs version %(theirs)s, and here it is %(ours)s.")
                % {"name": worker.name, "theirs": worker.version or "?", "ours": __version__},
                _("Restart it after each update."),
            )


@examination("clocks", gettext_lazy("Clocks"))
def examine_clocks() -> Iterator[Finding]:
    """Compares the clocks of this host and of each worker with the clock of the database.

    Workers use the database's clock. Times that callers store, such as ``queued_at``, and the dates in mails are those
    of the hosts.
    """
    difference = clock.difference()
    advice = _("Have the hosts synchronise their clocks (NTP, chrony).")
    if abs(difference) >= _CLOCKS_APART:
        yield warning(
            _("The clock of this host differs from that of the database by %(seconds).1f s.")
            % {"seconds": abs(difference.total_seconds())},
            advice,
        )
    for worker in _alive():
        # What comes from the future cannot have waited in the queue; what seems old can.
        ahead = worker.published_at - worker.seen_at
        if ahead >= _CLOCKS_APART:
            yield warning(
                _("The clock of the worker %(name)s is %(seconds).1f s ahead of that of the database.")
                % {"name": worker.name, "seconds": ahead.total_seconds()},
                advice,
            )


@examination("concurrency", gettext_lazy("Tasks at a time and connections"))
def examine_concurrency() -> Iterator[Finding]:
    """Compares the number of tasks that the workers run at a time with ``MAX_CONNECTIONS``.

    A task without a free connection puts its mail back and is published again. More processes than connections send no
    faster, but do no harm.
    """
    alive = _alive()
    most = mailer_settings().MAX_CONNECTIONS
    if not alive or most is None:
        yield skipped(_("No worker has reported lately, or there is no limit."))
        return
    tasks = sum(worker.concurrency for worker in alive)
    if tasks > most:
        yield warning(
            _("The workers run %(tasks)d tasks at a time, and MAX_CONNECTIONS is %(most)d.")
            % {"tasks": tasks, "most": most},
            _("Start them with a lower --concurrency, or raise MAX_CONNECTIONS if your mail server allows more."),
        )
    for worker in alive:
        if worker.pool == "solo":
            yield warning(
                _("The worker %(name)s has the pool solo: one task at a time, and no TIME_LIMIT.")
                % {"name": worker.name},
                _("In production, use the prefork pool, which is the default."),
            )
