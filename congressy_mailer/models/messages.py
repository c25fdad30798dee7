"""Messages and batches, their attachments, and what happened to them."""

from __future__ import annotations

import uuid

from django.core.files.storage import Storage, storages
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ..conf import mailer_settings
from ..mime.addresses import bare_address, comparable_address
from . import actions
from .choices import BounceCategory, DeliveryStatus, Priority, State
from .identity import new_id
from .progress import Progress

#: Where attachments lie in their storage, in a folder for each day.
ATTACHMENT_FOLDER = "congressy_mailer"


def attachment_storage() -> Storage:
    """The storage named by ``ATTACHMENT_STORAGE``, where attachments wait for the worker."""
    return storages[mailer_settings().ATTACHMENT_STORAGE]


def attachment_path(attachment: Attachment, filename: str) -> str:
    """A path that nobody can guess and that keeps nothing of the sender's file name."""
    return f"{ATTACHMENT_FOLDER}/{timezone.now().date()}/{uuid.uuid4()}"


def shared_attachment_path(batch: Batch, sha256: str) -> str:
    """The same for a file that messages of a batch share: one for each content."""
    return f"{ATTACHMENT_FOLDER}/{batch.created_at.date()}/{batch.id}-{sha256}"


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

    #: A reaction to something the recipient did, rather than marketing.
    transactional = models.BooleanField(_("transactional"), default=True)
    #: Content is never shown, and dropped as soon as it is sent.
    sensitive = models.BooleanField(_("sensitive"), default=False)
    #: When its content was dropped: as soon as it was sent where it is sensitive, else after ``KEEP_CONTENT``.
    content_dropped_at = models.DateTimeField(_("content dropped at"), null=True, blank=True)
    #: Alias of the mail backend; empty: the default one.
    using = models.CharField(_("using"), max_length=100, blank=True, default="")

    #: The list that it belongs to, which a recipient may leave; empty: none.
    list_id = models.CharField(_("list"), max_length=100, blank=True, default="")
    #: SparkPost's ``campaign_id``.
    campaign = models.CharField(_("campaign"), max_length=64, blank=True, default="")
    #: SparkPost's ``tags``.
    tags = models.JSONField(_("tags"), default=list, blank=True)
    #: SparkPost's ``metadata``, without what the mailer adds.
    metadata = models.JSONField(_("metadata"), default=dict, blank=True)
    #: What else SparkPost is told, in the shape of its ``X-MSYS-API`` header.
    sparkpost = models.JSONField(_("SparkPost options"), default=dict, blank=True)

    class Meta:
        abstract = True


class Batch(Mail):
    """Many messages that were sent together: their content is here, once, and what differs is in each.

    Its messages wait in the table and not in the broker, which carries a few tasks for the batch as a whole. Where its
    messages stand is in their own states; :mod:`congressy_mailer.outbox.batches` gives them out.
    """

    id = models.UUIDField(_("id"), primary_key=True, default=new_id, editable=False)
    #: Given by the caller: the same key continues the same batch.
    key = models.CharField(_("key"), max_length=200, null=True, blank=True, unique=True)
    #: When its last recipient was stored; empty: the caller has not come to the end, or broke off before it.
    stored_at = models.DateTimeField(_("stored at"), null=True, blank=True)
    #: When it was taken back.
    cancelled_at = models.DateTimeField(_("cancelled at"), null=True, blank=True)
    #: Recipients that were left out, since no mail could be made of what was given.
    skipped = models.PositiveIntegerField(_("skipped recipients"), default=0)
    #: Which and why, for the first of them.
    problems = models.JSONField(_("problems"), default=list, blank=True)
    #: When somebody should look for what it has left to send; empty: nothing is left.
    due_at = models.DateTimeField(_("due at"), null=True, blank=True)
    #: Generation of the tasks that work at it: tasks of an older one are believed lost, and end if they come after all.
    generation = models.PositiveIntegerField(_("generation"), default=0)

    class Meta:
        verbose_name = _("batch")
        verbose_name_plural = _("batches")
        indexes = [models.Index(fields=["due_at"], name="mailer_batch_due")]

    def __str__(self) -> str:
        return str(self.id)

    def progress(self) -> Progress:
        """How far it is; see :func:`congressy_mailer.bulk.progress`."""
        return actions.get_actions().progress(self)

    def cancel(self) -> int:
        """Take back what has not begun to be sent; see :func:`congressy_mailer.bulk.cancel`."""
        return actions.get_actions().cancel_batch(self)


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
        # The index for what is waiting begins with it.
        db_index=False,
    )

    # On its way

    #: Where it is on its way.
    state = models.CharField(_("state"), max_length=10, choices=State.choices, default=State.QUEUED)
    #: When somebody should look at it again if nothing else happens; empty once it is final.
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
    #: Addresses still to be served after some were accepted, refused or left out; empty: all of them.
    remaining = models.JSONField(_("remaining recipients"), null=True, blank=True)
    #: The mail server's last word, with the server's own id of the message where it gives one.
    reply = models.TextField(_("last reply"), blank=True, default="")
    #: Why it failed, waits or was set aside, for people.
    reason = models.TextField(_("reason"), blank=True, default="")
    #: When it became ready to be sent.
    queued_at = models.DateTimeField(_("queued at"), null=True, blank=True)
    #: When the mail server first accepted it for somebody.
    sent_at = models.DateTimeField(_("sent at"), null=True, blank=True)
    #: When it reached its final state.
    finished_at = models.DateTimeField(_("finished at"), null=True, blank=True)
    #: What became of it after it was sent, as far as SparkPost's events tell; of each recipient:
    #: :class:`RecipientStatus`.
    delivery = models.CharField(_("delivery"), max_length=20, choices=DeliveryStatus.choices, blank=True, default="")

    # Envelope and headers

    #: Its ``Message-ID`` header, the same for life.
    message_id = models.CharField(_("Message-ID"), max_length=320)
    #: Recipients in the ``To`` header.
    to = models.JSONField(_("to"), default=list)
    #: Recipients in the ``Cc`` header.
    cc = models.JSONField(_("cc"), default=list, blank=True)
    #: Recipients in no header.
    bcc = models.JSONField(_("bcc"), default=list, blank=True)

    # Content

    #: A complete MIME message, sent as it is.
    mime = models.BinaryField(_("MIME message"), null=True, blank=True)

    # Options

    #: Given by the caller: the same key never makes a second message.
    # Empty is not once: many messages have none.
    idempotency_key = models.CharField(_("idempotency key"), max_length=200, null=True, blank=True)  # noqa: DJ001

    class Meta:
        verbose_name = _("message")
        verbose_name_plural = _("messages")
        indexes = [
            models.Index(fields=["state", "due_at"], name="mailer_message_due"),
            models.Index(fields=["state", "created_at"], name="mailer_message_state"),
            models.Index(fields=["finished_at"], name="mailer_message_finished"),
            models.Index(fields=["delivery", "created_at"], name="mailer_message_delivery"),
            # What leaves next, of a batch or of what is in none.
            models.Index(fields=["batch", "state", "priority", "id"], name="mailer_message_batch_order"),
        ]
        constraints = [
            # unique=True would make PostgreSQL keep a second index, for LIKE.
            models.UniqueConstraint(fields=["idempotency_key"], name="mailer_message_unique_key"),
            models.CheckConstraint(
                condition=Q(mime__isnull=True) | Q(template="", subject="", text="", html="", context__isnull=True),
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
        copies: dict[str, str] = {}
        for bare in map(bare_address, self.recipients):
            copies.setdefault(comparable_address(bare), bare)
        return list(copies.values())

    @property
    def content(self) -> Mail:
        """What says what it says: its batch, where it is in one, else itself."""
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
    #: Size in bytes.
    size = models.PositiveBigIntegerField(_("size"))
    #: SHA-256 of the content, compared before it is sent.
    sha256 = models.CharField(_("SHA-256"), max_length=64)
    #: Where it is stored.
    file = models.FileField(_("file"), storage=attachment_storage, upload_to=attachment_path, max_length=255)

    class Meta:
        verbose_name = _("attachment")
        verbose_name_plural = _("attachments")
        ordering = ["id"]
        indexes = [models.Index(fields=["file"], name="mailer_attachment_file")]
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
        #: Sent again because somebody asked for it.
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
    key = models.CharField(_("key"), max_length=64, null=True, blank=True, unique=True)
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
        indexes = [models.Index(fields=["recipient", "at"], name="mailer_event_recipient")]

    def __str__(self) -> str:
        return f"{self.type} {self.message_id}"
