"""The attachments of a message, or of all messages of a batch."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from .batches import Batch
from .files import StoredFile, attachment_storage
from .identity import new_id
from .messages import Message


class Attachment(models.Model):
    """An attachment of a message, or of all messages of a batch; its file is in ``ATTACHMENT_STORAGE`` until the purge.

    Messages of one batch with the same content share one file.
    """

    id = models.UUIDField(_("id"), primary_key=True, default=new_id, editable=False)
    #: The message; empty: it belongs to a batch.
    message = models.ForeignKey(
        Message,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="attachments",
        verbose_name=_("message"),
    )
    #: The batch; empty: it belongs to one message.
    batch = models.ForeignKey(
        Batch, on_delete=models.CASCADE, null=True, blank=True, related_name="attachments", verbose_name=_("batch")
    )
    #: Name that the recipient sees.
    filename = models.CharField(_("file name"), max_length=255, blank=True, default="")
    #: Media type, such as ``application/pdf``.
    mimetype = models.CharField(_("media type"), max_length=255)
    #: ``Content-ID`` of an image that the HTML shows as ``cid:…``; empty for an ordinary attachment.
    content_id = models.CharField(_("content id"), max_length=255, blank=True, default="")
    #: Whether mail programs should show it below the text instead of only listing it.
    inline = models.BooleanField(_("inline"), default=False)
    #: A short description.
    description = models.CharField(_("description"), max_length=255, blank=True, default="")
    #: Size in bytes.
    size = models.PositiveBigIntegerField(_("size"))
    #: SHA-256 of the content, verified before it is sent.
    sha256 = models.CharField(_("SHA-256"), max_length=64)
    #: Its path in the storage.
    file = models.FileField(_("file"), storage=attachment_storage, max_length=255)
    #: The file's row; its constraint keeps the row while the file is in use.
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
