"""Events of messages."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from .choices import BounceCategory
from .identity import new_id
from .messages import Message


class Event(models.Model):
    """An event of a message that its own row does not record."""

    class Type(models.TextChoices):
        """Type of an event."""

        #: Accepted for this recipient while others were not.
        ACCEPTED = "accepted", _("accepted")
        #: Refused temporarily.
        DEFERRED = "deferred", _("deferred")
        #: Refused permanently.
        REJECTED = "rejected", _("rejected")
        #: Could not be composed, or was given up.
        FAILED = "failed", _("failed")
        #: Its worker died while holding it.
        CRASHED = "crashed", _("crashed")
        #: Set aside by one of ``INTERCEPTORS``.
        WITHHELD = "withheld", _("withheld")
        #: Sent again on request.
        RETRIED = "retried", _("retried")
        #: A recipient was left out, because the address is on the suppression list.
        SUPPRESSED = "suppressed", _("suppressed")

        # From here on, events of SparkPost.

        #: SparkPost has accepted it.
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
        #: The recipient has revoked the unsubscription on the mailer's page.
        RESUBSCRIBED = "resubscribed", _("resubscribed")
        #: A type that this version does not know.
        OTHER = "other", _("other")

    id = models.UUIDField(_("id"), primary_key=True, default=new_id, editable=False)
    #: The message; empty: it was sent by another system, or has been purged.
    message = models.ForeignKey(
        Message, on_delete=models.CASCADE, related_name="events", verbose_name=_("message"), null=True, blank=True
    )
    #: Its type.
    type = models.CharField(_("type"), max_length=20, choices=Type.choices)
    #: When it happened.
    at = models.DateTimeField(_("at"))
    #: The recipient concerned; empty: the whole message.
    recipient = models.CharField(_("recipient"), max_length=400, blank=True, default="")
    #: The mail server's reply, or the error.
    detail = models.TextField(_("detail"), blank=True, default="")
    # Null and not empty: many events have none.
    #: SparkPost's id of the event; null: the mailer recorded it.
    key = models.CharField(_("key"), max_length=64, null=True, blank=True)  # noqa: DJ001
    # Null and not empty, so that a search for a missing one matches none of the mailer's own events.
    #: SparkPost's id of the mail to this recipient (``message_id``); null: unknown.
    sparkpost_id = models.CharField(_("SparkPost's id"), max_length=64, null=True, blank=True)  # noqa: DJ001
    #: SparkPost's class of a bounce.
    bounce_class = models.PositiveSmallIntegerField(_("bounce class"), null=True, blank=True)
    #: Category of that class.
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
