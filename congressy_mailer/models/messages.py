"""Messages, from the call to their final state."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Case, F, Q, Value, When
from django.utils.translation import gettext_lazy as _

from . import actions
from .batches import Batch
from .choices import FINAL, DeliveryStatus, Retention, State
from .identity import ByteOrderField, KeyField, new_id
from .indexes import FillFactor, IndexOfKnown, UniqueIfKnown
from .mail import Mail
from .operations import Pause

#: Stands in :attr:`.Message.open_batch` for messages that have tasks of their own.
NO_BATCH = uuid.UUID(int=0)
#: Stands there for those of them that cannot be sent before their ``due_at``: see :attr:`.Message.blocked`.
BLOCKED = uuid.UUID(int=1)
#: The value for paused messages: no sweep looks at them before they are resumed or expire.
PAUSED = uuid.UUID(int=2)

#: How full PostgreSQL fills a page of the table with new rows. Of a change that finds room beside the old row it logs
#: the difference alone.
FILL_FACTOR = 75

# Tried again by a task of its batch and not by one of its own: either the batch's key finds it or the sweep's.
_DEFERRED_WITH_BATCH = Q(state=State.DEFERRED, crashes=0, detached=False, batch__isnull=False)


_HAS_OWN_TASKS = Q(batch__isnull=True) | Q(crashes__gt=0) | Q(detached=True)


class Message(Mail):
    """One mail with its recipients, from the call to its final state.

    Its content is in its own columns, or a complete MIME message in ``mime``, or in its batch. In a batch, its own
    ``context`` is merged into the batch's.
    """

    id = models.UUIDField(_("id"), primary_key=True, default=new_id, editable=False)
    #: The batch it belongs to, if any.
    batch = models.ForeignKey(
        Batch,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="messages",
        verbose_name=_("batch"),
        # With a constraint each change of a message would lock its batch on MariaDB, and each new one on every
        # database: workers would wait for callers.
        db_constraint=False,
        # Its index has an entry for a message in a batch alone, since each change of a message writes one: see Meta.
        db_index=False,
    )

    # Envelope and headers

    #: Its ``Message-ID`` header, which never changes.
    message_id = models.CharField(_("Message-ID"), max_length=320)
    #: Recipients in the ``To`` header.
    to = models.JSONField(_("to"), default=list)
    #: Recipients in the ``Cc`` header.
    cc = models.JSONField(_("cc"), default=list, blank=True)
    #: Recipients in no header.
    bcc = models.JSONField(_("bcc"), default=list, blank=True)
    #: Address of the first recipient, in the form for comparison; the others are in :class:`.SearchKey`.
    address = ByteOrderField(_("address"), max_length=320, blank=True, default="")

    # Content

    #: A complete MIME message of another app, sent unchanged; empty: it is stored as the only attachment, because it is
    #: too large for the row; null: there is none.
    mime = models.BinaryField(_("MIME message"), null=True, blank=True)
    #: Attributes of another app's mail, such as django-anymail's ``tags``, encoded by
    #: :mod:`congressy_mailer.content.context`; and how often the mail was queued again on its way.
    attributes = models.JSONField(_("attributes"), default=dict, blank=True)

    # Options

    # Null and not empty: many messages have none.
    #: Key of the caller; a second call with it stores no second message.
    idempotency_key = KeyField(_("idempotency key"), max_length=200, null=True, blank=True)

    # On its way: last, since PostgreSQL logs of a changed row what lies between the first and the last change

    #: Its state.
    state = models.CharField(_("state"), max_length=10, choices=State.choices, default=State.QUEUED)
    #: When the sweep takes it up if nothing else happens; empty once it is final.
    due_at = models.DateTimeField(_("due at"), null=True, blank=True)
    #: Token of the last claim.
    token = models.CharField(_("token"), max_length=100, blank=True, default="")
    #: Number of attempts: how often it was composed and offered to the mail server.
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    #: When its hand-over began; only recorded if ``ON_CRASH`` is ``"hold"``.
    handover_started_at = models.DateTimeField(_("handover started at"), null=True, blank=True)
    #: How often its worker died while holding it, or the server's last reply was lost.
    crashes = models.PositiveSmallIntegerField(_("crashes"), default=0)
    #: Alias of the mail backend that it last went over, if that is not the one in ``using``
    #: (:mod:`congressy_mailer.delivery.failover`).
    route = models.CharField(_("route"), max_length=100, blank=True, default="")
    #: Whether it was queued again, and so no longer waits or ends with its batch.
    detached = models.BooleanField(_("detached"), default=False)
    #: Whether it was put back on the queue until ``due_at``, because its mail backend is unavailable or has no free
    #: connection.
    blocked = models.BooleanField(_("blocked"), default=False)
    #: The pause by which it was put back on the queue; empty: none.
    pause = models.ForeignKey(
        Pause,
        on_delete=models.DO_NOTHING,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("pause"),
        # Found by open_batch; with a constraint each worker's change of it would lock the pause.
        db_constraint=False,
        db_index=False,
    )
    #: Addresses that are still to be tried, after others were accepted, refused or suppressed; empty: all of them.
    remaining = models.JSONField(_("remaining recipients"), null=True, blank=True)
    #: The mail server's last reply, with the server's id of the mail if it gives one.
    reply = models.TextField(_("last reply"), blank=True, default="")
    #: Why it failed, waits or was set aside, as text for people.
    reason = models.TextField(_("reason"), blank=True, default="")
    #: When it was first refused temporarily; ``RETRY_FOR`` counts from then.
    first_attempt_at = models.DateTimeField(_("first attempt at"), null=True, blank=True)
    #: When it became ready to be sent.
    queued_at = models.DateTimeField(_("queued at"), null=True, blank=True)
    #: When the mail server first accepted it for a recipient.
    sent_at = models.DateTimeField(_("sent at"), null=True, blank=True)
    #: When it reached its final state.
    finished_at = models.DateTimeField(_("finished at"), null=True, blank=True)
    #: The most serious status among its recipients by SparkPost's events; each recipient has a
    #: :class:`RecipientStatus`.
    delivery = models.CharField(_("delivery"), max_length=20, choices=DeliveryStatus.choices, blank=True, default="")

    # Keys by which work is found. The database derives them from the columns above, and they are null in rows of which
    # nothing is to be done: the indexes do not grow with the history, and no plan depends on its size.

    #: The batch that it waits with. :data:`NO_BATCH`: it has its own tasks. :data:`BLOCKED`: no task looks for it
    #: before ``due_at``. :data:`PAUSED`: none before it is resumed. Null while it is being sent and once it is final.
    open_batch = models.GeneratedField(
        expression=Case(
            When(state__in=sorted({State.SENDING, *FINAL}), then=None),
            When(_HAS_OWN_TASKS & Q(state=State.QUEUED, pause__isnull=False), then=Value(PAUSED, models.UUIDField())),
            When(_HAS_OWN_TASKS & Q(state=State.QUEUED, blocked=True), then=Value(BLOCKED, models.UUIDField())),
            When(_HAS_OWN_TASKS, then=Value(NO_BATCH, models.UUIDField())),
            default=F("batch"),
        ),
        output_field=models.UUIDField(null=True),
        db_persist=True,
        verbose_name=_("open batch"),
    )
    #: Its batch while it waits there to be tried again; otherwise null.
    deferred_batch = models.GeneratedField(
        expression=Case(
            When(_DEFERRED_WITH_BATCH, then=F("batch")),
            default=None,
        ),
        output_field=models.UUIDField(null=True),
        db_persist=True,
        verbose_name=_("deferred batch"),
    )
    #: When the sweep takes it up; null if its batch is taken up instead.
    sweep_at = models.GeneratedField(
        expression=Case(
            When(_DEFERRED_WITH_BATCH, then=None),
            default=F("due_at"),
        ),
        output_field=models.DateTimeField(null=True),
        db_persist=True,
        verbose_name=_("sweep at"),
    )
    #: What is still kept of it once it is final, a value of :class:`.Retention`; null before.
    retention = models.GeneratedField(
        expression=Case(
            When(~Q(state__in=sorted(FINAL)), then=None),
            When(content_dropped_at__isnull=False, then=Value(Retention.DROPPED.value)),
            When(state=State.HELD, sensitive=True, then=Value(Retention.SENSITIVE_HELD.value)),
            When(state=State.HELD, then=Value(Retention.HELD.value)),
            When(state=State.FAILED, sensitive=True, then=Value(Retention.SENSITIVE_FAILED.value)),
            When(sensitive=True, then=Value(Retention.SENSITIVE.value)),
            default=Value(Retention.WHOLE.value),
        ),
        output_field=models.SmallIntegerField(null=True),
        db_persist=True,
        verbose_name=_("retention"),
    )
    #: Its state if that is final and not ``sent``; otherwise null. The admin finds unsent messages by it.
    unsent = models.GeneratedField(
        expression=Case(When(state__in=sorted(FINAL - {State.SENT}), then=F("state")), default=None),
        output_field=models.CharField(max_length=10, null=True),
        db_persist=True,
        verbose_name=_("unsent"),
    )

    class Meta:
        verbose_name = _("message")
        verbose_name_plural = _("messages")
        permissions = [
            ("view_content", "Can view what messages say"),
            ("retry_message", "Can retry messages that failed"),
            ("resend_message", "Can send messages a second time"),
            ("cancel_message", "Can cancel messages"),
            ("release_message", "Can release messages that are held"),
        ]
        indexes = [
            # What leaves next, of a batch or of what is in none.
            IndexOfKnown(
                fields=["open_batch", "state", "priority", "id"], known="open_batch", name="mailer_message_open"
            ),
            IndexOfKnown(fields=["deferred_batch", "due_at"], known="deferred_batch", name="mailer_message_deferred"),
            IndexOfKnown(fields=["state", "sweep_at"], known="sweep_at", name="mailer_message_sweep"),
            IndexOfKnown(fields=["retention", "finished_at"], known="retention", name="mailer_message_retention"),
            IndexOfKnown(fields=["batch"], known="batch", name="mailer_message_batch"),
            # What people look for, newest first.
            models.Index(fields=["address", "id"], name="mailer_message_address"),
            IndexOfKnown(fields=["about_id", "about_model", "id"], known="about_id", name="mailer_message_about"),
            IndexOfKnown(fields=["unsent", "id"], known="unsent", name="mailer_message_unsent"),
        ]
        constraints = [
            # unique=True would make PostgreSQL keep a second index, for LIKE.
            UniqueIfKnown(field="idempotency_key", name="mailer_message_unique_key"),
            FillFactor(percent=FILL_FACTOR, name="mailer_message_fill"),
            models.CheckConstraint(
                condition=Q(mime__isnull=True) | Q(template="", text="", html="", context__isnull=True),
                name="mailer_message_mime_only",
            ),
            models.CheckConstraint(
                condition=Q(template="") | Q(text="", html=""), name="mailer_message_template_or_ready"
            ),
        ]

    def __str__(self) -> str:
        # Neither subject nor recipients: the admin's history shows it to people who may see neither.
        return f"{self.id} ({self.get_state_display()})"

    def __repr__(self) -> str:
        # Logs and tracebacks want one wording, whatever language is in force.
        return f"<Message: {self.id} ({self.state})>"

    @property
    def recipients(self) -> list[str]:
        """All recipients in the order To, Cc, Bcc."""
        return [*self.to, *self.cc, *self.bcc]

    @property
    def envelope(self) -> list[str]:
        """The addresses that it is still to be sent to, bare. Of those that compare equal, only the first."""
        if self.remaining:
            return list(self.remaining)
        # The models are in every process of the host, and its grammar takes time to compile.
        from ..mime.addresses import bare_address, comparable_address

        copies: dict[str, str] = {}
        for bare in map(bare_address, self.recipients):
            copies.setdefault(comparable_address(bare), bare)
        return list(copies.values())

    @property
    def content(self) -> Mail:
        """Where its content is stored: its batch, or the message itself."""
        return self if self.batch is None else self.batch

    @property
    def waits_with_batch(self) -> bool:
        """A task for its batch takes it, and no task of its own."""
        return self.batch_id is not None and not self.crashes and not self.detached

    def cancel(self) -> bool:
        """Cancel the message; see :func:`congressy_mailer.cancel`."""
        return actions.get_actions().cancel(self)

    def retry(self) -> None:
        """Queue an unsent message again; see :func:`congressy_mailer.mail.retry`."""
        actions.get_actions().retry(self)

    def resend(self) -> None:
        """Queue the message again for all recipients; see :func:`congressy_mailer.mail.resend`."""
        actions.get_actions().resend(self)
