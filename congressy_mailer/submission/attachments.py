"""Putting what goes with a mail into its storage, where it waits for the worker."""

from __future__ import annotations

from collections.abc import Iterable

from django.core.files.base import ContentFile

from ..mime.attachments import ReadAttachment
from ..models import Attachment, Batch, Message


def file_attachment(
    read: ReadAttachment,
    *,
    message: Message | None = None,
    batch: Batch | None = None,
    path: str = "",
    known: bool = False,
) -> Attachment:
    """Store an attachment's content; its row is still to be stored.

    Args:
        read: what it is.
        message: that it goes with; or
        batch: all of whose messages it goes with.
        path: where to; what is there already is the same content. Empty: somewhere of its own.
        known: it is there.
    """
    attachment = Attachment(
        message=message,
        batch=batch,
        filename=read.filename,
        mimetype=read.mimetype,
        content_id=read.content_id,
        size=len(read.content),
        sha256=read.sha256,
    )
    file = attachment.file
    if not path:
        file.save(read.filename, ContentFile(read.content), save=False)
    else:
        there = known or file.storage.exists(path)
        # Another name than was asked for, where somebody else has stored it at the same moment.
        file.name = path if there else file.storage.save(path, ContentFile(read.content))
    return attachment


def forget_files(attachments: Iterable[Attachment]) -> None:
    """Delete the files of attachments whose rows are not stored."""
    for attachment in attachments:
        attachment.file.storage.delete(str(attachment.file.name))
