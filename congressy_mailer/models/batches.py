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
    """Many messages that were sent together: their content is here, once, and what differs is in each.

    Its messages wait in the table and not in the broker, which carries a few tasks for the batch as a whole. Where its
    messages stand is in their own states; :mod:`congressy_mailer.outbox.batches` gives them out.
    """

    id = models.UUIDField(_("id"), primary_key=True, default=new_id, editable=False)
    #: Given by the caller: the same key continues the same batch.
    # Empty is not once: many batches have none.
    key = KeyField(_("key"), max_length=200, null=True, blank=True)
    #: When its last recipient was stored; empty: the caller has not come to the end, or broke off before it.
    stored_at = models.DateTimeField(_("stored at"), null=True, blank=True)
    #: When it was taken back.
    cancelled_at = models.DateTimeField(_("cancelled at"), null=True, blank=True)
    #: Recipients that were left out, since no mail could be made of what was given.
    skipped = models.PositiveIntegerField(_("skipped recipients"), default=0)
    #: Which and why, for the first of them.
    problems = models.JSONField(_("problems"), default=list, blank=True)
    #: When a task should look for its waiting messages; empty: none waits.
    due_at = models.DateTimeField(_("due at"), null=True, blank=True)
    #: Generation of the tasks that were published for it last.
    generation = models.PositiveIntegerField(_("generation"), default=0)
    #: The latest generation of which a task has begun: a task of an older one has been overtaken, and ends.
    begun_generation = models.PositiveIntegerField(_("begun generation"), default=0)
    #: When a caller last stored recipients of it.
    last_stored_at = models.DateTimeField(_("last stored at"), null=True, blank=True)
    #: Until when the caller that stores recipients holds it; empty: no caller does.
    storing_until = models.DateTimeField(_("storing until"), null=True, blank=True)
    #: Token of that caller.
    storing_token = models.CharField(_("storing token"), max_length=32, blank=True, default="")
    #: By which pause a worker has found it held back; empty: by none.
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
        """How far it is; see :func:`congressy_mailer.bulk.progress`."""
        return actions.get_actions().progress(self)

    def cancel(self) -> int:
        """Take back what has not begun to be sent; see :func:`congressy_mailer.bulk.cancel`."""
        return actions.get_actions().cancel_batch(self)
