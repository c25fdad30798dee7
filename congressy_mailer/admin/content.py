"""What a mail says, as far as a list may show it."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

from ..models import Mail, Message


def hide_sensitive(mail: Mail, text: str) -> str:
    """The text, or a placeholder where the mail is sensitive."""
    return str(_("(confidential)")) if mail.sensitive else text


def shown_title(message: Message) -> str:
    """By what people know a mail: its subject, else its template, whose subject is known when it is rendered."""
    return hide_sensitive(message, message.content.subject) or message.content.template
