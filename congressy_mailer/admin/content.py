"""What a mail says, as far as a list may show it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import TypeVar
from uuid import UUID

from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_variables

from ..models import Batch, Mail, Message
from ..models.transactions import database

#: What rendering a subject takes.
_FIELDS = (
    "template", "context", "mime", "subject", "language", "timezone", "sensitive",
    "batch__template", "batch__context", "batch__subject", "batch__sensitive",
)  # fmt: skip
_BATCH_FIELDS = ("template", "context", "language", "timezone")
_TITLE_FIELDS = ("template", "subject", "sensitive", "content_dropped_at")
# Where a message or batch carries it.
_RENDERED = "rendered_subject"
# For one page: templates are the host's, and may ask the database or another server for each mail.
_MOST_SECONDS = 2.0
# Batches whose templates are rendered to be searched.
_NEWEST = 200
_M = TypeVar("_M", Message, Batch)


def hide_sensitive(mail: Mail, text: str) -> str:
    """The text, or a placeholder where the mail is sensitive."""
    return str(_("(confidential)")) if mail.sensitive else text


def shown_title(mail: Mail) -> str:
    """By what people know a mail or batch: its subject, as :func:`render_subjects` or :func:`render_batch_subjects` has
    made it where a template has it; else the name of that template."""
    content = _content_of(mail)
    rendered = str(getattr(mail, _RENDERED, ""))
    return hide_sensitive(mail, content.subject or rendered) or content.template


@sensitive_variables()
def render_subjects(messages: Sequence[Message]) -> None:
    """Render the subjects that templates have, for :func:`shown_title`: with one query for these messages, and one for
    each model that their contexts refer to.

    A subject that is recorded where the mail is composed would have to be written with each outcome, which is the
    statement that a worker's speed depends on. One that cannot be rendered any more is left out, and so are those for
    which no time is left.

    Args:
        messages: of one page. Sensitive ones are left alone.
    """
    wanted = _without_subject(messages)
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
        _render_each(prepared, wanted, composer.subject)


@sensitive_variables()
def render_batch_subjects(batches: Sequence[Batch]) -> None:
    """The same for batches, of what is said to all their recipients: ``…`` stands for what differs between them.

    Args:
        batches: of one page. Sensitive ones are left alone.
    """
    wanted = _without_subject(batches)
    if not wanted:
        return
    from ..content.context import decode_many
    from ..content.templates import FoundParts, render_subject

    stored = list(Batch.objects.using(database()).filter(pk__in=list(wanted)).only(*_BATCH_FIELDS))
    found: FoundParts = {}
    with suppress(Exception):
        contexts = dict(zip(stored, decode_many([batch.context for batch in stored]), strict=True))

        @sensitive_variables()
        def subject(batch: Batch) -> str:
            context = contexts[batch]
            if isinstance(context, Exception):
                raise context
            return render_subject(
                batch.template,
                context,
                language=batch.language,
                timezone=batch.timezone,
                found=found,
                placeholders=True,
            )

        _render_each(stored, wanted, subject)


def find_batches_by_rendered_subject(text: str) -> list[UUID]:
    """Of the newest batches, those whose template renders to a subject with each of these words, as lists show it."""
    from ..outbox.search import fold

    words = fold(text.replace('"', " ")).split()
    if not words:
        return []
    batches = Batch.objects.using(database()).filter(subject="", sensitive=False).exclude(template="")
    newest = list(batches.only(*_TITLE_FIELDS).order_by("-id")[:_NEWEST])
    render_batch_subjects(newest)
    return [batch.pk for batch in newest if all(word in fold(getattr(batch, _RENDERED, "")) for word in words)]


def _content_of(mail: Mail) -> Mail:
    """Where the subject and the template of a message are, or of a batch."""
    return mail.content if isinstance(mail, Message) else mail


def _without_subject(mails: Iterable[_M]) -> dict[UUID, _M]:
    """Those whose subject is in a template and may be shown."""
    wanted = {}
    for mail in mails:
        content = _content_of(mail)
        is_kept = mail.content_dropped_at is None
        if content.template and not content.subject and not mail.sensitive and is_kept:
            wanted[mail.pk] = mail
    return wanted


@sensitive_variables()
def _render_each(stored: Iterable[_M], shown: Mapping[UUID, _M], subject: Callable[[_M], str]) -> None:
    """Have each mail that is shown carry the subject of the stored one, until the time is up."""
    deadline = monotonic() + _MOST_SECONDS
    for mail in stored:
        if monotonic() > deadline:
            break
        with suppress(Exception):
            setattr(shown[mail.pk], _RENDERED, subject(mail))
