"""Claimed messages → mails ready to be handed over; what they have in common is fetched once for all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from celery.exceptions import SoftTimeLimitExceeded
from django.views.decorators.debug import sensitive_variables

from ..content.context import decode_many
from ..content.templates import Rendered, ready_content, render
from ..exceptions import ContentError, ContentNotReady
from ..mime.attachments import ReadAttachment
from ..mime.outgoing import OutgoingMail, compose
from ..models import Attachment, Batch, Message
from ..sparkpost.headers import told
from ..unsubscribe.links import headers_to_leave, unsubscribe_url


class Composer:
    """Composes messages of one task."""

    def __init__(self) -> None:
        #: What templates see, by message; kept here because a local variable is shown in reports of errors.
        self._contexts: dict[UUID, Mapping[str, object] | Exception] = {}
        #: Attachments that messages of a batch share, once read.
        self._shared: dict[UUID, list[ReadAttachment]] = {}

    # Django finds the mark of whoever calls this from no frame below a generator.
    @sensitive_variables()
    def prepare(self, messages: Sequence[Message]) -> None:
        """Fetch what the contexts of these messages refer to, with one query for each model.

        Raises:
            django.db.OperationalError: the database cannot be asked.
        """
        decoded = decode_many([_context(message) for message in messages])
        self._contexts = {message.id: context for message, context in zip(messages, decoded, strict=True)}

    @sensitive_variables()
    def compose(self, message: Message) -> OutgoingMail:
        """The mail of a message that has been prepared.

        Raises:
            ContentError: it can never be composed.
            ContentNotReady: this worker lacks something that it needs.
        """
        context = self._contexts.pop(message.id)
        mail = compose(
            message,
            _render(message, context),
            [*self._of_batch(message), *_read_all(message)],
            headers_to_leave(message),
        )
        mail.sparkpost = told(message)
        mail.batch = message.batch_id if message.waits_with_batch else None
        return mail

    def _of_batch(self, message: Message) -> list[ReadAttachment]:
        """The same objects for each message, which are written out once."""
        if message.batch is None:
            return []
        if message.batch.id not in self._shared:
            self._shared[message.batch.id] = _read_all(message.batch)
        return self._shared[message.batch.id]


def _context(message: Message) -> Any:
    """Encoded: what the batch says to all, and what is said to this one."""
    if message.batch is None:
        return message.context
    return {**(message.batch.context or {}), **(message.context or {})}


def _render(message: Message, context: Mapping[str, object] | Exception) -> Rendered:
    if isinstance(context, Exception):
        raise context
    content = message.content
    if not content.template:
        return ready_content(content.subject, content.text, content.html)
    return render(
        content.template,
        context,
        subject=content.subject,
        language=message.language,
        timezone=message.timezone,
        unsubscribe_url=partial(unsubscribe_url, message),
    )


def _read_all(mail: Message | Batch) -> list[ReadAttachment]:
    return [_read(attachment) for attachment in mail.attachments.all()]


def _read(attachment: Attachment) -> ReadAttachment:
    try:
        with attachment.file.open("rb") as file:
            # One byte more than it should have tells that it is another file, without reading all of that.
            content = file.read(attachment.size + 1)
    except (MemoryError, SoftTimeLimitExceeded):
        raise
    except Exception as error:
        # The storage may be away, or another host's that is not mounted yet.
        raise ContentNotReady(
            f"The attachment {attachment.filename!r} cannot be read from the storage: {type(error).__name__}: {error}"
        ) from error
    if hashlib.sha256(content).hexdigest() != attachment.sha256:
        raise ContentError(f"The attachment {attachment.filename!r} is not what was stored: its SHA-256 differs.")
    return ReadAttachment(attachment.filename, content, attachment.mimetype, attachment.content_id)
