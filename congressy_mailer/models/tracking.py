"""Delivery statuses by SparkPost's events, and the batches of these events."""

from __future__ import annotations

from django.db import models
from django.db.models import Case, F, Value, When
from django.utils.translation import gettext_lazy as _

from .choices import BounceCategory, DeliveryStatus
from .identity import new_id
from .indexes import IndexOfKnown
from .messages import Message


class RecipientStatus(models.Model):
    """Delivery status of one message for one recipient, by SparkPost's events. Kept by :mod:`.tracking`.

    It does not depend on the order of the events, nor on repetitions.
    """

    class Arrival(models.TextChoices):
        """Whether it arrived."""

        #: Not delivered yet; SparkPost tries again.
        DELAYED = "delayed", _("delayed")
        #: The recipient's server has taken it.
        DELIVERED = "delivered", _("delivered")
        #: SparkPost did not try to deliver it.
        REJECTED = "rejected", _("rejected by SparkPost")
        #: The recipient's server refused it, at once or after it had taken it.
        BOUNCED = "bounced", _("bounced")

    id = models.UUIDField(_("id"), primary_key=True, default=new_id, editable=False)
    # The unique constraint below begins with it.
    #: The message.
    message = models.ForeignKey(
        Message, on_delete=models.CASCADE, related_name="statuses", verbose_name=_("message"), db_index=False
    )
    #: The address in the form for comparison.
    recipient = models.CharField(_("recipient"), max_length=320)
    #: Whether the mail arrived, by the latest event about that; empty: there is none.
    arrival = models.CharField(_("arrival"), max_length=20, choices=Arrival.choices, blank=True, default="")
    #: When that event happened.
    arrival_at = models.DateTimeField(_("arrival at"), null=True, blank=True)
    #: Key of that event, which decides between events of the same moment.
    arrival_key = models.CharField(max_length=64, blank=True, default="", editable=False)
    #: Text of that event, such as the reply of the recipient's server.
    detail = models.TextField(_("detail"), blank=True, default="")
    #: SparkPost's class of the bounce, if it bounced.
    bounce_class = models.PositiveSmallIntegerField(_("bounce class"), null=True, blank=True)
    #: Category of that class.
    bounce_category = models.CharField(
        _("bounce category"), max_length=20, choices=BounceCategory.choices, blank=True, default=""
    )
    #: When it was first opened.
    opened_at = models.DateTimeField(_("opened at"), null=True, blank=True)
    #: When a link in it was first followed.
    clicked_at = models.DateTimeField(_("clicked at"), null=True, blank=True)
    #: When the recipient first unsubscribed through it; empty again after a return.
    unsubscribed_at = models.DateTimeField(_("unsubscribed at"), null=True, blank=True)
    #: When the recipient first reported it as spam.
    complained_at = models.DateTimeField(_("complained at"), null=True, blank=True)
    #: The value of :attr:`delivery` if that is a problem; otherwise null. The admin finds such mail by it.
    trouble = models.GeneratedField(
        expression=Case(
            When(complained_at__isnull=False, then=Value(DeliveryStatus.COMPLAINED.value)),
            When(unsubscribed_at__isnull=False, then=Value(DeliveryStatus.UNSUBSCRIBED.value)),
            When(arrival__in=[Arrival.BOUNCED.value, Arrival.REJECTED.value], then=F("arrival")),
            default=None,
        ),
        output_field=models.CharField(max_length=20, null=True),
        db_persist=True,
        verbose_name=_("trouble"),
    )

    class Meta:
        verbose_name = _("recipient")
        verbose_name_plural = _("recipients")
        constraints = [models.UniqueConstraint(fields=["message", "recipient"], name="mailer_status_unique")]
        indexes = [
            models.Index(fields=["recipient"], name="mailer_status_recipient"),
            IndexOfKnown(fields=["trouble", "message"], known="trouble", name="mailer_status_trouble"),
        ]

    def __str__(self) -> str:
        return f"{self.message_id} {self.delivery}"

    @property
    def delivery(self) -> str:
        """The most serious status; empty if nothing is known."""
        if self.complained_at:
            return DeliveryStatus.COMPLAINED
        if self.unsubscribed_at:
            return DeliveryStatus.UNSUBSCRIBED
        if self.arrival in (self.Arrival.BOUNCED, self.Arrival.REJECTED):
            return DeliveryStatus(self.arrival)
        if self.clicked_at:
            return DeliveryStatus.CLICKED
        if self.opened_at:
            return DeliveryStatus.OPENED
        return self.arrival


class WebhookBatch(models.Model):
    """A batch of events as SparkPost posted it: stored before it is answered, and processed by a task.

    Its body is dropped when all of its events have been processed.
    """

    id = models.UUIDField(_("id"), primary_key=True, default=new_id, editable=False)
    #: Its ``X-MessageSystems-Batch-ID`` and a hash of its body, so that each batch is stored once.
    key = models.CharField(_("key"), max_length=100)
    #: When it was received.
    received_at = models.DateTimeField(_("received at"))
    #: The JSON as received, compressed by zlib.
    body = models.BinaryField(_("body"), null=True, blank=True)
    #: When the sweep takes it up if nothing else happens; empty: it has been processed.
    due_at = models.DateTimeField(_("due at"), null=True, blank=True)
    #: How often a worker began to process it without finishing.
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    #: Number of its events.
    events = models.PositiveIntegerField(_("events"), default=0)
    #: Number of processed events.
    processed = models.PositiveIntegerField(_("processed"), default=0)
    #: Why some events could not be processed.
    problem = models.TextField(_("problem"), blank=True, default="")

    class Meta:
        verbose_name = _("webhook batch")
        verbose_name_plural = _("webhook batches")
        indexes = [
            models.Index(fields=["due_at"], name="mailer_webhook_due"),
            models.Index(fields=["received_at"], name="mailer_webhook_received"),
        ]
        constraints = [models.UniqueConstraint(fields=["key"], name="mailer_webhook_unique_key")]

    def __str__(self) -> str:
        return self.key
