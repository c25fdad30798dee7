"""What the workers know of the mail backends, of their periodic tasks, of tasks that fail, and of what is paused."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from .choices import PauseScope
from .identity import new_id


class TransportStatus(models.Model):
    """A mail backend that cannot be used now; there is no row while it can.

    Kept by :mod:`congressy_mailer.delivery.availability`.
    """

    #: Alias of the mail backend; empty: the default one.
    using = models.CharField(_("using"), max_length=100, blank=True, default="")
    #: Only mail of senders in this domain is refused; empty: the server takes no mail at all.
    sender_domain = models.CharField(_("sender domain"), max_length=255, blank=True, default="")
    #: Since when.
    unavailable_since = models.DateTimeField(_("unavailable since"))
    #: When it is tried again.
    next_try_at = models.DateTimeField(_("next try at"))
    #: How often it was tried in vain.
    failures = models.PositiveIntegerField(_("failures"), default=1)
    #: What is wrong, for people.
    reason = models.TextField(_("reason"), blank=True, default="")

    class Meta:
        verbose_name = _("unavailable transport")
        verbose_name_plural = _("unavailable transports")
        constraints = [models.UniqueConstraint(fields=["using", "sender_domain"], name="mailer_transport_unique")]

    def __str__(self) -> str:
        return f"{self.using or 'default'} {self.sender_domain}".strip()


class PeriodicTask(models.Model):
    """A task that the workers run periodically, and when it last ran. Kept by :mod:`congressy_mailer.periodic`."""

    #: Name of the task: a constant of :mod:`congressy_mailer.periodic`.
    name = models.CharField(_("name"), max_length=100, primary_key=True)
    #: When it last ran.
    last_run_at = models.DateTimeField(_("last run at"))
    #: For a chain of tasks: the process that works on it; empty: none, or the next task has been published.
    token = models.CharField(_("token"), max_length=100, blank=True, default="")
    #: Until when that counts; empty: it has come to its end.
    lease_until = models.DateTimeField(_("lease until"), null=True, blank=True)

    class Meta:
        verbose_name = _("periodic task")
        verbose_name_plural = _("periodic tasks")

    def __str__(self) -> str:
        return self.name


class TaskFailure(models.Model):
    """A delivery task that ends in an error again and again. Kept by :mod:`congressy_mailer.outbox.failures`."""

    #: What the task delivers: ``mailer`` for single messages, else the id of the batch.
    task = models.CharField(_("task"), max_length=100, primary_key=True)
    #: How often it failed one after another.
    failures = models.PositiveIntegerField(_("failures"), default=1)
    #: When the first of these failures was.
    since = models.DateTimeField(_("since"))
    #: When it last failed.
    last_failed_at = models.DateTimeField(_("last failed at"))
    #: Type of the error and where it was raised, without its words.
    error = models.TextField(_("error"), blank=True, default="")

    class Meta:
        verbose_name = _("failing task")
        verbose_name_plural = _("failing tasks")

    def __str__(self) -> str:
        return self.task


class Pause(models.Model):
    """A pause: the mail it names waits until it is resumed. Kept by :mod:`congressy_mailer.outbox.pausing`."""

    id = models.UUIDField(_("id"), primary_key=True, default=new_id, editable=False)
    #: What is paused.
    scope = models.CharField(_("scope"), max_length=10, choices=PauseScope.choices, default=PauseScope.ALL)
    #: Which one: a queue, the alias of a mail backend (``default`` for the default one), a campaign, the id of a batch;
    #: empty: all mail.
    name = models.CharField(_("name"), max_length=100, blank=True, default="")
    #: Why, for people.
    reason = models.TextField(_("reason"), blank=True, default="")
    #: Who did it.
    paused_by = models.CharField(_("paused by"), max_length=150, blank=True, default="")
    #: Since when.
    paused_at = models.DateTimeField(_("paused at"))
    #: When it was resumed. The row goes once all that it held back is due again.
    resumed_at = models.DateTimeField(_("resumed at"), null=True, blank=True, editable=False)

    class Meta:
        verbose_name = _("pause")
        verbose_name_plural = _("pauses")
        ordering = ["paused_at"]

    def __str__(self) -> str:
        # Also in the log of the admin, which keeps the words that it was given.
        return f"{PauseScope(self.scope).label} {self.name}".strip()
