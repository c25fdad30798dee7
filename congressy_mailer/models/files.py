"""The files of attachments in their storage, and the installation whose files they are."""

from __future__ import annotations

import hmac
import secrets
import uuid

from django.core.files.storage import Storage, storages
from django.db import models
from django.utils.translation import gettext_lazy as _

from ..conf import mailer_settings
from .indexes import IndexOfKnown

#: Where attachments lie in their storage, each installation's in a folder of its own.
ATTACHMENT_FOLDER = "congressy_mailer"

# File systems become slow with folders of many more.
_FILES_IN_A_FOLDER = 1000


def attachment_storage() -> Storage:
    """The storage named by ``ATTACHMENT_STORAGE``, where attachments wait for the worker."""
    return storages[mailer_settings().ATTACHMENT_STORAGE]


def new_secret() -> str:
    """An unguessable value of 256 random bits."""
    return secrets.token_hex(32)


class Installation(models.Model):
    """The installation that this database belongs to; one row, kept by :mod:`congressy_mailer.outbox.installation`.

    Several installations may share a storage, such as production and staging, or tenants in schemas. Each deletes only
    files in the folder of its own ``key``. A copied database has the same key until a person marks it as a copy; the
    ``token`` reveals that two databases use one folder.
    """

    #: Always ``mailer``, since there is one row.
    name = models.CharField(_("name"), max_length=100, primary_key=True, default="mailer")
    #: Id of the installation, the first part of its files' paths.
    key = models.UUIDField(_("key"), default=uuid.uuid4)
    #: Secret that file names are derived from.
    secret = models.CharField(_("secret"), max_length=64, default=new_secret)
    #: Token that its workers last wrote into the file ``owner`` of its folder; empty: none.
    token = models.CharField(_("token"), max_length=64, blank=True, default="")
    #: Token that is being written there at this moment.
    next_token = models.CharField(_("next token"), max_length=64, blank=True, default="")
    #: When the token was written.
    token_at = models.DateTimeField(_("token written at"), null=True, blank=True)
    #: When a foreign token was first found there; no file is deleted until a person has decided; empty: none was found.
    contested_at = models.DateTimeField(_("contested at"), null=True, blank=True)
    #: Up to this number, each file has a row or was deleted.
    checked_number = models.BigIntegerField(_("checked up to number"), default=0)
    #: The highest number in use at :attr:`marked_at`.
    marked_number = models.BigIntegerField(_("marked number"), default=0)
    #: When :attr:`marked_number` was noted; numbers up to it are checked once no caller can still be storing a file
    #: with one of them.
    marked_at = models.DateTimeField(_("marked at"), null=True, blank=True)

    class Meta:
        verbose_name = _("installation")
        verbose_name_plural = _("installations")

    def __str__(self) -> str:
        return str(self.key)

    @property
    def folder(self) -> str:
        """The folder of its files in the storage."""
        return f"{ATTACHMENT_FOLDER}/{self.key}"

    def path(self, number: int) -> str:
        """The path of the file with this number, unguessable without the secret."""
        digest = hmac.digest(self.secret.encode(), str(number).encode(), "sha256")
        return f"{self.folder}/{number // _FILES_IN_A_FOLDER}/{uuid.UUID(bytes=digest[:16], version=4)}"


class StoredFile(models.Model):
    """A file in the storage, from before it is uploaded until after it is deleted. Kept by
    :mod:`congressy_mailer.outbox.files`.

    Its number is taken before the upload. If the caller's transaction is rolled back, the row is lost; the file is
    found by the gap in the numbers, since its path is derived from its number.
    """

    #: Its number.
    id = models.BigAutoField(_("number"), primary_key=True)
    #: Key of the installation that stored it.
    installation = models.UUIDField(_("installation"))
    #: Its path, if that is not derived from its number.
    name = models.CharField(_("name"), max_length=255, blank=True, default="")
    #: The batch whose messages may share it; empty: it is not shared.
    shared_by = models.UUIDField(_("shared by"), null=True, blank=True)
    #: SHA-256 of the content, if it may be shared.
    sha256 = models.CharField(_("SHA-256"), max_length=64, blank=True, default="")
    #: Number of attachments that use it.
    uses = models.PositiveIntegerField(_("uses"), default=0)
    #: When it is to be deleted, or the deletion is tried again; empty: it is in use.
    delete_at = models.DateTimeField(_("delete at"), null=True, blank=True)
    #: Number of failed deletions.
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    #: When the storage first failed to delete it.
    failed_since = models.DateTimeField(_("failed since"), null=True, blank=True)
    #: Error of the last failed deletion.
    error = models.TextField(_("error"), blank=True, default="")

    class Meta:
        verbose_name = _("stored file")
        verbose_name_plural = _("stored files")
        indexes = [
            IndexOfKnown(fields=["delete_at"], known="delete_at", name="mailer_file_delete"),
            IndexOfKnown(fields=["failed_since"], known="failed_since", name="mailer_file_failed"),
            IndexOfKnown(fields=["shared_by", "sha256"], known="shared_by", name="mailer_file_shared"),
        ]

    def __str__(self) -> str:
        return str(self.id)
