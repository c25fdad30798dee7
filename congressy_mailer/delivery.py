"""One slice of delivery: claim, compose, hand over, record, for at most one time slice."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from . import outbox
from .conf import mailer_settings
from .content.attachments import ReadAttachment
from .content.context import decode_many
from .content.mime import OutgoingMail, compose
from .content.templates import Rendered, ready_content, render
from .exceptions import ContentError, ContentNotReady
from .models import Attachment, Message
from .transports.base import Composed, Transport
from .transports.django import DjangoTransport, open_backend

logger = logging.getLogger("congressy_mailer.delivery")


@dataclass
class Slice:
    """What is left to do after a slice."""

    #: Put back because the time was over.
    left: list[UUID] = field(default_factory=list)
    #: To be tried again after so many seconds.
    waiting: dict[int, list[UUID]] = field(default_factory=dict)


class Delivery:
    """Delivers the messages of one task."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._until = time.monotonic() + mailer_settings().TIME_SLICE.total_seconds()
        self._open: dict[UUID, Message] = {}
        self._slice = Slice()

    def run(self, ids: Sequence[UUID], *, redelivered: bool) -> Slice:
        """Deliver what can be claimed of these messages.

        Raises:
            TransportUnavailable: the mail server cannot be used. Everything that was not sent is queued again.
        """
        messages = outbox.claim(ids, self._token, redelivered=redelivered)
        self._open = {message.id: message for message in messages}
        try:
            for using in dict.fromkeys(message.using for message in messages):
                self._deliver(using, [message for message in messages if message.using == using])
        finally:
            # Also on the way out of an error: nothing has to wait for the lease to run out.
            if self._open:
                outbox.release(self._token, self._open)
        self._slice.left = list(self._open)
        return self._slice

    def _deliver(self, using: str, messages: Sequence[Message]) -> None:
        transport: Transport = DjangoTransport(open_backend(using))
        try:
            for outcome in transport.deliver(self._compose_all(messages)):
                # No longer ours to release: were the record to fail, the mail must stay under its lease, since the
                # server may have it.
                message = self._open.pop(outcome.key)
                self._wait(message, outbox.record(self._token, message, outcome))
        finally:
            transport.close()

    def _compose_all(self, messages: Sequence[Message]) -> Iterator[Composed]:
        contexts = decode_many([message.context for message in messages])
        for begun, (message, context) in enumerate(zip(messages, contexts, strict=True)):
            if begun and time.monotonic() > self._until:
                return
            try:
                yield Composed(message.id, _compose(message, context))
            except ContentNotReady as error:
                logger.warning("Message %s waits: %s", message.id, error)
                self._wait(message, outbox.postpone(self._token, message.id, str(error)))
                del self._open[message.id]
            except ContentError as error:
                logger.error("Message %s failed: %s", message.id, error)
                outbox.fail(self._token, message.id, str(error))
                del self._open[message.id]

    def _wait(self, message: Message, wait: timedelta | None) -> None:
        if wait is not None:
            # A second more: the message must be due when its id comes.
            seconds = round(wait.total_seconds()) + 1
            self._slice.waiting.setdefault(seconds, []).append(message.id)


def _compose(message: Message, context: Mapping[str, object] | ContentError | ContentNotReady) -> OutgoingMail:
    return compose(message, _render(message, context), [_read(one) for one in message.attachments.all()])


def _render(message: Message, context: Mapping[str, object] | ContentError | ContentNotReady) -> Rendered:
    if isinstance(context, Exception):
        raise context
    if not message.template:
        return ready_content(message.subject, message.text, message.html)
    return render(
        message.template, context, subject=message.subject, language=message.language, timezone=message.timezone
    )


def _read(attachment: Attachment) -> ReadAttachment:
    try:
        with attachment.file.open("rb") as file:
            content = file.read()
    except Exception as error:
        # The storage may be away, or another host's that is not mounted yet.
        raise ContentNotReady(
            f"The attachment {attachment.filename!r} cannot be read from the storage: {type(error).__name__}: {error}"
        ) from error
    if hashlib.sha256(content).hexdigest() != attachment.sha256:
        raise ContentError(f"The attachment {attachment.filename!r} is not what was stored: its SHA-256 differs.")
    return ReadAttachment(attachment.filename, content, attachment.mimetype, attachment.content_id)
