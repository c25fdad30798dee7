"""Storing a batch: opening it, then writing its recipients in chunks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone as django_timezone

from .. import outbox
from ..conf import mailer_settings
from ..exceptions import IdempotencyConflict, InvalidOption, MailerError
from ..mime.attachments import ReadAttachment, read_attachments
from ..models import Attachment, Batch, Message, shared_attachment_path
from ..outbox import Line
from ..outbox.publishing import publish_batch_on_commit
from ..redaction import without_repeating
from .attachments import file_attachment, forget_files
from .recipients import Reader, in_position

# Recipients that are stored at once: many enough that their number makes no difference to what each costs.
_CHUNK = 1000

#: Recipients that were left out of which a batch keeps where they stood and what was wrong.
PROBLEMS_KEPT = 100

# Seconds between two rounds of tasks for a batch that is being stored: those before may have found nothing more.
_PUBLISH_AGAIN = 1.0

# Somebody else stores the same recipients at the same time.
_TRIES = 5


def _opened(wanted: Batch, read: Sequence[ReadAttachment]) -> tuple[Batch, bool]:
    """The batch, and whether it is new."""
    if wanted.key and (first := _find(wanted.key)):
        return first, False
    attachments = [file_attachment(one, batch=wanted) for one in read]
    try:
        with transaction.atomic(using=outbox.database()):
            outbox.open_batch(wanted, attachments)
    except IntegrityError as error:
        # Another caller with the same key came first. Its files are stored already; ours are not needed.
        forget_files(attachments)
        if not wanted.key:
            raise
        if first := _find(wanted.key):
            return first, False
        raise IdempotencyConflict(
            f"Another transaction has just used key={wanted.key!r}, and its batch cannot be seen in this one. Try "
            "again in a new transaction: that goes on with it."
        ) from error
    return wanted, True


def _find(key: str) -> Batch | None:
    first = Batch.objects.using(outbox.database()).filter(key=key).first()
    if first is not None and first.key != key:
        # MariaDB and MySQL compare without case by default.
        raise InvalidOption(f"key={key!r} differs only in case from one that exists.")
    return first


class _Storing:
    """Stores the recipients of one batch, some at a time."""

    def __init__(self, batch: Batch, is_new: bool, skip: bool) -> None:
        self._batch = batch
        self._is_new = is_new
        self._skip = skip
        self._reader = Reader(batch)
        self._limit = mailer_settings().MAX_ATTACHMENT_BYTES
        self._attachments: list[Attachment] = []
        #: Files of this call that may be named again, a few of them: a storage may be far away.
        self._files: dict[str, None] = {}
        self._published_at: float | None = None

    def store(self, recipients: Iterable[Any]) -> None:
        """Take all of them."""
        given = enumerate(recipients)
        while some := list(islice(given, _CHUNK)):
            lines = self._read(some)
            if lines and not self._store_some(lines):
                # Cancelled meanwhile.
                self._batch.refresh_from_db(using=outbox.database())
                return
            if self._skip and (self._published_at is None or time.monotonic() - self._published_at > _PUBLISH_AGAIN):
                self._publish()
        outbox.close_batch(self._batch)
        self._publish()

    def _publish(self) -> None:
        self._published_at = time.monotonic()
        if self._batch.send_at is None or self._batch.send_at <= django_timezone.now():
            self._batch.round = outbox.begin_round(self._batch.pk)
            publish_batch_on_commit(self._batch.pk, self._batch.round)

    # No generator: Django would find no mark above it, and show its variables in the report of an error.
    def _read(self, some: Iterable[tuple[int, Any]]) -> list[Line]:
        read = self._reader.read
        lines = []
        for position, given in some:
            try:
                line, attachments = read(given)
                if attachments:
                    self._attach(line, attachments)
            except MailerError as error:
                if not self._skip:
                    raise in_position(error, position) from error
                self._leave_out(position, given, str(error))
            else:
                lines.append(line)
        return lines

    def _store_some(self, lines: Sequence[Line]) -> bool:
        for attempt in range(_TRIES):
            wanted = self._not_stored(lines) if self._batch.key else lines
            keys = {line.id for line in wanted}
            attachments = [one for one in self._attachments if one.message_id in keys]
            try:
                with transaction.atomic(using=outbox.database()):
                    stored = outbox.add_to_batch(self._batch, wanted, attachments)
            except IntegrityError:
                # Somebody else has stored one of them at this moment.
                if attempt == _TRIES - 1 or not self._batch.key:
                    raise
            else:
                self._attachments.clear()
                return stored
        raise AssertionError("unreachable")

    def _not_stored(self, lines: Sequence[Line]) -> list[Line]:
        known = outbox.stored_keys([str(line.idempotency_key) for line in lines])
        wanted: dict[str, Line] = {}
        for line in lines:
            key = str(line.idempotency_key)
            if key not in known and key not in wanted:
                wanted[key] = line
            elif self._is_new:
                # Where it goes on with what was stored before, that is what it is for.
                self._leave_out(
                    None, ", ".join(line.to), "It is among the recipients twice, with nothing to tell the two apart."
                )
        return list(wanted.values())

    def _leave_out(self, position: int | None, given: Any, reason: str) -> None:
        batch = self._batch
        batch.skipped += 1
        if len(batch.problems) < PROBLEMS_KEPT:
            batch.problems.append({"position": position, "recipient": _named(given), "reason": reason[:500]})

    def _attach(self, line: Line, given: Sequence[Any]) -> None:
        message = Message(id=line.id)
        with without_repeating(
            self._batch.sensitive, "attachments: one cannot be read, or they are too large together."
        ):
            files = read_attachments(given, self._limit)
        for read in files:
            # What is sensitive is dropped message by message, and its files with it.
            path = "" if self._batch.sensitive else shared_attachment_path(self._batch, read.sha256)
            self._attachments.append(file_attachment(read, message=message, path=path, known=path in self._files))
            if path:
                self._files[path] = None
                if len(self._files) > _CHUNK:
                    del self._files[next(iter(self._files))]


def _named(given: Any) -> str:
    to = getattr(given, "to", given[0] if isinstance(given, tuple) and given else given)
    return ascii(to)[:200] if not isinstance(to, str) else to.encode(errors="replace").decode()[:200].replace("\0", "")
