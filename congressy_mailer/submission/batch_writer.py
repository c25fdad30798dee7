"""Storing a batch: opening it, then writing its recipients in chunks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from django.db import Error, IntegrityError, transaction
from django.utils import timezone as django_timezone

from .. import outbox
from ..conf import mailer_settings
from ..exceptions import AttachmentNotStored, IdempotencyConflict, MailerError
from ..mime.attachments import read_attachments
from ..models import Attachment, Batch, Message
from ..models.batches import CUT
from ..outbox import BatchMessage
from ..outbox.publishing import publish_batch_on_commit
from ..redaction import hiding_content
from .attachments import store_attachment
from .recipients import RecipientParser, at_index

# Recipients that are stored at once: many enough that their number makes no difference to what each costs.
_CHUNK = 1000

#: Recipients that were left out of which a batch keeps where they stood and what was wrong.
MAX_PROBLEMS = 100
# Characters of what is kept.
_MAX_RECIPIENT, _MAX_REASON = 200, 500

# Seconds between two rounds of tasks for a batch that is being stored: those before may have found nothing more.
_PUBLISH_INTERVAL = 1.0

# Another caller stores the same recipients at the same time.
_MAX_ATTEMPTS = 5


def open_batch(new_batch: Batch, attachments: Sequence[Attachment]) -> None:
    """Store a new batch without recipients, in a savepoint that its key may end.

    Raises:
        django.db.IntegrityError: its ``key`` exists already.
    """
    with transaction.atomic(using=outbox.database()):
        outbox.open_batch(new_batch, attachments)


class BatchWriter:
    """Stores the recipients of one batch, some at a time."""

    def __init__(self, batch: Batch, is_new: bool, skip: bool) -> None:
        self._batch = batch
        self._is_new = is_new
        self._skip = skip
        self._parser = RecipientParser(batch)
        self._max_attachment_bytes = mailer_settings().MAX_ATTACHMENT_BYTES
        self._attachments: list[Attachment] = []
        #: Files of this call that may be named again, a few of them: a storage may be far away.
        self._known_files: dict[str, Attachment] = {}
        self._published_at: float | None = None

    def store(self, recipients: Iterable[Any]) -> None:
        """Take all of them.

        Raises:
            IdempotencyConflict: another caller stores recipients of this batch, or its content has been dropped.
        """
        if not outbox.begin_storing(self._batch):
            raise IdempotencyConflict(
                f"Another caller is storing the recipients of the batch with key={self._batch.key!r}. Call again once "
                "it has ended: that goes on where it stopped."
            )
        if self._batch.content_dropped_at is not None:
            raise IdempotencyConflict(
                f"The batch with key={self._batch.key!r} cannot be continued: its content was dropped on "
                f"{self._batch.content_dropped_at:%Y-%m-%d}, as KEEP_CONTENT says. Send a new one, with another key, "
                "to the recipients that have no mail."
            )
        try:
            self._store(recipients)
        except BaseException:
            # The caller may go on at once, and so may another one.
            with suppress(Error):
                outbox.end_storing(self._batch)
            raise

    def _store(self, recipients: Iterable[Any]) -> None:
        if self._batch.stored_at is not None or self._batch.cancelled_at is not None:
            # Another caller has come to the end, or it was cancelled, since the batch was looked for.
            outbox.end_storing(self._batch)
            return
        numbered = enumerate(recipients)
        while chunk := list(islice(numbered, _CHUNK)):
            messages = self._parse(chunk)
            if messages and not self._store_chunk(messages):
                self._batch.refresh_from_db(using=outbox.database())
                if self._batch.cancelled_at is None:
                    raise IdempotencyConflict(
                        f"Another caller has gone on with the batch with key={self._batch.key!r}, since this one "
                        f"stored nothing for {outbox.STORING_LEASE.total_seconds():.0f} seconds."
                    )
                return
            if self._skip and (self._published_at is None or time.monotonic() - self._published_at > _PUBLISH_INTERVAL):
                self._publish()
        outbox.close_batch(self._batch)
        self._publish()

    def _publish(self) -> None:
        self._published_at = time.monotonic()
        if self._batch.send_at is None or self._batch.send_at <= django_timezone.now():
            self._batch.generation = outbox.start_generation(self._batch.pk)
            publish_batch_on_commit(self._batch.pk, self._batch.generation)

    # No generator: Django would find no mark above it, and show its variables in the report of an error.
    def _parse(self, chunk: Iterable[tuple[int, Any]]) -> list[BatchMessage]:
        parse = self._parser.parse
        messages = []
        for position, recipient in chunk:
            try:
                message, attachments = parse(recipient)
                if attachments:
                    self._prepare_attachments(message, attachments)
            except AttachmentNotStored:
                # The storage's fault, and no recipient's.
                raise
            except MailerError as error:
                if not self._skip:
                    raise at_index(error, position) from error
                self._skip_recipient(position, recipient, str(error))
            else:
                messages.append(message)
        return messages

    def _store_chunk(self, messages: Sequence[BatchMessage]) -> bool:
        for attempt in range(_MAX_ATTEMPTS):
            to_store = self._without_duplicates(messages) if self._batch.key else messages
            ids = {message.id for message in to_store}
            attachments = [one for one in self._attachments if one.message_id in ids]
            try:
                stored = outbox.add_to_batch(self._batch, to_store, attachments)
            except IntegrityError:
                # Another caller has stored one of them at this moment.
                if attempt == _MAX_ATTEMPTS - 1 or not self._batch.key:
                    raise
            else:
                self._attachments.clear()
                return stored
        raise AssertionError("unreachable")

    def _without_duplicates(self, messages: Sequence[BatchMessage]) -> list[BatchMessage]:
        stored = outbox.stored_keys([str(message.idempotency_key) for message in messages])
        unique: dict[str, BatchMessage] = {}
        for message in messages:
            key = str(message.idempotency_key)
            if key not in stored and key not in unique:
                unique[key] = message
            elif self._is_new:
                # Where it goes on with what was stored before, that is what it is for.
                self._skip_recipient(
                    None, ", ".join(message.to), "It is among the recipients twice, with nothing to tell the two apart."
                )
        return list(unique.values())

    def _skip_recipient(self, position: int | None, recipient: Any, reason: str) -> None:
        batch = self._batch
        batch.skipped += 1
        if len(batch.problems) < MAX_PROBLEMS:
            label = _shortened(_label(recipient), _MAX_RECIPIENT)
            reason = _shortened(reason, _MAX_REASON)
            batch.problems.append({"position": position, "recipient": label, "reason": reason})

    def _prepare_attachments(self, message: BatchMessage, attachments: Sequence[Any]) -> None:
        owner = Message(id=message.id)
        with hiding_content(self._batch.sensitive, "attachments: one cannot be read, or they are too large together."):
            files = read_attachments(attachments, self._max_attachment_bytes)
        # What is sensitive is dropped message by message, and its files with it.
        shared_by = None if self._batch.sensitive else self._batch
        for file in files:
            known = self._known_files.get(file.sha256) if shared_by is not None else None
            attachment = store_attachment(file, message=owner, shared_by=shared_by, known=known)
            self._attachments.append(attachment)
            if shared_by is not None:
                self._known_files[file.sha256] = attachment
                if len(self._known_files) > _CHUNK:
                    del self._known_files[next(iter(self._known_files))]


def _label(recipient: Any) -> str:
    to = getattr(recipient, "to", recipient[0] if isinstance(recipient, tuple) and recipient else recipient)
    return to.encode(errors="replace").decode().replace("\0", "") if isinstance(to, str) else ascii(to)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - len(CUT)]}{CUT}"
