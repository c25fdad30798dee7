"""What a mail says and how it is to be sent, checked: for one message as for the messages of a batch."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

from django.utils import translation
from django.views.decorators.debug import sensitive_variables

from ..conf import default_reply_to, default_sender, mailer_settings
from ..content import templates
from ..content.context import encode
from ..exceptions import InvalidOption
from ..mime.addresses import bare_address, normalise_address, normalise_addresses
from ..mime.attachments import LoadedAttachment, read_attachments
from ..mime.header_values import check_subject, normalise_headers
from ..models import Message, Priority
from ..models.about import about_fields
from ..redaction import hiding_content
from ..sparkpost.options import sparkpost_fields
from ..suppressions.lists import check_list_id
from .arguments import (
    check_times,
    clean_alias,
    clean_alternatives,
    clean_bool,
    clean_language,
    clean_priority,
    clean_text,
    clean_time,
    clean_timezone,
)
from .mail_request import MailRequest

logger = logging.getLogger("congressy_mailer.submission")


# Without a repr: the report of an error shows the variables of each frame.
@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class MailFields:
    """What a mail says and how it is to be sent: columns of :class:`congressy_mailer.models.Mail`."""

    from_email: str
    reply_to: list[str]
    headers: dict[str, str]
    subject: str
    alternatives: list[list[str]]
    language: str
    timezone: str
    transactional: bool
    sensitive: bool
    send_at: datetime | None
    expires_at: datetime | None
    priority: Priority
    using: str
    list_id: str
    about_model: str | None
    about_id: str | None
    about_name: str
    campaign: str
    tags: list[str]
    metadata: dict[str, Any]
    sparkpost: dict[str, Any]
    # A template with its context, or ready text.
    template: str = ""
    context: dict[str, Any] | None = None
    text: str = ""
    html: str = ""

    def columns(self) -> dict[str, Any]:
        """The same by name, for a model's instance."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@sensitive_variables()
def mail_fields(request: MailRequest) -> tuple[MailFields, list[LoadedAttachment]]:
    """Check what a caller says of a mail.

    Returns:
        What is stored of it, and the attachments in hand.

    Raises:
        MailerError: one of its subclasses that :func:`congressy_mailer.send_mail` names, for what is wrong.
    """
    sensitive = clean_bool(request.sensitive, "sensitive")
    language = clean_language(request.language)
    # Lazy text becomes text here, in the language that a template would be rendered in.
    with translation.override(language or None):
        mail = MailFields(
            reply_to=_reply_to(request.reply_to),
            from_email=normalise_address(request.from_email or default_sender(), "from_email"),
            subject=_subject(request.subject, sensitive),
            headers=_headers(request.headers, sensitive),
            alternatives=clean_alternatives(request.alternatives, sensitive=sensitive),
            transactional=clean_bool(request.transactional, "transactional"),
            sensitive=sensitive,
            send_at=clean_time(request.send_at, "send_at"),
            expires_at=clean_time(request.expires_at, "expires_at"),
            priority=clean_priority(request.priority),
            using=clean_alias(request.using),
            language=language,
            timezone=clean_timezone(request.timezone),
            list_id=check_list_id(request.list_id, request.transactional),
            **about_fields(request.about)._asdict(),
            **sparkpost_fields(
                campaign=request.campaign,
                tags=request.tags,
                metadata=request.metadata,
                track_opens=request.track_opens,
                track_clicks=request.track_clicks,
                sparkpost=request.sparkpost,
            ),
        )
        check_times(mail.send_at, mail.expires_at)
        mail = replace(mail, **_content(mail, request))
        return mail, _read_attachments(request.attachments, sensitive)


def message_id(message: Message) -> str:
    """The ``Message-ID`` of a new message for life: the caller's, else one at the sender's domain."""
    for name, value in message.headers.items():
        if name.lower() == "message-id":
            return str(value)
    return f"<{message.pk.hex}@{sending_domain(message.from_email)}>"


def sending_domain(from_email: str) -> str:
    """The domain of a sender, in ASCII."""
    return bare_address(from_email).rpartition("@")[2]


@sensitive_variables()
def _content(mail: MailFields, request: MailRequest) -> dict[str, Any]:
    message, html_message, template = request.message, request.html_message, request.template
    if template is None:
        if request.context is not None:
            raise InvalidOption("context is given without a template.")
        if not mail.subject:
            # Django takes it, and so do we; spam filters do not like it, and it is mostly an oversight.
            logger.warning("A mail has no subject: neither subject= nor a template gives one.")
        return {"text": clean_text(message, "message"), "html": clean_text(html_message, "html_message")}
    if message or html_message:
        raise InvalidOption(
            "Give template, or ready text in message and html_message, not both: the template's own .txt is its text."
        )
    templates.check(template, subject_given=bool(mail.subject), language=mail.language)
    encoded = encode(request.context or {}, language=mail.language, sensitive=mail.sensitive)
    return {"template": template, "context": encoded}


def _subject(subject: object, sensitive: bool) -> str:
    with hiding_content(sensitive, "The subject holds a line break or control character."):
        return check_subject(subject)


def _headers(headers: Mapping[str, Any] | None, sensitive: bool) -> dict[str, str]:
    with hiding_content(sensitive, "headers: a name or a value is not one that may be set."):
        return normalise_headers(headers)


def _read_attachments(values: Sequence[Any] | None, sensitive: bool) -> list[LoadedAttachment]:
    limit = mailer_settings().MAX_ATTACHMENT_BYTES
    with hiding_content(sensitive, f"attachments: one cannot be read, or together they are over {limit:,} bytes."):
        return read_attachments(() if values is None else values, limit)


def _reply_to(values: Sequence[str] | str | None) -> list[str]:
    if values is None:
        values = default_reply_to()
    # A single text that is empty is no list of one address.
    return normalise_addresses(values or (), "reply_to")
