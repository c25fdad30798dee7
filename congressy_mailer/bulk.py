"""The functions that a host calls for batches: the content is stored once, then the recipients one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime
from functools import partial
from typing import Any, Literal
from zoneinfo import ZoneInfo

from asgiref.sync import sync_to_async
from django.db import transaction
from django.db.models import Model
from django.utils import timezone as django_timezone
from django.utils.functional import Promise
from django.views.decorators.debug import sensitive_variables

from . import outbox
from .exceptions import InvalidOption
from .metrics.spans import StoringSpan
from .models import Batch, Priority
from .models.progress import Progress
from .models.transactions import explaining_missing_tables
from .submission.arguments import clean_idempotency_key
from .submission.attachments import store_attachment
from .submission.batch_writer import BatchWriter, open_batch
from .submission.fields import mail_fields
from .submission.mail_request import MailRequest
from .submission.signatures import with_arguments_of
from .submission.storing_once import find_or_store


@sensitive_variables()
def send_bulk(
    recipients: Iterable[Any],
    *,
    template: str | None = None,
    context: Mapping[str, Any] | None = None,
    subject: str | Promise | None = "",
    message: str | Promise | None = "",
    html_message: str | Promise | None = None,
    alternatives: Sequence[tuple[str | Promise, str]] | None = (),
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
    about: Model | None = None,
) -> Batch:
    """Store one mail for each of many recipients, and have them sent by the workers.

    The content is stored once, and for each recipient only the difference. A generator of a million recipients needs no
    more memory than one of a hundred.

    Args:
        recipients: any iterable of addresses, of ``(address, context)``, or of :class:`~congressy_mailer.Recipient`.
        template: as for :func:`congressy_mailer.send_mail`.
        context: variables of all mails; a recipient's own context is merged into it and takes precedence.
        subject: as for ``send_mail()``.
        message: as for ``send_mail()``.
        html_message: as for ``send_mail()``.
        alternatives: as for ``send_mail()``; a recipient's own alternatives are added.
        from_email: as for ``send_mail()``.
        reply_to: as for ``send_mail()``.
        headers: as for ``send_mail()``, except ``Message-ID``: each mail has its own.
        attachments: attachments of all mails; stored once.
        language: as for ``send_mail()``; a recipient may have another.
        timezone: as for ``send_mail()``; a recipient may have another.
        transactional: as for ``send_mail()``, but ``False`` by default.
        send_at: as for ``send_mail()``.
        expires_at: as for ``send_mail()``.
        priority: order among the messages of batches. Mail outside batches goes first.
        key: at most 200 characters. After an interruption, a call with the same key continues the batch: recipients who
            have a mail of it get no second one, and the content of the first call stays. Nobody gets two mails of such
            a batch, unless :attr:`Recipient.key <congressy_mailer.Recipient>` distinguishes them.
        on_invalid: what happens to invalid recipients. ``"raise"``: all recipients are stored in one transaction, or
            none if one is invalid. ``"skip"``: recipients are stored in chunks, each in a separate transaction unless
            the caller has opened one; invalid recipients are skipped, counted in ``skipped``, and the first 100 are
            explained in ``problems``.
        sensitive: as for ``send_mail()``; the content of the batch is dropped when all its mails are sent.
        using: as for ``send_mail()``.
        list_id: as for ``send_mail()``.
        campaign: as for ``send_mail()``.
        tags: as for ``send_mail()``.
        metadata: as for ``send_mail()``; a recipient's own metadata is merged into it.
        track_opens: as for ``send_mail()``.
        track_clicks: as for ``send_mail()``.
        sparkpost: as for ``send_mail()``.
        about: the object of the host's that the whole batch is about; that of a single mail is given in its
            ``Recipient``.

    Returns:
        The batch. ``batch.progress()`` counts its messages by state, ``batch.cancel()`` cancels those that have not
        been sent.

    Raises:
        MailerError: the same errors as ``send_mail()`` for the same arguments; an error about a recipient begins with
            its index, as in ``recipients[7]:``.
        IdempotencyConflict: another transaction is storing a batch with the same key.
    """
    if on_invalid not in ("raise", "skip"):
        raise InvalidOption(f"on_invalid must be 'raise' or 'skip', not {on_invalid!r}.")
    if isinstance(recipients, str | bytes | Mapping) or not isinstance(recipients, Iterable):
        raise InvalidOption(f"recipients must be a list or another iterable, not {type(recipients).__name__}.")
    request = MailRequest(
        subject=subject, message=message, html_message=html_message, alternatives=alternatives, from_email=from_email,
        reply_to=reply_to, headers=headers, attachments=attachments, template=template, context=context,
        language=language, timezone=timezone, transactional=transactional, send_at=send_at, expires_at=expires_at,
        priority=priority, sensitive=sensitive, using=using, list_id=list_id, campaign=campaign, tags=tags,
        metadata=metadata, track_opens=track_opens, track_clicks=track_clicks, sparkpost=sparkpost, about=about,
    )  # fmt: skip
    fields, files = mail_fields(request)
    if any(name.lower() == "message-id" for name in fields.headers):
        raise InvalidOption("headers: each mail of a batch has a Message-ID of its own.")
    new_batch = Batch(**fields.columns(), key=clean_idempotency_key(key), created_at=django_timezone.now())
    all_or_nothing = transaction.atomic(using=outbox.database()) if on_invalid == "raise" else nullcontext()
    with StoringSpan(bulk=True) as span, explaining_missing_tables(), all_or_nothing:
        new_batch.traceparent = span.traceparent
        batch = find_or_store(
            new_batch,
            lambda: [store_attachment(one, batch=new_batch) for one in files],
            partial(open_batch, new_batch),
        )
        span.stored(batch.pk)
        if batch.stored_at is None and batch.cancelled_at is None:
            BatchWriter(batch, batch is new_batch, on_invalid == "skip").store(recipients)
    return batch


@sensitive_variables()
@with_arguments_of(send_bulk)
async def asend_bulk(*args: Any, **options: Any) -> Batch:
    """:func:`send_bulk` for asynchronous views: the same arguments, result and errors."""

    # Called without arguments, so that no frame on the way to the other thread shows them in the report of an error.
    @sensitive_variables()
    def send() -> Batch:
        return send_bulk(*args, **options)

    return await sync_to_async(send, thread_sensitive=True)()


def progress(batch: Batch) -> Progress:
    """Count the messages of a batch by state, with one query."""
    batch.refresh_from_db(using=outbox.database(), fields=["stored_at", "cancelled_at", "skipped"])
    stored = batch.stored_at is not None or batch.cancelled_at is not None
    return Progress(outbox.state_counts(batch.pk), batch.skipped, stored)


def cancel(batch: Batch) -> int:
    """Cancel all messages of a batch that are not being sent yet, and store no further ones.

    Returns:
        How many were cancelled.
    """
    cancelled = outbox.cancel_batch(batch.pk)
    batch.refresh_from_db(using=outbox.database())
    return cancelled
