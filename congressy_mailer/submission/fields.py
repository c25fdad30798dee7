"""What a mail says and how it is to be sent, checked: for one message as for the messages of a batch."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.utils import translation
from django.utils.functional import Promise
from django.views.decorators.debug import sensitive_variables

from ..conf import default_reply_to, default_sender, mailer_settings
from ..content import templates
from ..content.context import encode
from ..exceptions import InvalidOption
from ..mime.addresses import bare_address, normalise_address, normalise_addresses
from ..mime.attachments import LoadedAttachment, read_attachments
from ..mime.header_values import check_subject, normalise_headers
from ..models import Priority
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

logger = logging.getLogger("congressy_mailer.submission")


@sensitive_variables()
def mail_fields(
    *,
    subject: str | Promise | None,
    message: str | Promise | None,
    html_message: str | Promise | None,
    alternatives: Sequence[tuple[str | Promise, str]] | None,
    from_email: str | None,
    reply_to: Sequence[str] | str | None,
    headers: Mapping[str, Any] | None,
    attachments: Sequence[Any] | None,
    template: str | None,
    context: Mapping[str, Any] | None,
    language: str | None,
    timezone: str | ZoneInfo | None,
    transactional: bool,
    send_at: datetime | None,
    expires_at: datetime | None,
    priority: Priority | int,
    sensitive: bool,
    using: str | None,
    list_id: str | None,
    campaign: str | None,
    tags: Sequence[str] | None,
    metadata: Mapping[str, Any] | None,
    track_opens: bool | None,
    track_clicks: bool | None,
    sparkpost: Mapping[str, Any] | None,
    about: object = None,
) -> tuple[dict[str, Any], list[LoadedAttachment]]:
    """The arguments that :func:`congressy_mailer.send_mail` explains, as the fields of a
    :class:`congressy_mailer.models.Mail`, and the attachments in hand.

    Raises:
        MailerError: one of its subclasses that :func:`congressy_mailer.send_mail` names, for what is wrong.
    """
    sensitive = clean_bool(sensitive, "sensitive")
    language = clean_language(language)
    # Lazy text becomes text here, in the language that a template would be rendered in.
    with translation.override(language or None):
        mail: dict[str, Any] = {
            "reply_to": _reply_to(reply_to),
            "from_email": normalise_address(from_email or default_sender(), "from_email"),
            "subject": _subject(subject, sensitive),
            "headers": _headers(headers, sensitive),
            "alternatives": clean_alternatives(alternatives, sensitive=sensitive),
            "transactional": clean_bool(transactional, "transactional"),
            "sensitive": sensitive,
            "send_at": clean_time(send_at, "send_at"),
            "expires_at": clean_time(expires_at, "expires_at"),
            "priority": clean_priority(priority),
            "using": clean_alias(using),
            "language": language,
            "timezone": clean_timezone(timezone),
            "list_id": check_list_id(list_id, transactional),
            **about_fields(about)._asdict(),
            **sparkpost_fields(
                campaign=campaign, tags=tags, metadata=metadata, track_opens=track_opens, track_clicks=track_clicks,
                sparkpost=sparkpost,
            ),
        }  # fmt: skip
        check_times(mail["send_at"], mail["expires_at"])
        mail |= _content(mail, message, html_message, template, context)
        return mail, _read_attachments(attachments, sensitive)


def message_id(mail: Mapping[str, Any], key: UUID) -> str:
    """The ``Message-ID`` of a message for life: the caller's, else one at the sender's domain."""
    for name, value in mail["headers"].items():
        if name.lower() == "message-id":
            return str(value)
    return f"<{key.hex}@{sending_domain(mail)}>"


def sending_domain(mail: Mapping[str, Any]) -> str:
    """The domain of its sender, in ASCII."""
    return bare_address(mail["from_email"]).rpartition("@")[2]


@sensitive_variables()
def _content(
    mail: Mapping[str, Any],
    message: str | Promise | None,
    html_message: str | Promise | None,
    template: str | None,
    context: Mapping[str, Any] | None,
) -> dict[str, Any]:
    if template is None:
        if context is not None:
            raise InvalidOption("context is given without a template.")
        if not mail["subject"]:
            # Django takes it, and so do we; spam filters do not like it, and it is mostly an oversight.
            logger.warning("A mail has no subject: neither subject= nor a template gives one.")
        return {"text": clean_text(message, "message"), "html": clean_text(html_message, "html_message")}
    if message or html_message:
        raise InvalidOption(
            "Give template, or ready text in message and html_message, not both: the template's own .txt is its text."
        )
    templates.check(template, subject_given=bool(mail["subject"]), language=mail["language"])
    encoded = encode(context or {}, language=mail["language"], sensitive=mail["sensitive"])
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
