"""Putting what goes with a mail into its storage, where it waits for the worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from celery.exceptions import SoftTimeLimitExceeded
from django.core.files.base import ContentFile
from django.core.files.storage import Storage

from .. import outbox
from ..conf import mailer_settings
from ..exceptions import AttachmentNotStored
from ..mime.attachments import LoadedAttachment
from ..models import Attachment, Batch, Message, StoredFile, attachment_storage
from ..replies import error_text


def store_attachment(
    source: LoadedAttachment,
    *,
    message: Message | None = None,
    batch: Batch | None = None,
    shared_by: Batch | None = None,
    known: Attachment | None = None,
) -> Attachment:
    """Store an attachment's content; its row is still to be stored, by :func:`congressy_mailer.outbox.add` and others.

    Args:
        source: what it is.
        message: that it goes with; or
        batch: all of whose messages it goes with.
        shared_by: a batch whose messages share the file of the same content.
        known: another one with the same file.

    Raises:
        AttachmentNotStored: the storage did not take it.
    """
    attachment = Attachment(
        message=message,
        batch=batch,
        filename=source.filename,
        mimetype=source.mimetype,
        content_id=source.content_id,
        inline=source.inline,
        description=source.description,
        size=len(source.content),
        sha256=source.sha256,
    )
    if known is not None:
        attachment.stored, attachment.file.name = known.stored, known.file.name
    elif shared_by is not None and (shared := outbox.find_shared_file(shared_by, source.sha256)) is not None:
        attachment.stored, attachment.file.name = shared
    else:
        attachment.stored, attachment.file.name = _upload(attachment_storage(), source.content)
        if shared_by is not None:
            outbox.share_file(attachment.stored, shared_by, source.sha256)
    return attachment


def _upload(storage: Storage, content: bytes) -> tuple[StoredFile, str]:
    def is_taken(path: str) -> bool:
        with _storage_errors(content):
            return storage.exists(path)

    stored, path = outbox.reserve_file(is_taken)
    with _storage_errors(content):
        name = storage.save(path, ContentFile(content))
    if name != path:
        outbox.rename_file(stored, name)
    return stored, name


@contextmanager
def _storage_errors(content: bytes) -> Iterator[None]:
    """Have every error of a storage be one of ours."""
    try:
        yield
    except (MemoryError, SoftTimeLimitExceeded):
        raise
    except Exception as error:
        # Each storage has errors of its own: botocore's, for one, are no OSError.
        raise AttachmentNotStored(
            f"An attachment of {len(content):,} bytes could not be put into the storage "
            f"{mailer_settings().ATTACHMENT_STORAGE!r} (CONGRESSY_MAILER['ATTACHMENT_STORAGE']): {error_text(error)}"
        ) from error
