"""Addresses that are not to be written to."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from .identity import ByteOrderField, new_id


class Suppression(models.Model):
    """A reason not to write to an address: one row for each mail that it stops and each source. Kept by
    :mod:`congressy_mailer.suppressions`.

    Each source speaks for itself, so that taking one back leaves the others.
    """

    class Scope(models.TextChoices):
        """Which mail is not to be sent to it."""

        #: Transactional mail.
        TRANSACTIONAL = "transactional", _("transactional mail")
        #: All mail that is not transactional.
        NON_TRANSACTIONAL = "non_transactional", _("mail that is not transactional")
        #: Mail of one list.
        LIST = "list", _("mail of one list")

    class Source(models.TextChoices):
        """What has put it there."""

        #: Mail to it bounced.
        BOUNCE = "bounce", _("bounce")
        #: Its owner reported a mail as spam.
        COMPLAINT = "complaint", _("complaint")
        #: Its owner unsubscribed.
        UNSUBSCRIBE = "unsubscribe", _("unsubscription")
        #: Added by hand.
        MANUAL = "manual", _("by hand")
        #: It was in a file that was imported.
        IMPORT = "import", _("import")
        #: SparkPost put it there, on its own list.
        SPARKPOST = "sparkpost", _("SparkPost's list")
        #: SparkPost put it there, on its own list, since its owner unsubscribed by SparkPost's link or header.
        SPARKPOST_UNSUBSCRIBE = "sparkpost_unsubscribe", _("unsubscription at SparkPost")
        #: SparkPost's compliance team put it there: only SparkPost can remove it.
        COMPLIANCE = "compliance", _("SparkPost's compliance team")

    id = models.UUIDField(_("id"), primary_key=True, default=new_id, editable=False)
    #: The address in the form of :func:`congressy_mailer.mime.addresses.comparable_address`.
    address = ByteOrderField(_("address"), max_length=320)
    #: Which mail is not to be sent to it.
    scope = models.CharField(_("scope"), max_length=20, choices=Scope.choices)
    #: Which list, where it is one.
    list_id = models.CharField(_("list"), max_length=255, blank=True, default="")
    #: What has put it there.
    source = models.CharField(_("source"), max_length=30, choices=Source.choices)
    #: Why, for people.
    reason = models.TextField(_("reason"), blank=True, default="")
    #: Since when.
    created_at = models.DateTimeField(_("created at"))
    #: When SparkPost's list last had an entry for this mail; empty: SparkPost does not know yet.
    synced_at = models.DateTimeField(_("synchronised at"), null=True, blank=True)
    #: SparkPost's reason for refusing the entry; it is not sent again until something changes.
    refusal = models.TextField(_("refused by SparkPost"), blank=True, default="")

    class Meta:
        verbose_name = _("suppression")
        verbose_name_plural = _("suppressions")
        constraints = [
            models.UniqueConstraint(fields=["address", "scope", "list_id", "source"], name="mailer_suppression_unique"),
            models.CheckConstraint(condition=Q(scope="list") ^ Q(list_id=""), name="mailer_suppression_list_named"),
        ]
        indexes = [
            models.Index(fields=["synced_at"], name="mailer_suppression_synced"),
            # What people look through, newest first.
            models.Index(fields=["source", "id"], name="mailer_suppression_source"),
            models.Index(fields=["scope", "id"], name="mailer_suppression_scope"),
        ]

    def __str__(self) -> str:
        return f"{self.scope} {self.list_id}".strip()


class SuppressionRemoval(models.Model):
    """That reasons were taken off the suppression list: what happened until then does not come back, however late it is
    heard of. Kept by :mod:`congressy_mailer.suppressions`, until SparkPost's list knows of it and for a day at least.

    It is there also where nothing was on the list: what happened may not have been heard of yet.
    """

    id = models.UUIDField(_("id"), primary_key=True, default=new_id, editable=False)
    #: The address in the form of :func:`congressy_mailer.mime.addresses.comparable_address`.
    address = ByteOrderField(_("address"), max_length=320)
    #: For which mail; empty: for all, that of lists as well.
    scope = models.CharField(_("scope"), max_length=20, choices=Suppression.Scope.choices, blank=True, default="")
    #: For which list, where it is one.
    list_id = models.CharField(_("list"), max_length=255, blank=True, default="")
    #: Reasons of which source; empty: of every one but SparkPost's compliance team.
    source = models.CharField(_("source"), max_length=30, choices=Suppression.Source.choices, blank=True, default="")
    #: Only reasons that came up since; empty: all until then.
    since = models.DateTimeField(_("since"), null=True, blank=True)
    #: Until when.
    removed_at = models.DateTimeField(_("removed at"))
    #: When SparkPost's list had no such entry any more; empty: SparkPost does not know yet.
    synced_at = models.DateTimeField(_("synchronised at"), null=True, blank=True)
    #: SparkPost's reason for not deleting the entry; it is not asked again until something changes.
    refusal = models.TextField(_("refused by SparkPost"), blank=True, default="")

    class Meta:
        verbose_name = _("removal of suppressions")
        verbose_name_plural = _("removals of suppressions")
        constraints = [
            models.UniqueConstraint(fields=["address", "scope", "list_id", "source"], name="mailer_removal_unique")
        ]
        indexes = [
            models.Index(fields=["synced_at"], name="mailer_removal_synced"),
            models.Index(fields=["removed_at"], name="mailer_removal_removed"),
        ]

    def __str__(self) -> str:
        return f"{self.scope} {self.list_id} {self.source}".strip()


class SyncCursor(models.Model):
    """Where an unfinished listing of SparkPost's suppression list goes on.

    Kept by :mod:`congressy_mailer.suppressions.sync`; there is no row while no listing is open.
    """

    #: Only ``suppressions``: there is one at a time.
    name = models.CharField(_("name"), max_length=100, primary_key=True)
    #: What it began with: only what has changed since then; empty: everything.
    since = models.DateTimeField(_("since"), null=True, blank=True)
    #: When its first page was asked for.
    started_at = models.DateTimeField(_("started at"))
    #: SparkPost's cursor of the next page; empty: the first has not been fetched.
    cursor = models.TextField(_("cursor"), blank=True, default="")

    class Meta:
        verbose_name = _("sync cursor")
        verbose_name_plural = _("sync cursors")

    def __str__(self) -> str:
        return self.name
