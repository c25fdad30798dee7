"""What the page of a message shows."""

from __future__ import annotations

from typing import Any

from django.contrib.admin.utils import quote
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.urls import NoReverseMatch, reverse
from django.utils.translation import gettext as _

from ..models import Attachment, Message
from ..models.about import about_object
from . import handling
from .content import hide_sensitive
from .fates import MOST_SHOWN, fates
from .status import status_badge
from .timeline import timeline
from .viewing import may_view_content


def page_context(request: HttpRequest, message: Message) -> dict[str, Any]:
    """All of it but what the mail says, for which there is a page of its own."""
    recipients = fates(message)
    suppressed = any(fate.suppressed for fate in recipients)
    actions = handling.offered(request, message, suppressed=suppressed)
    return {
        "badge": status_badge(message),
        "fates": recipients,
        "further": max(len(message.recipients) - MOST_SHOWN, 0),
        "steps": timeline(message),
        "facts": [(name, value) for name, value in _facts(request, message) if value],
        "files": _files(request, message),
        "actions": actions,
        "may_resend_to": request.user.has_perm("congressy_mailer.resend_message")
        and message.content_dropped_at is None,
        "may_view_content": may_view_content(request, message),
        "may_see_suppressions": request.user.has_perm("congressy_mailer.view_suppression"),
        "about_url": _about_url(request, message),
        "batch_url": reverse("admin:congressy_mailer_batch_change", args=[quote(message.batch_id)])
        if message.batch_id and request.user.has_perm("congressy_mailer.view_batch")
        else "",
    }


def _facts(request: HttpRequest, message: Message) -> list[tuple[str, str]]:
    def content(text: object) -> str:
        """Free text of the caller's, which is content."""
        if message.sensitive or not text or may_view_content(request, message):
            return hide_sensitive(message, str(text)) if text else ""
        return ""

    return [
        (_("From"), message.from_email),
        (_("Reply to"), content(", ".join(message.reply_to))),
        (_("Template"), message.content.template),
        (_("Language"), message.language),
        (_("Kind"), _("transactional") if message.transactional else _("not transactional")),
        (_("List"), message.list_id),
        (_("Priority"), message.get_priority_display()),
        (_("Mail backend"), message.route or message.using),
        (_("Attempts"), str(message.attempts)),
        (_("Idempotency key"), content(message.idempotency_key)),
        ("Message-ID", message.message_id),
        (_("Id"), str(message.pk)),
    ]


def _files(request: HttpRequest, message: Message) -> list[tuple[str, str]]:
    """Names and sizes of the attachments."""
    owners: list[Any] = [message] if message.batch is None else [message, message.batch]
    files: list[Attachment] = [one for owner in owners for one in owner.attachments.all()]
    if message.sensitive or may_view_content(request, message):
        return [(hide_sensitive(message, one.filename) or one.mimetype, filesizeformat(one.size)) for one in files]
    return [(one.mimetype, filesizeformat(one.size)) for one in files]


def _about_url(request: HttpRequest, message: Message) -> str:
    """The page of what it is about in the host's admin, where there is one that the user may see."""
    about = about_object(message)
    if about is None:
        return ""
    meta = about._meta
    if not request.user.has_perm(f"{meta.app_label}.view_{meta.model_name}"):
        return ""
    try:
        return reverse(f"admin:{meta.app_label}_{meta.model_name}_change", args=[quote(about.pk)])
    except NoReverseMatch:
        return ""
