"""Putting what goes with a mail into its storage, where it waits for the worker."""

from __future__ import annotations

from collections.abc import Iterable

from django.core.files.base import ContentFile

from ..mime.attachments import LoadedAttachment
from ..models import Attachment, Batch, Message


def store_attachment(
    source: LoadedAttachment,
    *,
    message: Message | None = None,
    batch: Batch | None = None,
    path: str = "",
    known: bool = False,
) -> Attachment:
    """Store an attachment's content; its row is still to be stored.

    Args:
        source: what it is.
        message: that it goes with; or
        batch: all of whose messages it goes with.
        path: where to; what is there already is the same content. Empty: somewhere of its own.
        known: it is there.
    """
    attachment = Attachment(
        message=message,
        batch=batch,
        filename=source.filename,
        mimetype=source.mimetype,
        content_id=source.content_id,
        size=len(source.content),
        sha256=source.sha256,
    )
    file = attachment.file
    if not path:
        file.save(source.filename, ContentFile(source.content), save=False)
    else:
        exists = known or file.storage.exists(path)
        # Another name than was asked for, where somebody else has stored it at the same moment.
        file.name = path if exists else file.storage.save(path, ContentFile(source.content))
    return attachment


def delete_files(attachments: Iterable[Attachment]) -> None:
    """Delete the files of attachments whose rows are not stored."""
    for attachment in attachments:
        attachment.file.storage.delete(str(attachment.file.name))
