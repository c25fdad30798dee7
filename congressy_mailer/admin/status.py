"""What has become of a mail, in a word."""

from __future__ import annotations

from django.utils.html import format_html

from ..models import Message


def status_badge(message: Message) -> str:
    """What is known last: of its delivery, else its state. The word stands for itself; its colour says no more."""
    label = message.get_delivery_display() or message.get_state_display()
    return format_html('<span class="mailer-status mailer-{}">{}</span>', message.delivery or message.state, label)
