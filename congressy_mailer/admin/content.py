"""What a mail says, as far as a list may show it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_variables

from ..models import Mail, Message
from ..models.transactions import database

#: What rendering a subject takes.
_FIELDS = (
    "template", "context", "mime", "subject", "language", "timezone", "sensitive",
    "batch__template", "batch__context", "batch__subject", "batch__sensitive",
)  # fmt: skip
# Where a message carries it.
_RENDERED = "rendered_subject"


def hide_sensitive(mail: Mail, text: str) -> str:
    """The text, or a placeholder where the mail is sensitive."""
    return str(_("(confidential)")) if mail.sensitive else text


def shown_title(message: Message) -> str:
    """By what people know a mail: its subject, as :func:`render_subjects` has made it where a template has it; else the
    name of that template."""
    rendered = str(getattr(message, _RENDERED, ""))
    return hide_sensitive(message, message.content.subject or rendered) or message.content.template


@sensitive_variables()
def render_subjects(messages: Sequence[Message]) -> None:
    """Render the subjects that templates have, for :func:`shown_title`: with one query for these messages, and one for
    each model that their contexts refer to.

    A subject that is recorded where the mail is composed would have to be written with each outcome, which is the
    statement that a worker's speed depends on. One that cannot be rendered any more is left out.

    Args:
        messages: of one page. Sensitive ones are left alone.
    """
    wanted = {
        message.pk: message
        for message in messages
        if message.content.template and not message.content.subject and not message.sensitive
        and message.content_dropped_at is None
    }  # fmt: skip
    if not wanted:
        return
    # Loaded where mails are looked at: every process of the host has the admin's classes.
    from ..delivery.composing import Composer

    composer = Composer()
    stored = Message.objects.using(database()).filter(pk__in=list(wanted)).select_related("batch").only(*_FIELDS)
    prepared = list(stored)
    # The host's models and templates may raise anything; the name of the template is shown instead.
    with suppress(Exception):
        composer.prepare(prepared)
        for message in prepared:
            with suppress(Exception):
                setattr(wanted[message.pk], _RENDERED, composer.subject(message))
