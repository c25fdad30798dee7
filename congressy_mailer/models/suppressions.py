"""The suppression list: addresses that get no mail."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from .identity import ByteOrderField, new_id


class Suppression(models.Model):
    """An entry of the suppression list: one row for each address, scope and source. Kept by
    :mod:`congressy_mailer.suppressions`.

    Sources are independent: removing one leaves the others.
    """

    class Scope(models.TextChoices):
        """Mail that the entry stops."""

        #: Transactional mail.
        TRANSACTIONAL = "transactional", _("transactional mail")
        #: All mail that is not transactional.
        NON_TRANSACTIONAL = "non_transactional", _("mail that is not transactional")
        #: Mail of one list.
        LIST = "list", _("mail of one list")

    class Source(models.TextChoices):
        """Source of an entry."""

        #: Mail to it bounced.
        BOUNCE = "bounce", _("bounce")
        #: Its owner reported a mail as spam.
        COMPLAINT = "complaint", _("complaint")
        #: Its owner unsubscribed.
        UNSUBSCRIBE = "unsubscribe", _("unsubscription")
        #: Added by hand.
        MANUAL = "manual", _("by hand")
        #: Imported from a file.
        IMPORT = "import", _("import")
        #: Copied from SparkPost's list.
        SPARKPOST = "sparkpost", _("SparkPost's list")
        #: Copied from SparkPost's list, after an unsubscription by SparkPost's link or header.
        SPARKPOST_UNSUBSCRIBE = "sparkpost_unsubscribe", _("unsubscription at SparkPost")
        #: Made by SparkPost's compliance team; only SparkPost can remove it.
        COMPLIANCE = "compliance", _("SparkPost's compliance team")

    id = models.UUIDField(_("id"), primary_key=True, default=new_id, editable=False)
    #: The address in the form for comparison.
    address = ByteOrderField(_("address"), max_length=320)
    #: Mail that is not sent to it.
    scope = models.CharField(_("scope"), max_length=20, choices=Scope.choices)
    #: The list, if the scope is one list.
    list_id = models.CharField(_("list"), max_length=255, blank=True, default="")
    #: Source of the entry.
    source = models.CharField(_("source"), max_length=30, choices=Source.choices)
    #: Reason, as text for people.
    reason = models.TextField(_("reason"), blank=True, default="")
    #: When the reason arose.
    created_at = models.DateTimeField(_("created at"))
    #: When SparkPost's list last had this entry; empty: it has not been sent to SparkPost yet.
    synced_at = models.DateTimeField(_("synchronised at"), null=True, blank=True)
    #: SparkPost's reason for refusing the entry, which is not sent again until it changes.
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
        return f"{self.get_scope_display()} {self.list_id}".strip()


class SuppressionRemoval(models.Model):
    """A removal from the suppression list: events from before it do not add the address again, however late they are
    reported. Kept by :mod:`congressy_mailer.suppressions` until SparkPost's list is updated, and for at least a day.

    It is stored even if the list had no entry, because an event may be reported later.
    """

    id = models.UUIDField(_("id"), primary_key=True, default=new_id, editable=False)
    #: The address in the form for comparison.
    address = ByteOrderField(_("address"), max_length=320)
    #: Mail concerned; empty: all mail, that of lists as well.
    scope = models.CharField(_("scope"), max_length=20, choices=Suppression.Scope.choices, blank=True, default="")
    #: The list, if the scope is one list.
    list_id = models.CharField(_("list"), max_length=255, blank=True, default="")
    #: Source of the removed entries; empty: all sources except SparkPost's compliance team.
    source = models.CharField(_("source"), max_length=30, choices=Suppression.Source.choices, blank=True, default="")
    #: Only reasons that arose since this time were removed; empty: all of them.
    since = models.DateTimeField(_("since"), null=True, blank=True)
    #: When they were removed.
    removed_at = models.DateTimeField(_("removed at"))
    #: When SparkPost's list no longer had such an entry; empty: it has not been deleted there yet.
    synced_at = models.DateTimeField(_("synchronised at"), null=True, blank=True)
    #: SparkPost's reason for not deleting the entry, which is not requested again until something changes.
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
    """Position at which an unfinished listing of SparkPost's suppression list continues.

    Kept by :mod:`congressy_mailer.suppressions.sync`; there is no row while no listing is open.
    """

    #: Always ``suppressions``, since there is one listing at a time.
    name = models.CharField(_("name"), max_length=100, primary_key=True)
    #: The listing has only changes since this time; empty: everything.
    since = models.DateTimeField(_("since"), null=True, blank=True)
    #: When its first page was requested.
    started_at = models.DateTimeField(_("started at"))
    #: SparkPost's cursor of the next page; empty: the first has not been fetched.
    cursor = models.TextField(_("cursor"), blank=True, default="")

    class Meta:
        verbose_name = _("sync cursor")
        verbose_name_plural = _("sync cursors")

    def __str__(self) -> str:
        return self.name
