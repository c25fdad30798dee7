"""What django-anymail's users set on a mail beside Django's attributes, as far as SparkPost has the same."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.core.mail import EmailMessage
from django.utils import timezone

from ..exceptions import InvalidOption
from ..models import Message
from ..sparkpost.options import sparkpost_fields
from .arguments import clean_time

logger = logging.getLogger("congressy_mailer.submission")

#: What its backends read of a mail.
ANYMAIL_ATTRIBUTES = (
    "envelope_sender", "esp_extra", "merge_data", "merge_global_data", "merge_headers", "merge_metadata", "metadata",
    "send_at", "tags", "template_id", "track_clicks", "track_opens",
)  # fmt: skip

_MAPPED = frozenset({"metadata", "send_at", "tags", "track_clicks", "track_opens"})


def attributes_of(mail: EmailMessage, names: tuple[str, ...]) -> dict[str, Any]:
    """Those of these attributes that a mail has and its author has set."""
    return dict(_given(mail, names))


def apply_to_sparkpost(message: Message, mail: EmailMessage) -> None:
    """Have a message carry them as ``send_mail()`` would have it; what SparkPost does not take is logged and left out.

    django-anymail's backend for SparkPost sends a single tag as the campaign.

    Args:
        message: not stored yet.
        mail: its author's.
    """
    given = attributes_of(mail, ANYMAIL_ATTRIBUTES)
    if not given:
        return
    if unknown := sorted(given.keys() - _MAPPED):
        logger.warning(
            "A mail has %s set, which django-anymail's backends know and the mail backend behind the queue does not.",
            ", ".join(unknown),
        )
    tags = given.get("tags")
    campaign = tags[0] if isinstance(tags, list | tuple) and len(tags) == 1 else None
    for options in (
        {"tags": tags, "campaign": campaign},
        {"metadata": given.get("metadata")},
        {"track_opens": given.get("track_opens"), "track_clicks": given.get("track_clicks")},
    ):
        _apply(message, options)
    if "send_at" in given:
        try:
            message.send_at = _time(given["send_at"])
        except InvalidOption as error:
            logger.warning("A mail is not scheduled: %s", error)


def _given(mail: EmailMessage, names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for name in names:
        value = getattr(mail, name, None)
        if value is not None and not _is_unset(value):
            yield name, value


def _is_unset(value: object) -> bool:
    # django-anymail's sentinel for an attribute that was not given, which is a class.
    return isinstance(value, type) and value.__module__.partition(".")[0] == "anymail"


def _apply(message: Message, options: dict[str, Any]) -> None:
    arguments: dict[str, Any] = dict.fromkeys(
        ("campaign", "tags", "metadata", "track_opens", "track_clicks", "sparkpost")
    )
    try:
        fields = sparkpost_fields(**{**arguments, **options})
    except InvalidOption as error:
        names = [name for name in options if options[name] is not None]
        # Of a sensitive mail no value is shown.
        logger.warning(
            "A mail is sent without its %s, which SparkPost would refuse%s",
            " and ".join(names),
            "." if message.sensitive else f": {error}",
        )
        return
    for name, value in fields.items():
        if value:
            setattr(message, name, value)


def _time(value: object) -> datetime | None:
    if isinstance(value, datetime) and timezone.is_naive(value):
        value = timezone.make_aware(value)
    if not isinstance(value, datetime):
        raise InvalidOption(f"send_at must be a datetime, not {type(value).__name__}.")
    return clean_time(value, "send_at")
