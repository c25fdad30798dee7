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
    #: Domain of the senders whose mail is refused; empty: the server accepts no mail at all.
    sender_domain = models.CharField(_("sender domain"), max_length=255, blank=True, default="")
    #: When it became unavailable.
    unavailable_since = models.DateTimeField(_("unavailable since"))
    #: When it is tried again.
    next_try_at = models.DateTimeField(_("next try at"))
    #: Number of failed attempts.
    failures = models.PositiveIntegerField(_("failures"), default=1)
    #: Cause, as text for people.
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
    #: For a chain of tasks, the token of the task that works at it; empty: none works, or the next task has been
    #: published.
    token = models.CharField(_("token"), max_length=100, blank=True, default="")
    #: For a chain of tasks, the end of its lease; empty: the chain is complete.
    lease_until = models.DateTimeField(_("lease until"), null=True, blank=True)

    class Meta:
        verbose_name = _("periodic task")
        verbose_name_plural = _("periodic tasks")

    def __str__(self) -> str:
        return self.name


class TaskFailure(models.Model):
    """A delivery task that fails repeatedly. Kept by :mod:`congressy_mailer.outbox.failures`."""

    #: ``mailer`` for the task of single messages, otherwise the id of the batch.
    task = models.CharField(_("task"), max_length=100, primary_key=True)
    #: Number of failures in succession.
    failures = models.PositiveIntegerField(_("failures"), default=1)
    #: When the first of these failures occurred.
    since = models.DateTimeField(_("since"))
    #: When it last failed.
    last_failed_at = models.DateTimeField(_("last failed at"))
    #: Type of the error and where it was raised, without its text.
    error = models.TextField(_("error"), blank=True, default="")

    class Meta:
        verbose_name = _("failing task")
        verbose_name_plural = _("failing tasks")

    def __str__(self) -> str:
        return self.task


class Pause(models.Model):
    """A pause: the mail it names waits until it is resumed. Kept by :mod:`congressy_mailer.outbox.pausing`."""

    id = models.UUIDField(_("id"), primary_key=True, default=new_id, editable=False)
    #: Kind of mail that is paused.
    scope = models.CharField(_("scope"), max_length=10, choices=PauseScope.choices, default=PauseScope.ALL)
    #: Name of the queue or campaign, alias of the mail backend (``default`` for the default one), or id of the batch;
    #: empty: all mail is paused.
    name = models.CharField(_("name"), max_length=100, blank=True, default="")
    #: Reason, as text for people.
    reason = models.TextField(_("reason"), blank=True, default="")
    #: Person who paused.
    paused_by = models.CharField(_("paused by"), max_length=150, blank=True, default="")
    #: When it was paused.
    paused_at = models.DateTimeField(_("paused at"))
    #: When it was resumed. The row is deleted once all mail that it held back is due again.
    resumed_at = models.DateTimeField(_("resumed at"), null=True, blank=True, editable=False)

    class Meta:
        verbose_name = _("pause")
        verbose_name_plural = _("pauses")
        ordering = ["paused_at"]

    def __str__(self) -> str:
        # Also in the log of the admin, which keeps the words that it was given.
        return f"{PauseScope(self.scope).label} {self.name}".strip()
