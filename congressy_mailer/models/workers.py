"""The Celery workers that serve the mailer's queues."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class Worker(models.Model):
    """A Celery worker whose own message came through the broker lately.

    That a process exists proves nothing: it may have lost its broker. What counts is that a task which it has published
    was run. Kept by :mod:`congressy_mailer.metrics.workers`.
    """

    #: Celery's name of it, ``celery@host``.
    name = models.CharField(_("name"), max_length=255, primary_key=True)
    #: Names of all queues that it serves, also the host's own.
    queues = models.JSONField(_("queues"), default=list)
    #: How it runs tasks: ``prefork``, ``threads``, ``solo``, ``gevent``, ``eventlet``.
    pool = models.CharField(_("pool"), max_length=50, blank=True, default="")
    #: How many tasks it runs at a time; 0: that is not known.
    concurrency = models.PositiveIntegerField(_("concurrency"), default=0)
    #: Version of ``congressy_mailer`` that it runs.
    version = models.CharField(_("version"), max_length=50, blank=True, default="")
    #: When it was started, by its host's clock.
    started_at = models.DateTimeField(_("started at"))
    #: When it published the last message of its that was run, by its host's clock.
    published_at = models.DateTimeField(_("published at"))
    #: When that message was run, by the database's clock.
    seen_at = models.DateTimeField(_("seen at"))

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")

    def __str__(self) -> str:
        return self.name
