"""The keys by which a message is found, beside the address of its first recipient."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from .identity import ByteOrderField
from .messages import Message


class SearchKey(models.Model):
    """A word by which people find a message: the address of a further recipient, the name of one, the name of the
    object that it is about, or a ``Message-ID`` that its caller gave. Kept by :mod:`congressy_mailer.outbox.search`.

    Most messages have none, because the first recipient's address is a column of the message.
    """

    # Rows of one message lie together, where it is deleted; the index below serves who looks for one.
    pk = models.CompositePrimaryKey("message_id", "key")
    #: The message.
    message = models.ForeignKey(
        Message,
        on_delete=models.CASCADE,
        related_name="search_keys",
        verbose_name=_("message"),
        db_index=False,
        # Stored with the message and deleted with it, by one piece of code each; looking the message up again for each
        # key was nearly half of what PostgreSQL had to do for the keys of a batch.
        db_constraint=False,
    )
    #: An address in the form for comparison, or a text without case and accents that begins with one of its words.
    key = ByteOrderField(_("key"), max_length=320)

    class Meta:
        verbose_name = _("search key")
        verbose_name_plural = _("search keys")
        indexes = [models.Index(fields=["key", "message"], name="mailer_search_key")]

    def __str__(self) -> str:
        return str(self.message_id)
