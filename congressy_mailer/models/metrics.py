"""Counts of the workers, so that the dashboard and monitoring need not read all messages."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class CountSample(models.Model):
    """Counts of one process within about a second, kept until they are added to a :class:`CountRollup`.

    Rows are only inserted, so no process waits for another one, nor for the one that adds them up.
    """

    #: The minute of the counted events.
    minute = models.DateTimeField(_("minute"))
    #: A list of ``[backend, queue, priority, name, count]``; names: :mod:`congressy_mailer.metrics.counters`.
    counts = models.JSONField(_("counts"))

    class Meta:
        verbose_name = _("sample of counts")
        verbose_name_plural = _("samples of counts")

    def __str__(self) -> str:
        return f"{self.minute:%Y-%m-%d %H:%M}"


class CountRollup(models.Model):
    """Counts of all processes within a minute or an hour, or since the beginning."""

    class Period(models.IntegerChoices):
        """The length of time."""

        #: Everything ever counted, purged messages included; a counter that never decreases.
        TOTAL = 0, _("total")
        #: One minute; kept for a day.
        MINUTE = 1, _("minute")
        #: One hour; kept for 90 days.
        HOUR = 2, _("hour")

    #: Length of the period.
    period = models.PositiveSmallIntegerField(_("period"), choices=Period.choices)
    #: Beginning of the period; for the total, the epoch.
    start = models.DateTimeField(_("start"))
    #: As :attr:`CountSample.counts`.
    counts = models.JSONField(_("counts"))

    class Meta:
        verbose_name = _("rollup of counts")
        verbose_name_plural = _("rollups of counts")
        constraints = [models.UniqueConstraint(fields=["period", "start"], name="mailer_rollup_unique")]

    def __str__(self) -> str:
        return f"{self.get_period_display()} {self.start:%Y-%m-%d %H:%M}"


class Dashboard(CountRollup):
    """The dashboard in the admin, which has a permission of its own: ``view_dashboard``."""

    class Meta:
        proxy = True
        default_permissions = ("view",)
        verbose_name = _("dashboard")
        verbose_name_plural = _("dashboard")
