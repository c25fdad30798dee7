"""What a message says, once more for another address."""

from __future__ import annotations

from typing import Any

from ..exceptions import AttachmentUnreadable, InvalidTransition
from ..mime.attachments import LoadedAttachment
from ..models import Attachment, Mail, Message
from ..replies import error_text

# Given to each message anew.
_NOT_COPIED = {"created_at", "send_at", "expires_at", "content_dropped_at", "traceparent"}


def copy_for(message: Message, to: list[str]) -> tuple[Message, list[LoadedAttachment]]:
    """A new message with the same content to another recipient, outside the batch of the first.

    Raises:
        InvalidTransition: its content has been dropped.
        AttachmentUnreadable: an attachment is not in the storage any more.
    """
    content = message.content
    if message.content_dropped_at is not None or content.content_dropped_at is not None:
        raise InvalidTransition(f"Message {message.pk} has nothing left to say: its content has been dropped.")
    fields: dict[str, Any] = {
        field.name: getattr(message, field.name) for field in Mail._meta.get_fields() if field.name not in _NOT_COPIED
    }
    if message.batch is not None:
        for name in ("template", "subject", "text", "html"):
            fields[name] = getattr(message.batch, name)
        fields["context"] = {**(message.batch.context or {}), **(message.context or {})} if fields["template"] else None
        fields["alternatives"] = [*message.batch.alternatives, *message.alternatives]
    # Each message has a Message-ID of its own.
    fields["headers"] = {name: value for name, value in message.headers.items() if name.lower() != "message-id"}
    copy = Message(**fields, to=to, mime=message.mime, attributes=message.attributes)
    attachments = [*(message.batch.attachments.all() if message.batch else ()), *message.attachments.all()]
    return copy, [_read(attachment) for attachment in attachments]


def _read(attachment: Attachment) -> LoadedAttachment:
    try:
        with attachment.file.open("rb") as file:
            content = file.read()
    except Exception as error:
        raise AttachmentUnreadable(f"An attachment cannot be read from the storage: {error_text(error)}") from error
    return LoadedAttachment(
        attachment.filename, content, attachment.mimetype, attachment.content_id, attachment.inline,
        attachment.description,
    )  # fmt: skip
