"""The Celery workers that serve the mailer's queues."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class Worker(models.Model):
    """A Celery worker whose own task has lately come through the broker.

    A running process may have lost its broker, so only a task that it published and that was run counts. Kept by
    :mod:`congressy_mailer.metrics.workers`.
    """

    #: Celery's name of the worker, ``celery@host``.
    name = models.CharField(_("name"), max_length=255, primary_key=True)
    #: Names of all queues that it serves, including the host's.
    queues = models.JSONField(_("queues"), default=list)
    #: Celery's pool: ``prefork``, ``threads``, ``solo``, ``gevent`` or ``eventlet``.
    pool = models.CharField(_("pool"), max_length=50, blank=True, default="")
    #: Number of tasks that it runs at a time; 0: unknown.
    concurrency = models.PositiveIntegerField(_("concurrency"), default=0)
    #: Version of ``congressy_mailer`` that it runs.
    version = models.CharField(_("version"), max_length=50, blank=True, default="")
    #: When it was started, by its host's clock.
    started_at = models.DateTimeField(_("started at"))
    #: When it published its last task that was run, by its host's clock.
    published_at = models.DateTimeField(_("published at"))
    #: When that task was run, by the database's clock.
    seen_at = models.DateTimeField(_("seen at"))

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")

    def __str__(self) -> str:
        return self.name
