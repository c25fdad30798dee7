"""The columns that messages and batches have in common: content and options of sending."""

from __future__ import annotations

from django.db import models, router
from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _

from .choices import Priority
from .identity import KeyField


class _WrittenManager(models.Manager["Mail"]):
    """The manager by which Django follows relations. By default it reads the database that is written.

    A replica may lag behind, and lack the batch that a message belongs to.
    """

    def get_queryset(self) -> QuerySet[Mail]:
        queryset = super().get_queryset()
        hints = self._hints  # type: ignore[attr-defined]
        return queryset if self._db else queryset.using(router.db_for_write(self.model, **hints))


class Mail(models.Model):
    """Content and options of one message, or of all messages of a batch.

    The content is a ``template`` with its ``context``, or a ``subject`` with ready ``text`` and ``html``.
    """

    #: When it was stored.
    created_at = models.DateTimeField(_("created at"))
    #: Earliest time to send it; empty: at once.
    send_at = models.DateTimeField(_("send at"), null=True, blank=True)
    #: Latest time to send it; empty: no limit.
    expires_at = models.DateTimeField(_("expires at"), null=True, blank=True)
    #: Order among the messages that are due; lower numbers are sent first.
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
    #: Subject; empty: the template has one.
    subject = models.TextField(_("subject"), blank=True, default="")
    #: Ready plain text.
    text = models.TextField(_("text"), blank=True, default="")
    #: Ready HTML.
    html = models.TextField(_("HTML"), blank=True, default="")
    #: Further alternatives, each with text and media type.
    alternatives = models.JSONField(_("alternatives"), default=list, blank=True)

    #: Whether it answers something that the recipient did, and is no marketing.
    transactional = models.BooleanField(_("transactional"), default=True)
    #: Whether its content is never shown, and dropped as soon as it is sent.
    sensitive = models.BooleanField(_("sensitive"), default=False)
    #: When its content was dropped: after ``KEEP_CONTENT``, or at once if it is sensitive.
    content_dropped_at = models.DateTimeField(_("content dropped at"), null=True, blank=True)
    #: Alias of the mail backend; empty: the default one.
    using = models.CharField(_("using"), max_length=100, blank=True, default="")

    #: Model of the object that was given as ``about=``, such as ``shop.order``, or ``shop.order@acme`` in a tenant's
    #: schema; null: none was given.
    about_model = KeyField(_("model it is about"), max_length=200, null=True, blank=True)
    #: Primary key of that object.
    about_id = KeyField(_("key of what it is about"), max_length=200, null=True, blank=True)
    #: Name of that object when the mail was stored.
    about_name = models.CharField(_("about"), max_length=200, blank=True, default="")

    #: W3C ``traceparent`` of the OpenTelemetry span in which it was stored; empty: no span was recorded, or the batch
    #: has it.
    traceparent = models.CharField(_("trace context"), max_length=55, blank=True, default="")

    #: The list that it belongs to, which a recipient may leave; empty: none.
    list_id = models.CharField(_("list"), max_length=255, blank=True, default="")
    #: SparkPost's ``campaign_id``.
    campaign = models.CharField(_("campaign"), max_length=64, blank=True, default="")
    #: SparkPost's ``tags``.
    tags = models.JSONField(_("tags"), default=list, blank=True)
    #: SparkPost's ``metadata``, without the mailer's own key.
    metadata = models.JSONField(_("metadata"), default=dict, blank=True)
    #: Further options for SparkPost, in the form of its ``X-MSYS-API`` header.
    sparkpost = models.JSONField(_("SparkPost options"), default=dict, blank=True)

    objects = models.Manager()
    written = _WrittenManager()

    class Meta:
        abstract = True
        base_manager_name = "written"
