"""The functions that a host calls. They check, store and publish, and never wait for a mail server."""

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
        subject: one line of text. With a template it may be omitted if ``<template>_subject.txt`` exists. Without a
            template it may be empty, as in Django; a warning is logged.
        message: plain text; if empty, it is made from ``html_message``.
        from_email: sender; if ``None`` or empty, ``CONGRESSY_EMAIL_SENDER``, then ``DEFAULT_FROM_EMAIL``.
        recipient_list: recipients in the ``To`` header; a string is one address.
        html_message: rendered HTML.
        alternatives: other forms of the text as pairs of text and media type, such as ``(invitation, "text/calendar;
            method=REQUEST")``, of which mail programs show the best that they support; at most 200,000 bytes together.
            Also allowed with a template.
        to: the same as ``recipient_list``; give one of them.
        cc: recipients in the ``Cc`` header.
        bcc: recipients in no header.
        reply_to: address for replies. ``None``: ``CONGRESSY_REPLY_TO``; empty: no ``Reply-To`` header.
        headers: further headers by name. A ``Message-ID`` given here is kept. A ``datetime`` is written in the format
            of RFC 5322; a naive one is in the current time zone.
        attachments: :class:`~congressy_mailer.Attachment`, paths, open files, ``(filename, content, mimetype)`` or MIME
            parts. They are read during the call.
        template: name without extension: ``"subscription/paid"`` finds ``subscription/paid.html``, ``.txt`` and
            ``_subject.txt``.
        context: variables of the template. Model instances are stored by reference and fetched again in the worker.
        language: language to render in; if ``None`` or empty, the active one.
        timezone: time zone to render in, or its name (``"America/Sao_Paulo"``); if ``None``, the current one.
        transactional: whether the mail answers something that the recipient did. ``False``: marketing.
        send_at: earliest time to send it, with a time zone.
        expires_at: latest time to send it, with a time zone.
        priority: order among the messages that are due.
        idempotency_key: at most 200 characters; a second call with the same key returns the first message and
            sends nothing.
        sensitive: never show the content in the admin, logs or errors, and drop it as soon as it is sent (password
            resets, codes). If the message fails or is held, its content is kept for ``retry()`` for ``RETRY_FOR``; if
            it is cancelled or expires, the next purge drops it. Recipients and the template's name do not count as
            content.
        using: alias of the mail backend in ``MAILERS`` (Django 6.1 and later) or in
            ``CONGRESSY_MAILER["TRANSPORTS"]``.
        list_id: one of ``LISTS``, which a recipient may leave without leaving the others. It requires
            ``transactional=False``.
        campaign: SparkPost's ``campaign_id``, at most 64 bytes in UTF-8.
        tags: at most 10 for SparkPost's reports.
        metadata: a JSON object that SparkPost's events repeat. At most 1000 bytes, including the mailer's own key, by
            which events are matched to their message.
        track_opens: whether SparkPost tracks opens; ``None``: the SparkPost account's default.
        track_clicks: whether SparkPost tracks clicks on links; ``None``: the SparkPost account's default.
        sparkpost: other fields of SparkPost's ``X-MSYS-API`` header: ``{"options": {"ip_pool": "news"}, "archive":
            ["archive@example.com"]}``, with the options ``skip_suppression``, ``ip_pool``, ``inline_css``, ``dkim_key``
            and ``sandbox``, and lists of addresses ``cc``, ``bcc`` and ``archive`` to which SparkPost sends copies. It
            is not sent to other mail servers.
        about: the object of the host's that the mail is about, such as an order: a saved model instance. Its mails are
            found by :func:`congressy_mailer.mails_about`, and on the object's own page in the admin.
        fail_silently: accepted because Django's ``send_mail()`` has it; ignored. Failures of the mail server never
            reach the caller, and invalid arguments always raise.

    Returns:
        The stored message. Its ``state`` is ``queued``, or ``scheduled`` if ``send_at`` is in the future. Recipients on
        the suppression list are left out and named in its ``events``; if all of them are, its state is ``suppressed``
        and nothing is sent.

    Raises:
        NoRecipient: ``to``, ``cc`` and ``bcc`` are empty.
        InvalidAddress: an address is invalid.
        InvalidHeader: a subject or header has a line break, is bytes, cannot be folded into lines that servers accept,
            is not a valid value of its field, or may not be set.
        TemplateNotFound: the template, or its subject, does not exist.
        TemplateUnreadable: a template's file is not UTF-8.
        ContextNotSerializable: the context cannot be stored; the error names the path to the value.
        AttachmentUnreadable: an attachment cannot be read.
        AttachmentTooLarge: the attachments together are larger than ``MAX_ATTACHMENT_BYTES``.
        AttachmentNotStored: the storage did not accept an attachment.
        InvalidOption: arguments contradict each other, have a wrong type, or would be refused by SparkPost; a time has
            no time zone; an alias, language, time zone, priority or list is unknown.
        IdempotencyConflict: another transaction has just used the ``idempotency_key``, and this transaction cannot see
            its message. The same call in a new transaction returns it.
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
    """Cancel a message that is not being sent yet.

    Returns:
        Whether it was cancelled. If not, it is being sent, or its state is final.
    """
    cancelled = outbox.cancel(message.pk)
    message.refresh_from_db(using=outbox.database())
    return cancelled


def retry(message: Message) -> None:
    """Queue a message again that is failed, expired, cancelled, suppressed or held, for the recipients without a copy.

    Recipients that are still on the suppression list are left out again.

    Raises:
        InvalidTransition: the message is in another state, or its content has been dropped.
    """
    outbox.retry(message.pk)
    publish_on_commit([message.pk])
    message.refresh_from_db(using=outbox.database())


def resend(message: Message) -> None:
    """Queue a message again from any final state, for all recipients: those who have it get a second copy.

    Raises:
        InvalidTransition: the message is not final yet, or its content has been dropped.
    """
    outbox.resend(message.pk)
    publish_on_commit([message.pk])
    message.refresh_from_db(using=outbox.database())


def resend_to(message: Message, to: Sequence[str] | str) -> Message:
    """Send the content of a message to another address, such as a corrected one, as a new message.

    Args:
        message: in any state, as long as its content is kept.
        to: the only recipient of the copy.

    Returns:
        The new message.

    Raises:
        InvalidAddress: an address is invalid.
        NoRecipient: ``to`` is empty.
        InvalidTransition: the content has been dropped.
        AttachmentUnreadable: an attachment is no longer in the storage.
        AttachmentNotStored: the storage did not accept the copy of an attachment.
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
