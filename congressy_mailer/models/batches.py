"""Batches: many messages that were sent together."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from . import actions
from .identity import KeyField, new_id
from .indexes import IndexOfKnown
from .mail import Mail
from .operations import Pause
from .progress import Progress

#: Ends a text of :attr:`Batch.problems` that was longer.
CUT = "…"


class Batch(Mail):
    """Messages that are sent together. The batch has their common content, and each message what differs.

    Its messages wait in the table and not in the broker, which carries a few tasks for the batch. Each message has its
    own state; :mod:`congressy_mailer.outbox.batches` hands them to tasks.
    """

    id = models.UUIDField(_("id"), primary_key=True, default=new_id, editable=False)
    # Null and not empty: many batches have none.
    #: Key of the caller; a second call with it continues this batch.
    key = KeyField(_("key"), max_length=200, null=True, blank=True)
    #: When all recipients had been stored; empty: the caller is still storing, or was interrupted.
    stored_at = models.DateTimeField(_("stored at"), null=True, blank=True)
    #: When it was cancelled.
    cancelled_at = models.DateTimeField(_("cancelled at"), null=True, blank=True)
    #: Number of recipients that were skipped as invalid.
    skipped = models.PositiveIntegerField(_("skipped recipients"), default=0)
    #: The first skipped recipients, each with the reason.
    problems = models.JSONField(_("problems"), default=list, blank=True)
    #: When the sweep takes it up if nothing else happens; empty: nothing is left to send.
    due_at = models.DateTimeField(_("due at"), null=True, blank=True)
    #: Generation of the tasks that were last published for it.
    generation = models.PositiveIntegerField(_("generation"), default=0)
    #: The latest generation of which a task has begun; tasks of older ones end.
    begun_generation = models.PositiveIntegerField(_("begun generation"), default=0)
    #: When a caller last stored recipients of it.
    last_stored_at = models.DateTimeField(_("last stored at"), null=True, blank=True)
    #: End of the lease of the caller that stores recipients; empty: none does.
    storing_until = models.DateTimeField(_("storing until"), null=True, blank=True)
    #: Token of that caller.
    storing_token = models.CharField(_("storing token"), max_length=32, blank=True, default="")
    #: The pause that a worker has found to hold it back; empty: none.
    pause = models.ForeignKey(
        Pause,
        on_delete=models.DO_NOTHING,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("pause"),
        db_constraint=False,
        db_index=False,
    )

    class Meta:
        verbose_name = _("batch")
        verbose_name_plural = _("batches")
        permissions = [("cancel_batch", "Can cancel batches")]
        indexes = [
            IndexOfKnown(fields=["due_at"], known="due_at", name="mailer_batch_due"),
            IndexOfKnown(fields=["about_id", "about_model", "id"], known="about_id", name="mailer_batch_about"),
            IndexOfKnown(fields=["pause"], known="pause", name="mailer_batch_pause"),
        ]
        # unique=True would make PostgreSQL keep a second index, for LIKE.
        constraints = [models.UniqueConstraint(fields=["key"], name="mailer_batch_unique_key")]

    def __str__(self) -> str:
        return str(self.id)

    def progress(self) -> Progress:
        """Count its messages by state; see :func:`congressy_mailer.bulk.progress`."""
        return actions.get_actions().progress(self)

    def cancel(self) -> int:
        """Cancel its messages that are not being sent yet; see :func:`congressy_mailer.bulk.cancel`."""
        return actions.get_actions().cancel_batch(self)
