"""What a caller says of a mail, as it was given: the arguments that ``send_mail()`` and ``send_bulk()`` share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from django.utils.functional import Promise

from ..models import Priority


# Without a repr: the report of an error shows the variables of each frame.
@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class MailRequest:
    """Arguments of a call, explained by :func:`congressy_mailer.send_mail`; nothing of them is checked yet."""

    transactional: bool
    subject: str | Promise | None = ""
    message: str | Promise | None = ""
    html_message: str | Promise | None = None
    alternatives: Sequence[tuple[str | Promise, str]] | None = ()
    from_email: str | None = None
    reply_to: Sequence[str] | str | None = None
    headers: Mapping[str, Any] | None = None
    attachments: Sequence[Any] | None = ()
    template: str | None = None
    context: Mapping[str, Any] | None = None
    language: str | None = None
    timezone: str | ZoneInfo | None = None
    send_at: datetime | None = None
    expires_at: datetime | None = None
    priority: Priority | int = Priority.NORMAL
    sensitive: bool = False
    using: str | None = None
    list_id: str | None = None
    campaign: str | None = None
    tags: Sequence[str] | None = ()
    metadata: Mapping[str, Any] | None = None
    track_opens: bool | None = None
    track_clicks: bool | None = None
    sparkpost: Mapping[str, Any] | None = None
    about: object = None
