"""The files that go with a message, or with all messages of a batch."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from .batches import Batch
from .files import StoredFile, attachment_storage
from .identity import new_id
from .messages import Message


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
