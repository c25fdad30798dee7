"""Claimed messages → mails ready to be handed over; what they have in common is fetched once for all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from email.utils import format_datetime
from functools import partial
from types import MappingProxyType
from typing import Any
from uuid import UUID

from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.utils.timezone import get_default_timezone, localtime
from django.views.decorators.debug import sensitive_variables

from ..content.context import decode_many
from ..content.templates import FoundParts, build_content, render, render_subject
from ..exceptions import ContentError, ContentNotReady
from ..mime.attachments import LoadedAttachment
from ..mime.outgoing import OutgoingMail
from ..mime.stored import StoredMail
from ..mime.writer import Alternative, MailContent
from ..models import Attachment, Batch, Message
from ..replies import error_text
from ..sparkpost.headers import sparkpost_keys
from ..transports.stored_mail import stored_mail
from ..unsubscribe.links import UNSUBSCRIBE, unsubscribe_headers, unsubscribe_url


class StorageHangs(ContentNotReady):
    """A storage used up the time of the task. The message is not the cause, and is not set aside for it."""


class Composer:
    """Composes messages of one task."""

    def __init__(self) -> None:
        #: What templates see, by message; kept here because a local variable is shown in reports of errors.
        self._contexts: dict[UUID, Mapping[str, object] | Exception] = {}
        #: Attachments that messages of a batch share, once read.
        self._attachments_of_batches: dict[UUID, list[LoadedAttachment]] = {}
        #: Templates, looked for once: Django raises and catches an error for each language that has no file.
        self._found: FoundParts = {}

    # Django finds the mark of whoever calls this from no frame below a generator.
    @sensitive_variables()
    def prepare(self, messages: Sequence[Message]) -> None:
        """Fetch what the contexts of these messages refer to, with one query for each model.

        A context that cannot be read is an error of :meth:`compose`, for its message alone.
        """
        decoded = decode_many([_encoded_context(message) for message in messages])
        self._contexts = {message.id: context for message, context in zip(messages, decoded, strict=True)}

    @sensitive_variables()
    def compose(self, message: Message) -> OutgoingMail:
        """The mail of a message that has been prepared.

        Raises:
            ContentError: it can never be composed.
            ContentNotReady: this worker lacks something that it needs.
        """
        context = self._contexts.pop(message.id)
        if message.mime is not None:
            return _stored_mail(message, context)
        mail = compose(
            message,
            replace(_render(message, context, self._found), alternatives=_alternatives(message)),
            [*self._batch_attachments(message), *_read_attachments(message)],
            unsubscribe_headers(message),
        )
        has_header = any(name.lower() == UNSUBSCRIBE.lower() for name in mail.extra_headers)
        mail.sparkpost = sparkpost_keys(message, has_unsubscribe_header=has_header)
        mail.batch = message.batch_id if message.waits_with_batch else None
        return mail

    @sensitive_variables()
    def subject(self, message: Message) -> str:
        """The subject alone of a message that has been prepared, whose template has it.

        Raises:
            ContentError: it can never be composed.
            ContentNotReady: this process lacks something that it needs.
        """
        context = self._contexts.pop(message.id)
        if isinstance(context, Exception):
            raise context
        return render_subject(
            message.content.template,
            context,
            language=message.language,
            timezone=message.timezone,
            found=self._found,
        )

    def _batch_attachments(self, message: Message) -> list[LoadedAttachment]:
        """The same objects for each message, which are written out once."""
        if message.batch is None:
            return []
        if message.batch.id not in self._attachments_of_batches:
            self._attachments_of_batches[message.batch.id] = _read_attachments(message.batch)
        return self._attachments_of_batches[message.batch.id]


def _stored_mail(message: Message, attributes: Mapping[str, object] | Exception) -> StoredMail:
    """A mail that was complete when it was stored."""
    if isinstance(attributes, Exception):
        raise attributes
    assert message.mime is not None
    # PostgreSQL's drivers have views of memory.
    wire = bytes(message.mime)
    if not wire:
        contents = _read_attachments(message)
        if len(contents) != 1:
            raise ContentError("Its content is not in the storage any more.")
        wire = contents[0].content
    return stored_mail(message, wire, attributes)


def _encoded_context(message: Message) -> Any:
    """Encoded: what the batch says to all, and what is said to this one; of a stored mail, its attributes."""
    if message.mime is not None:
        return message.attributes.get("values")
    if message.batch is None:
        return message.context
    return {**(message.batch.context or {}), **(message.context or {})}


def _render(message: Message, context: Mapping[str, object] | Exception, found: FoundParts) -> MailContent:
    if isinstance(context, Exception):
        raise context
    content = message.content
    if not content.template:
        return build_content(content.subject, content.text, content.html)
    return render(
        content.template,
        context,
        subject=content.subject,
        language=message.language,
        timezone=message.timezone,
        unsubscribe_url=partial(unsubscribe_url, message),
        found=found,
    )


def _alternatives(message: Message) -> tuple[Alternative, ...]:
    """What the batch says to all, and what is said to this one."""
    shared = [] if message.batch is None else message.batch.alternatives
    return tuple(Alternative(*one) for one in (*shared, *message.alternatives))


def _read_attachments(mail: Message | Batch) -> list[LoadedAttachment]:
    return [_read(attachment) for attachment in mail.attachments.all()]


def _read(attachment: Attachment) -> LoadedAttachment:
    try:
        with attachment.file.open("rb") as file:
            # One byte more than it should have tells that it is another file, without reading all of that.
            content = file.read(attachment.size + 1)
    except MemoryError:
        raise
    except SoftTimeLimitExceeded as error:
        raise StorageHangs(
            f"The attachment {attachment.filename!r} cannot be read from the storage within TIME_LIMIT."
        ) from error
    except Exception as error:
        # The storage may be away, or another host's that is not mounted yet.
        raise ContentNotReady(
            f"The attachment {attachment.filename!r} cannot be read from the storage: {error_text(error)}"
        ) from error
    if hashlib.sha256(content).hexdigest() != attachment.sha256:
        raise ContentError(f"The attachment {attachment.filename!r} is not what was stored: its SHA-256 differs.")
    return LoadedAttachment(
        attachment.filename,
        content,
        attachment.mimetype,
        attachment.content_id,
        attachment.inline,
        attachment.description,
        # With all mails of its batch.
        shared=attachment.batch_id is not None,
    )


def compose(
    message: Message,
    rendered: MailContent,
    attachments: Sequence[LoadedAttachment],
    further_headers: Mapping[str, str] = MappingProxyType({}),
) -> OutgoingMail:
    """Build the mail.

    Args:
        message: envelope and headers.
        rendered: subject, text and HTML; HTML may be empty.
        attachments: read and checked. Give the same object for the same file of several mails: it is encoded once.
        further_headers: beside those that the message has, ASCII.

    Raises:
        ContentError: no MIME message can be built of it.
    """
    try:
        return _compose(message, rendered, attachments, further_headers)
    except (MemoryError, SoftTimeLimitExceeded):
        raise
    except Exception as error:
        raise ContentError(f"The mail cannot be composed: {error_text(error)}") from error


def _compose(
    message: Message,
    rendered: MailContent,
    attachments: Sequence[LoadedAttachment],
    further_headers: Mapping[str, str],
) -> OutgoingMail:
    moment = message.queued_at or message.created_at
    if settings.EMAIL_USE_LOCALTIME:
        moment = localtime(moment, get_default_timezone())
    headers = {"Message-ID": message.message_id, "Date": format_datetime(moment)}
    if message.headers:
        own_names = {name.lower() for name in message.headers}
        # Names are the same in any case (RFC 5322 §1.2.2), and neither of the two may stand twice (§3.6).
        headers = {name: value for name, value in headers.items() if name.lower() not in own_names} | message.headers
    return OutgoingMail(
        rendered,
        envelope=message.envelope,
        from_email=message.from_email,
        to=message.to,
        cc=message.cc,
        reply_to=message.reply_to,
        headers={**headers, **further_headers},
        files=attachments,
    )
