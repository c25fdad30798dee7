"""The facade for many mails at once: the content is stored once, the recipients as they come."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Literal
from zoneinfo import ZoneInfo

from asgiref.sync import sync_to_async
from django.db import IntegrityError, transaction
from django.utils import timezone as django_timezone
from django.views.decorators.debug import sensitive_variables

from . import outbox
from .broker.publisher import publish_batch_on_commit
from .conf import mailer_settings
from .exceptions import IdempotencyConflict, InvalidOption, MailerError
from .mime.attachments import ReadAttachment, read_attachments
from .models import Attachment, Batch, Message, Priority, State, shared_attachment_path
from .outbox import Line
from .redaction import without_repeating
from .submission.arguments import idempotency_key_of
from .submission.attachments import file_attachment, forget_files
from .submission.fields import draft
from .submission.recipients import Reader, in_position

# Recipients that are stored at once: many enough that their number makes no difference to what each costs.
_CHUNK = 1000

#: Recipients that were left out of which a batch keeps where they stood and what was wrong.
PROBLEMS_KEPT = 100

# Seconds between two rounds of tasks for a batch that is being stored: those before may have found nothing more.
_PUBLISH_AGAIN = 1.0

# Somebody else stores the same recipients at the same time.
_TRIES = 5


@sensitive_variables()
def send_bulk(
    recipients: Iterable[Any],
    *,
    template: str | None = None,
    context: Mapping[str, Any] | None = None,
    subject: str | None = "",
    message: str | None = "",
    html_message: str | None = None,
    from_email: str | None = None,
    reply_to: Sequence[str] | str | None = None,
    headers: Mapping[str, Any] | None = None,
    attachments: Sequence[Any] | None = (),
    language: str | None = None,
    timezone: str | ZoneInfo | None = None,
    transactional: bool = False,
    send_at: datetime | None = None,
    expires_at: datetime | None = None,
    priority: Priority | int = Priority.NORMAL,
    key: str | None = None,
    on_invalid: Literal["raise", "skip"] = "raise",
    sensitive: bool = False,
    using: str | None = None,
    list_id: str | None = None,
    campaign: str | None = None,
    tags: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
    track_opens: bool | None = None,
    track_clicks: bool | None = None,
    sparkpost: Mapping[str, Any] | None = None,
) -> Batch:
    """Store one mail for each of many recipients, and have them sent by the workers.

    The content is stored once, and with each recipient only what is different. A generator of a million recipients
    needs no more memory than one of a hundred.

    Args:
        recipients: any iterable of addresses, of ``(address, context)``, or of :class:`~congressy_mailer.Recipient`.
        template: as for :func:`congressy_mailer.send_mail`.
        context: what all mails have in common; a recipient's own context is added to it, and is stronger.
        subject: as for ``send_mail()``.
        message: as for ``send_mail()``.
        html_message: as for ``send_mail()``.
        from_email: as for ``send_mail()``.
        reply_to: as for ``send_mail()``.
        headers: as for ``send_mail()``, but a ``Message-ID``, which each mail has of its own.
        attachments: of all mails; stored once.
        language: as for ``send_mail()``; a recipient may have another.
        timezone: as for ``send_mail()``; a recipient may have another.
        transactional: as for ``send_mail()``. Many mails are marketing unless you say otherwise.
        send_at: as for ``send_mail()``.
        expires_at: as for ``send_mail()``.
        priority: which of the messages of the batch that are due leaves first. What is in no batch goes before them.
        key: at most 200 characters. Calling again with the same key, after the caller was interrupted, goes on where
            it stopped: whoever has a mail of the batch gets no second one. What the first call said stays. Nobody
            gets two mails of such a batch, unless :attr:`Recipient.key <congressy_mailer.Recipient>` tells them apart.
        on_invalid: what becomes of a recipient that is not one. ``"raise"``: everything is stored in one transaction,
            and nothing where one is wrong. ``"skip"``: recipients are stored in chunks, each in a transaction of its
            own, unless the caller has opened one; those that are wrong are left out, counted in ``skipped``, and the
            first 100 of them explained in ``problems``.
        sensitive: as for ``send_mail()``; the content of the batch itself is dropped when all its mails are sent.
        using: as for ``send_mail()``.
        list_id: as for ``send_mail()``.
        campaign: as for ``send_mail()``.
        tags: as for ``send_mail()``.
        metadata: as for ``send_mail()``; a recipient's own is added to it.
        track_opens: as for ``send_mail()``.
        track_clicks: as for ``send_mail()``.
        sparkpost: as for ``send_mail()``.

    Returns:
        The batch. ``batch.progress()`` tells how far it is, ``batch.cancel()`` takes back what has not been sent.

    Raises:
        MailerError: whatever ``send_mail()`` raises for the same argument; the error begins with
            ``recipients[7]:`` where it is about one of them.
        IdempotencyConflict: another transaction is storing a batch with the same key.
    """
    if on_invalid not in ("raise", "skip"):
        raise InvalidOption(f"on_invalid must be 'raise' or 'skip', not {on_invalid!r}.")
    if isinstance(recipients, str | bytes | Mapping) or not isinstance(recipients, Iterable):
        raise InvalidOption(f"recipients must be a list or another iterable, not {type(recipients).__name__}.")
    mail, read = draft(
        subject=subject, message=message, html_message=html_message, from_email=from_email, reply_to=reply_to,
        headers=headers, attachments=attachments, template=template, context=context, language=language,
        timezone=timezone, transactional=transactional, send_at=send_at, expires_at=expires_at, priority=priority,
        sensitive=sensitive, using=using, list_id=list_id, campaign=campaign, tags=tags, metadata=metadata,
        track_opens=track_opens, track_clicks=track_clicks, sparkpost=sparkpost,
    )  # fmt: skip
    if any(name.lower() == "message-id" for name in mail["headers"]):
        raise InvalidOption("headers: each mail of a batch has a Message-ID of its own.")
    wanted = Batch(**mail, key=idempotency_key_of(key), created_at=django_timezone.now())
    all_or_nothing = transaction.atomic(using=outbox.database()) if on_invalid == "raise" else nullcontext()
    with all_or_nothing:
        batch, is_new = _opened(wanted, read)
        if batch.stored_at is None and batch.cancelled_at is None:
            _Storing(batch, is_new, on_invalid == "skip").store(recipients)
    return batch


@sensitive_variables()
async def asend_bulk(*args: Any, **options: Any) -> Batch:
    """:func:`send_bulk` for asynchronous views: the same arguments, result and errors."""

    # Called without arguments, so that no frame on the way to the other thread shows them in the report of an error.
    @sensitive_variables()
    def send() -> Batch:
        return send_bulk(*args, **options)

    return await sync_to_async(send, thread_sensitive=True)()


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a batch is."""

    #: Messages by their state; states that none is in are left out.
    states: Mapping[State, int]
    #: Recipients that were left out.
    skipped: int
    #: The caller has come to the end of the recipients.
    stored: bool

    @property
    def total(self) -> int:
        """Messages that are stored."""
        return sum(self.states.values())

    @property
    def finished(self) -> int:
        """Messages that nothing more will happen to by itself."""
        return sum(count for state, count in self.states.items() if state in outbox.FINAL)

    @property
    def sent(self) -> int:
        """Messages that the mail server has accepted."""
        return self.states.get(State.SENT, 0)

    @property
    def done(self) -> bool:
        """Nothing is left to be sent, and no further recipient will come."""
        return self.stored and self.finished == self.total


def progress(batch: Batch) -> Progress:
    """How far a batch is: one query over its messages."""
    batch.refresh_from_db(using=outbox.database(), fields=["stored_at", "cancelled_at", "skipped"])
    stored = batch.stored_at is not None or batch.cancelled_at is not None
    return Progress(outbox.counts(batch.pk), batch.skipped, stored)


def cancel(batch: Batch) -> int:
    """Take back every message of a batch that has not begun to be sent, and store no further ones.

    Returns:
        How many were taken back.
    """
    cancelled = outbox.cancel_batch(batch.pk)
    batch.refresh_from_db(using=outbox.database())
    return cancelled


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
