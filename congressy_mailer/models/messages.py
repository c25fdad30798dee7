"""Messages and batches, their attachments, and what happened to them."""

from __future__ import annotations

import uuid

from django.db import models, router
from django.db.models import Case, F, Q, QuerySet, Value, When
from django.utils.translation import gettext_lazy as _

from . import actions
from .choices import FINAL, BounceCategory, DeliveryStatus, Priority, Retention, State
from .files import StoredFile, attachment_storage
from .identity import ByteOrderField, KeyField, new_id
from .indexes import FillFactor, IndexOfKnown, UniqueIfKnown
from .operations import Pause
from .progress import Progress

#: Stands in :attr:`.Message.open_batch` for messages that have tasks of their own.
NO_BATCH = uuid.UUID(int=0)
#: Stands there for those of them that cannot be sent before their ``due_at``: see :attr:`.Message.blocked`.
BLOCKED = uuid.UUID(int=1)
#: Stands there for those that somebody has paused: nobody looks for them before they are resumed or expire.
PAUSED = uuid.UUID(int=2)

#: How full PostgreSQL fills a page of the table with new rows. Of a change that finds room beside the old row it logs
#: the difference alone.
FILL_FACTOR = 75


class _WrittenManager(models.Manager["Mail"]):
    """Where nobody says which database, the one that is written to: by this manager Django follows relations.

    A replica may lag behind, and not have the batch yet that a message belongs to.
    """

    def get_queryset(self) -> QuerySet[Mail]:
        queryset = super().get_queryset()
        hints = self._hints  # type: ignore[attr-defined]
        return queryset if self._db else queryset.using(router.db_for_write(self.model, **hints))


class Mail(models.Model):
    """What a mail says and how it is to be sent: of one message, or of all messages of a batch.

    Its content is a ``template`` with its ``context``, or a ``subject`` with ready ``text`` and ``html``.
    """

    #: When it was stored.
    created_at = models.DateTimeField(_("created at"))
    #: Not before this time.
    send_at = models.DateTimeField(_("send at"), null=True, blank=True)
    #: Not after this time.
    expires_at = models.DateTimeField(_("expires at"), null=True, blank=True)
    #: Which of the messages that are due leaves first.
    priority = models.PositiveSmallIntegerField(_("priority"), choices=Priority.choices, default=Priority.NORMAL)

    #: Sender, as in the ``From`` header.
    from_email = models.CharField(_("from"), max_length=1000)
    #: Addresses of the ``Reply-To`` header.
    reply_to = models.JSONField(_("reply to"), default=list, blank=True)
    #: Further headers, by name.
    headers = models.JSONField(_("headers"), default=dict, blank=True)

    #: Name of the template, without extension.
    template = models.CharField(_("template"), max_length=255, blank=True, default="")
    #: The template's context, encoded by :mod:`congressy_mailer.content.context`.
    context = models.JSONField(_("context"), null=True, blank=True)
    #: Language that the template is rendered in.
    language = models.CharField(_("language"), max_length=20, blank=True, default="")
    #: Time zone that the template is rendered in.
    timezone = models.CharField(_("time zone"), max_length=64, blank=True, default="")
    #: Subject, unless the template has one.
    subject = models.TextField(_("subject"), blank=True, default="")
    #: Ready plain text.
    text = models.TextField(_("text"), blank=True, default="")
    #: Ready HTML.
    html = models.TextField(_("HTML"), blank=True, default="")
    #: Further forms of what it says, each its text and its media type.
    alternatives = models.JSONField(_("alternatives"), default=list, blank=True)

    #: A reaction to something the recipient did, rather than marketing.
    transactional = models.BooleanField(_("transactional"), default=True)
    #: Content is never shown, and dropped as soon as it is sent.
    sensitive = models.BooleanField(_("sensitive"), default=False)
    #: When its content was dropped: as soon as it was sent where it is sensitive, else after ``KEEP_CONTENT``.
    content_dropped_at = models.DateTimeField(_("content dropped at"), null=True, blank=True)
    #: Alias of the mail backend; empty: the default one.
    using = models.CharField(_("using"), max_length=100, blank=True, default="")

    #: Model of the host's object that it is about, such as ``shop.order``; null: none.
    about_model = KeyField(_("model it is about"), max_length=200, null=True, blank=True)
    #: Primary key of that object.
    about_id = KeyField(_("key of what it is about"), max_length=200, null=True, blank=True)
    #: What that object was called then.
    about_name = models.CharField(_("about"), max_length=200, blank=True, default="")

    #: Context of OpenTelemetry's span in which it was stored, as W3C's ``traceparent``; empty: none was recorded, or
    #: its batch has it.
    traceparent = models.CharField(_("trace context"), max_length=55, blank=True, default="")

    #: The list that it belongs to, which a recipient may leave; empty: none.
    list_id = models.CharField(_("list"), max_length=255, blank=True, default="")
    #: SparkPost's ``campaign_id``.
    campaign = models.CharField(_("campaign"), max_length=64, blank=True, default="")
    #: SparkPost's ``tags``.
    tags = models.JSONField(_("tags"), default=list, blank=True)
    #: SparkPost's ``metadata``, without what the mailer adds.
    metadata = models.JSONField(_("metadata"), default=dict, blank=True)
    #: Further options for SparkPost, in the form of its ``X-MSYS-API`` header.
    sparkpost = models.JSONField(_("SparkPost options"), default=dict, blank=True)

    objects = models.Manager()
    written = _WrittenManager()

    class Meta:
        abstract = True
        base_manager_name = "written"


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
    #: Until when the caller that stores recipients holds it; empty: nobody does.
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


# Tried again by a task of its batch and not by one of its own: either the batch's key finds it or the sweep's.
_DEFERRED_WITH_BATCH = Q(state=State.DEFERRED, crashes=0, detached=False, batch__isnull=False)


_HAS_OWN_TASKS = Q(batch__isnull=True) | Q(crashes__gt=0) | Q(detached=True)


class Message(Mail):
    """One mail with its recipients, from the call to its end.

    Its content is its own, or a complete MIME message in ``mime``, or its batch's; then its own ``context`` is added to
    that of the batch.
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
    )

    # Envelope and headers

    #: Its ``Message-ID`` header, the same for life.
    message_id = models.CharField(_("Message-ID"), max_length=320)
    #: Recipients in the ``To`` header.
    to = models.JSONField(_("to"), default=list)
    #: Recipients in the ``Cc`` header.
    cc = models.JSONField(_("cc"), default=list, blank=True)
    #: Recipients in no header.
    bcc = models.JSONField(_("bcc"), default=list, blank=True)
    #: The first of the recipients in the form in which addresses are compared; of the others: :class:`.SearchKey`.
    address = ByteOrderField(_("address"), max_length=320, blank=True, default="")

    # Content

    #: A complete MIME message, sent as it is; empty where it is too large for the row, and is its only attachment.
    mime = models.BinaryField(_("MIME message"), null=True, blank=True)
    #: What the mail's author has set beside that for other backends, such as django-anymail's ``tags``, encoded by
    #: :mod:`congressy_mailer.content.context`; and how often it was queued anew on its way.
    attributes = models.JSONField(_("attributes"), default=dict, blank=True)

    # Options

    #: Given by the caller: the same key never makes a second message.
    # Empty is not once: many messages have none.
    idempotency_key = KeyField(_("idempotency key"), max_length=200, null=True, blank=True)

    # On its way: last, since PostgreSQL logs of a changed row what lies between the first and the last change

    #: Where it is on its way.
    state = models.CharField(_("state"), max_length=10, choices=State.choices, default=State.QUEUED)
    #: When the sweep should look at it if nothing else happens; empty once it is final.
    due_at = models.DateTimeField(_("due at"), null=True, blank=True)
    #: Who took it last: a claim's token while it is being sent.
    token = models.CharField(_("token"), max_length=100, blank=True, default="")
    #: How often it was tried: composed and offered to the mail server, however far that came.
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    #: When handing it over began; only kept where ``ON_CRASH`` is ``"hold"``.
    handover_started_at = models.DateTimeField(_("handover started at"), null=True, blank=True)
    #: How often its worker died while holding it, or its server's last reply was lost.
    crashes = models.PositiveSmallIntegerField(_("crashes"), default=0)
    #: Alias of the mail backend that it went over last, where that is another than it names: see
    #: :mod:`congressy_mailer.delivery.routing`.
    route = models.CharField(_("route"), max_length=100, blank=True, default="")
    #: Detached from its batch, since it was queued again: it neither waits nor ends with the batch any more.
    detached = models.BooleanField(_("detached"), default=False)
    #: Put back on the queue until ``due_at``, since it cannot be sent before: its mail backend is away or has no room.
    blocked = models.BooleanField(_("blocked"), default=False)
    #: Put back on the queue by this pause, until it is resumed; empty: by none.
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
    #: Addresses still to be served after some were accepted, refused or left out; empty: all of them.
    remaining = models.JSONField(_("remaining recipients"), null=True, blank=True)
    #: The mail server's last word, with the server's own id of the message where it gives one.
    reply = models.TextField(_("last reply"), blank=True, default="")
    #: Why it failed, waits or was set aside, for people.
    reason = models.TextField(_("reason"), blank=True, default="")
    #: When it was first tried, and refused temporarily; ``RETRY_FOR`` counts from then.
    first_attempt_at = models.DateTimeField(_("first attempt at"), null=True, blank=True)
    #: When it became ready to be sent.
    queued_at = models.DateTimeField(_("queued at"), null=True, blank=True)
    #: When the mail server first accepted it for a recipient.
    sent_at = models.DateTimeField(_("sent at"), null=True, blank=True)
    #: When it reached its final state.
    finished_at = models.DateTimeField(_("finished at"), null=True, blank=True)
    #: What became of it after it was sent, as far as SparkPost's events tell; of each recipient:
    #: :class:`RecipientStatus`.
    delivery = models.CharField(_("delivery"), max_length=20, choices=DeliveryStatus.choices, blank=True, default="")

    # Keys by which work is found. The database derives them from the columns above, and they are null in rows of which
    # nothing is to be done: the indexes do not grow with the history, and no plan depends on its size.

    #: The batch that it waits with; :data:`NO_BATCH`: it has tasks of its own; :data:`BLOCKED`: these need not look for
    #: it before its ``due_at``; :data:`PAUSED`: before it is resumed; null while it is being sent and once it is final.
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
    #: Its batch while it waits there to be tried again; else null.
    deferred_batch = models.GeneratedField(
        expression=Case(
            When(_DEFERRED_WITH_BATCH, then=F("batch")),
            default=None,
        ),
        output_field=models.UUIDField(null=True),
        db_persist=True,
        verbose_name=_("deferred batch"),
    )
    #: When the sweep looks at it; null where its batch is looked at instead.
    sweep_at = models.GeneratedField(
        expression=Case(
            When(_DEFERRED_WITH_BATCH, then=None),
            default=F("due_at"),
        ),
        output_field=models.DateTimeField(null=True),
        db_persist=True,
        verbose_name=_("sweep at"),
    )
    #: What is still kept of a message that is final: a value of :class:`.Retention`; null until then.
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
    #: Its state where it is final and another than ``sent``; else null. By it people find what has gone wrong.
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
        # Neither subject nor recipients: this ends up in logs and tracebacks.
        return f"{self.id} ({self.state})"

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
        """Take the message back; see :func:`congressy_mailer.cancel`."""
        return actions.get_actions().cancel(self)

    def retry(self) -> None:
        """Send what failed or was set aside once more; see :func:`congressy_mailer.mail.retry`."""
        actions.get_actions().retry(self)

    def resend(self) -> None:
        """Send it to everybody a second time; see :func:`congressy_mailer.mail.resend`."""
        actions.get_actions().resend(self)


class Attachment(models.Model):
    """A file that goes with a message, or all messages of a batch, kept in ``ATTACHMENT_STORAGE`` until it is purged.

    Messages of one batch that carry the same content share one file.
    """

    id = models.UUIDField(_("id"), primary_key=True, default=new_id, editable=False)
    message = models.ForeignKey(
        Message,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="attachments",
        verbose_name=_("message"),
    )
    batch = models.ForeignKey(
        Batch, on_delete=models.CASCADE, null=True, blank=True, related_name="attachments", verbose_name=_("batch")
    )
    #: Name that the reader sees.
    filename = models.CharField(_("file name"), max_length=255, blank=True, default="")
    #: Media type, such as ``application/pdf``.
    mimetype = models.CharField(_("media type"), max_length=255)
    #: ``Content-ID`` of an image that the HTML shows as ``cid:…``; empty for an ordinary attachment.
    content_id = models.CharField(_("content id"), max_length=255, blank=True, default="")
    #: Shown below the text by mail programs that can, and not only listed.
    inline = models.BooleanField(_("inline"), default=False)
    #: What it is, in a few words.
    description = models.CharField(_("description"), max_length=255, blank=True, default="")
    #: Size in bytes.
    size = models.PositiveBigIntegerField(_("size"))
    #: SHA-256 of the content, compared before it is sent.
    sha256 = models.CharField(_("SHA-256"), max_length=64)
    #: Where it is stored.
    file = models.FileField(_("file"), storage=attachment_storage, max_length=255)
    #: The file as the retention knows it. The constraint keeps the row of a file that is in use.
    stored = models.ForeignKey(
        StoredFile, on_delete=models.PROTECT, related_name="attachments", verbose_name=_("stored file")
    )

    class Meta:
        verbose_name = _("attachment")
        verbose_name_plural = _("attachments")
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(message__isnull=True) ^ Q(batch__isnull=True), name="mailer_attachment_one_owner"
            )
        ]

    def __str__(self) -> str:
        return str(self.id)


class Event(models.Model):
    """Something that happened to a message which its own row cannot tell."""

    class Type(models.TextChoices):
        """What happened."""

        #: Accepted for this recipient while others were not.
        ACCEPTED = "accepted", _("accepted")
        #: Refused temporarily.
        DEFERRED = "deferred", _("deferred")
        #: Refused for good.
        REJECTED = "rejected", _("rejected")
        #: Could not be composed, or was given up.
        FAILED = "failed", _("failed")
        #: Its worker died while holding it.
        CRASHED = "crashed", _("crashed")
        #: Set aside by one of ``INTERCEPTORS``.
        WITHHELD = "withheld", _("withheld")
        #: Sent again on request.
        RETRIED = "retried", _("retried")
        #: Left out, since the address is on the suppression list.
        SUPPRESSED = "suppressed", _("suppressed")

        # From here on, what SparkPost tells.

        #: SparkPost has taken it.
        INJECTED = "injected", _("taken by SparkPost")
        #: Not delivered yet; SparkPost tries again.
        DELAYED = "delayed", _("delayed")
        #: The recipient's server has taken it.
        DELIVERED = "delivered", _("delivered")
        #: The recipient's server refused it, at once or after it had taken it.
        BOUNCED = "bounced", _("bounced")
        #: SparkPost did not try to deliver it.
        NOT_TRIED = "not_tried", _("rejected by SparkPost")
        #: The recipient reported it as spam.
        COMPLAINED = "complained", _("complained")
        #: It was opened.
        OPENED = "opened", _("opened")
        #: A link in it was followed.
        CLICKED = "clicked", _("clicked")
        #: The recipient unsubscribed.
        UNSUBSCRIBED = "unsubscribed", _("unsubscribed")
        #: The recipient has taken back by our own page that they unsubscribed by it.
        RESUBSCRIBED = "resubscribed", _("resubscribed")
        #: Something that this version does not know.
        OTHER = "other", _("other")

    id = models.UUIDField(_("id"), primary_key=True, default=new_id, editable=False)
    #: The message; empty: none of ours, or none that is still known.
    message = models.ForeignKey(
        Message, on_delete=models.CASCADE, related_name="events", verbose_name=_("message"), null=True, blank=True
    )
    #: What happened.
    type = models.CharField(_("type"), max_length=20, choices=Type.choices)
    #: When it happened.
    at = models.DateTimeField(_("at"))
    #: To whom it happened; empty: to the whole message.
    recipient = models.CharField(_("recipient"), max_length=400, blank=True, default="")
    #: The mail server's words, or the error.
    detail = models.TextField(_("detail"), blank=True, default="")
    #: SparkPost's id of it; empty: it is one of ours.
    # Empty is not once: many events have none.
    key = models.CharField(_("key"), max_length=64, null=True, blank=True)  # noqa: DJ001
    #: SparkPost's id of the mail to this recipient (``message_id``); empty: it is not known.
    # Null and not empty, so that a search for a missing one matches none of our own events.
    sparkpost_id = models.CharField(_("SparkPost's id"), max_length=64, null=True, blank=True)  # noqa: DJ001
    #: SparkPost's class of a bounce.
    bounce_class = models.PositiveSmallIntegerField(_("bounce class"), null=True, blank=True)
    #: The category of that class.
    bounce_category = models.CharField(
        _("bounce category"), max_length=20, choices=BounceCategory.choices, blank=True, default=""
    )

    class Meta:
        verbose_name = _("event")
        verbose_name_plural = _("events")
        ordering = ["at", "id"]
        indexes = [
            models.Index(fields=["recipient", "type", "at"], name="mailer_event_recipient"),
            models.Index(fields=["sparkpost_id"], name="mailer_event_sparkpost_id"),
        ]
        constraints = [models.UniqueConstraint(fields=["key"], name="mailer_event_unique_key")]

    def __str__(self) -> str:
        return f"{self.type} {self.message_id}"
