"""The facade: what a host calls. It checks, stores and has published; it never renders and never waits for a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from asgiref.sync import sync_to_async
from django.db.models import Model
from django.utils import translation
from django.utils.functional import Promise
from django.views.decorators.debug import sensitive_variables

from . import outbox
from .exceptions import InvalidOption, NoRecipient
from .metrics.spans import StoringSpan
from .mime.addresses import normalise_addresses
from .mime.attachments import LoadedAttachment
from .models import Event, Message, Priority, State
from .models.transactions import explaining_missing_tables
from .outbox.publishing import publish_on_commit
from .submission.arguments import clean_idempotency_key
from .submission.attachments import store_attachment
from .submission.copying import copy_for
from .submission.fields import mail_fields, message_id
from .submission.mail_request import MailRequest
from .submission.queued_signal import announce_queued
from .submission.signatures import with_arguments_of
from .submission.storing_once import find_or_store
from .suppressions.lookup import suppressed_recipients


@sensitive_variables()
def send_mail(
    subject: str | Promise | None = "",
    message: str | Promise | None = "",
    from_email: str | None = None,
    recipient_list: Sequence[str] | str | None = None,
    *,
    html_message: str | Promise | None = None,
    alternatives: Sequence[tuple[str | Promise, str]] | None = (),
    to: Sequence[str] | str | None = None,
    cc: Sequence[str] | str = (),
    bcc: Sequence[str] | str = (),
    reply_to: Sequence[str] | str | None = None,
    headers: Mapping[str, Any] | None = None,
    attachments: Sequence[Any] | None = (),
    template: str | None = None,
    context: Mapping[str, Any] | None = None,
    language: str | None = None,
    timezone: str | ZoneInfo | None = None,
    transactional: bool = True,
    send_at: datetime | None = None,
    expires_at: datetime | None = None,
    priority: Priority | int = Priority.NORMAL,
    idempotency_key: str | None = None,
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
    fail_silently: bool = False,
) -> Message:
    """Store one mail and have it sent by a worker once the current transaction commits.

    The first four arguments, ``html_message`` and ``fail_silently`` are those of Django's ``send_mail()``. Give
    either ``template`` with its ``context``, or ready text in ``message`` and ``html_message``. Lazy text is taken in
    the mail's ``language``.

    Args:
        subject: one line of text. With a template it may be left out where ``<template>_subject.txt`` exists. Without
            one it may be empty, as with Django, which is logged as a warning.
        message: plain text; made from ``html_message`` where it is empty.
        from_email: sender; ``CONGRESSY_EMAIL_SENDER``, then ``DEFAULT_FROM_EMAIL``, where it is ``None`` or empty.
        recipient_list: recipients in the ``To`` header; a single text is one address.
        html_message: ready HTML.
        alternatives: further forms of the same for programs that know them, each its text and its media type, such as
            ``(invitation, "text/calendar; method=REQUEST")``; at most 200,000 bytes together, beside a template too.
        to: the same as ``recipient_list``; give one of them.
        cc: recipients in the ``Cc`` header.
        bcc: recipients in no header.
        reply_to: where answers go; ``CONGRESSY_REPLY_TO`` where it is ``None``, nowhere else where it is empty.
        headers: further headers by name. A ``Message-ID`` given here is kept. A ``datetime`` is written as RFC 5322
            has dates; one without a time zone is in the current one.
        attachments: :class:`~congressy_mailer.Attachment`, paths, open files, ``(filename, content, mimetype)``
            or MIME parts; read before this returns.
        template: name without extension: ``"subscription/paid"`` finds ``subscription/paid.html``, ``.txt`` and
            ``_subject.txt``.
        context: what the template sees. Model instances are stored by reference and fetched again in the worker.
        language: language to render in; the active one where it is ``None`` or empty.
        timezone: time zone to render in, or its name (``"America/Sao_Paulo"``); the current one where it is ``None``.
        transactional: a reaction to something that the recipient did, rather than marketing.
        send_at: not before this time (with its time zone).
        expires_at: not after this time (with its time zone).
        priority: which of the messages that are due leaves first.
        idempotency_key: at most 200 characters; a second call with the same key returns the first message and
            sends nothing.
        sensitive: never show the content, neither in the admin nor in logs nor in errors, and drop it as soon as it
            is sent (password resets, codes). Where it fails or is held it waits for ``retry()`` as long as
            ``RETRY_FOR``; where it is cancelled or expires it goes with the next purge. Recipients and the template's
            name are no content.
        using: alias of the mail backend in ``MAILERS`` (Django 6.1 and later) or in
            ``CONGRESSY_MAILER["TRANSPORTS"]``.
        list_id: one of ``LISTS``, which a recipient may leave without leaving the others; only where ``transactional``
            is ``False``.
        campaign: SparkPost's ``campaign_id``, at most 64 bytes in UTF-8.
        tags: at most 10 for SparkPost's reports.
        metadata: an object of JSON that SparkPost's events repeat, at most 1000 bytes together with the mailer's own
            key in it, by which events find their message.
        track_opens: have SparkPost notice when it is opened; ``None``: as the SparkPost account has it.
        track_clicks: the same for links that are followed.
        sparkpost: what else SparkPost's ``X-MSYS-API`` header knows: ``{"options": {"ip_pool": "news"}, "archive":
            ["archive@example.com"]}``, with the options ``skip_suppression``, ``ip_pool``, ``inline_css``, ``dkim_key``
            and ``sandbox``, and lists of addresses ``cc``, ``bcc`` and ``archive`` that SparkPost makes further copies
            for. None of this is sent to other mail servers.
        about: the host's object that it is about, such as an order: an instance of a model that has been saved. By it
            the mail is found again, from the object's own page as well; see :func:`congressy_mailer.mails_about`.
        fail_silently: accepted for the sake of Django's signature. Trouble with the mail server never reaches
            the caller in any case, and an argument that makes no mail is an error in any case.

    Returns:
        The stored message. Its ``state`` is ``queued``, or ``scheduled`` where ``send_at`` is ahead. Recipients that
        are on the suppression list are left out, which its ``events`` tell; where that is all of them, it is
        ``suppressed``, and nothing is sent.

    Raises:
        NoRecipient: ``to``, ``cc`` and ``bcc`` are empty.
        InvalidAddress: an address is not one.
        InvalidHeader: a subject or header holds a line break, is bytes, is too long to be folded into lines that a
            server takes, is not what its field may hold, or is not one that may be set.
        TemplateNotFound: the template, or its subject, does not exist.
        TemplateUnreadable: a template's file is not in the encoding that templates are read in.
        ContextNotSerializable: the context cannot be stored; the error names the path to the value.
        AttachmentUnreadable: an attachment cannot be read.
        AttachmentTooLarge: the attachments are larger than ``MAX_ATTACHMENT_BYTES`` together.
        AttachmentNotStored: the storage did not take one.
        InvalidOption: arguments that contradict each other or are of the wrong type, a time without its time zone,
            an unknown alias, language, time zone, priority or list, or what SparkPost would refuse.
        IdempotencyConflict: another transaction has just used the ``idempotency_key``, and its message cannot be
            seen in this one. The same call in a new transaction returns it.
        NotMigrated: the database lacks a table or column of this version.
    """
    if recipient_list is not None and to is not None:
        raise InvalidOption("Give the recipients as recipient_list or as to, not as both.")
    request = MailRequest(
        subject=subject, message=message, html_message=html_message, alternatives=alternatives, from_email=from_email,
        reply_to=reply_to, headers=headers, attachments=attachments, template=template, context=context,
        language=language, timezone=timezone, transactional=transactional, send_at=send_at, expires_at=expires_at,
        priority=priority, sensitive=sensitive, using=using, list_id=list_id, campaign=campaign, tags=tags,
        metadata=metadata, track_opens=track_opens, track_clicks=track_clicks, sparkpost=sparkpost, about=about,
    )  # fmt: skip
    fields, files = mail_fields(request)
    # Lazy text becomes text here, in the language that a template would be rendered in.
    with translation.override(fields.language or None):
        new_message = Message(
            **fields.columns(),
            to=normalise_addresses(recipient_list if to is None else to, "to"),
            cc=normalise_addresses(cc, "cc"),
            bcc=normalise_addresses(bcc, "bcc"),
            idempotency_key=clean_idempotency_key(idempotency_key),
        )
    if not new_message.recipients:
        raise NoRecipient("The mail has no recipient: to, cc and bcc are all empty.")
    new_message.message_id = message_id(new_message)
    with explaining_missing_tables():
        return _store(new_message, files)


@sensitive_variables()
@with_arguments_of(send_mail)
async def asend_mail(*args: Any, **options: Any) -> Message:
    """:func:`send_mail` for asynchronous views: the same arguments, result and errors."""

    # Called without arguments, so that no frame on the way to the other thread shows them in the report of an error.
    @sensitive_variables()
    def send() -> Message:
        return send_mail(*args, **options)

    return await sync_to_async(send, thread_sensitive=True)()


def cancel(message: Message) -> bool:
    """Take a message back that has not begun to be sent.

    Returns:
        Whether it was taken back; if not, it is being sent or its state is final already.
    """
    cancelled = outbox.cancel(message.pk)
    message.refresh_from_db(using=outbox.database())
    return cancelled


def retry(message: Message) -> None:
    """Queue a message again that failed, expired, was cancelled, suppressed or held, for whoever has no copy.

    Recipients that are still on the suppression list are left out again.

    Raises:
        InvalidTransition: it is in another state, or its content has been dropped.
    """
    outbox.retry(message.pk)
    publish_on_commit([message.pk])
    message.refresh_from_db(using=outbox.database())


def resend(message: Message) -> None:
    """Queue a message again whatever became of it, for all recipients: whoever has it gets a second copy.

    Raises:
        InvalidTransition: it is still on its way, or its content has been dropped.
    """
    outbox.resend(message.pk)
    publish_on_commit([message.pk])
    message.refresh_from_db(using=outbox.database())


def resend_to(message: Message, to: Sequence[str] | str) -> Message:
    """Send what a message says to another address, such as a corrected one, as a message of its own.

    Args:
        message: in any state, as long as its content is kept.
        to: the only recipient of the copy.

    Returns:
        The new message.

    Raises:
        InvalidAddress: an address is not one.
        NoRecipient: there is none.
        InvalidTransition: the content has been dropped.
        AttachmentUnreadable: an attachment is not in the storage any more.
        AttachmentNotStored: the storage did not take it once more.
    """
    recipients = normalise_addresses(to, "to")
    if not recipients:
        raise NoRecipient("The mail has no recipient: to is empty.")
    copy, files = copy_for(message, recipients)
    # A mail that was complete when it was stored says its own.
    copy.message_id = message_id(copy) if copy.mime is None else message.message_id
    stored = _store(copy, files)
    outbox.add_event(message.pk, Event.Type.RETRIED, stored.created_at, ", ".join(recipients)[:400], str(copy.pk))
    return stored


def _store(mail: Message, files: Sequence[LoadedAttachment]) -> Message:
    with StoringSpan() as span:
        mail.traceparent = span.traceparent
        stored = find_or_store(
            mail,
            lambda: [store_attachment(one, message=mail) for one in files],
            lambda attachments: outbox.add(mail, attachments, suppressed_recipients([mail]).get(mail.pk)),
        )
        span.stored(stored.pk)
    if stored is mail:
        if mail.state == State.QUEUED:
            publish_on_commit([mail.pk])
        announce_queued([mail])
    return stored
