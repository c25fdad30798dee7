"""The mail that a test has sent, queued or collected by Django, as one type."""

from __future__ import annotations

import html as html_entities
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from django.core import mail

from .. import outbox as messages_outbox
from ..content.context import decode_many
from ..delivery.composing import Composer
from ..mime.addresses import bare_address
from ..mime.outgoing import OutgoingMail, as_bytes
from ..mime.parts import field_value, file_content, read_fields, read_parts
from ..models import Message
from ..replies import error_text

_HREF = re.compile(r"""<a\s[^>]*?href\s*=\s*["']([^"']+)""", re.IGNORECASE)
_URL = re.compile(r"https?://[^\s<>\"']+")


class AttachedFile(NamedTuple):
    """An attachment of a mail."""

    filename: str
    content: bytes
    mimetype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxMail:
    """A mail that the test has sent, as its recipient would see it."""

    #: Its ``Message.state``, or ``collected`` if it did not go through the queue.
    state: str
    subject: str
    #: Plain text; empty if there is none.
    text: str
    #: HTML; empty if there is none.
    html: str
    #: Sender, with its name.
    from_email: str
    to: list[str]
    cc: list[str]
    bcc: list[str]
    #: Header fields by name, decoded.
    headers: Mapping[str, str] = field(default_factory=dict)
    attachments: list[AttachedFile] = field(default_factory=list)
    #: The stored message; ``None`` if it did not go through the queue.
    message: Message | None = None
    #: Name of the template; empty if there is none.
    template: str = ""
    #: Variables of the template.
    context: Mapping[str, Any] = field(default_factory=dict)
    #: Why it cannot be composed; empty if it can.
    problem: str = ""

    @property
    def recipients(self) -> list[str]:
        """All recipients, without names."""
        return [bare_address(address) for address in (*self.to, *self.cc, *self.bcc)]

    @property
    def links(self) -> list[str]:
        """URLs of its links, those of the HTML first, each once."""
        found = [html_entities.unescape(one) for one in _HREF.findall(self.html)]
        found += [one.rstrip(".,;:!?)]") for one in _URL.findall(self.text)]
        return list(dict.fromkeys(found))

    def __str__(self) -> str:
        template = f", template {self.template}" if self.template else ""
        problem = f", cannot be composed: {self.problem}" if self.problem else ""
        return f"{self.state}: {self.subject!r} to {', '.join(self.recipients)}{template}{problem}"


def outbox() -> list[OutboxMail]:
    """All mail of this test.

    First the mail that went through the queue, rendered, delivered or not, oldest first; then the mail of other apps
    that Django's test backend has collected.
    """
    collected = list(getattr(mail, "outbox", ()))
    ours = {field_value(one.wire, "Message-ID"): one for one in collected if isinstance(one, OutgoingMail)}
    messages = Message.objects.using(messages_outbox.database()).select_related("batch")
    found = [_of_message(one, ours) for one in messages.prefetch_related("attachments").order_by("id")]
    return [*found, *(_of_django(one) for one in collected if not isinstance(one, OutgoingMail))]


def assert_mail(
    *,
    to: str | Iterable[str] | None = None,
    subject: str | re.Pattern[str] | None = None,
    contains: str | Iterable[str] | None = None,
    template: str | None = None,
    context: Mapping[str, Any] | None = None,
    count: int = 1,
) -> OutboxMail:
    """Assert that ``count`` mails were sent that match all given arguments.

    Args:
        to: one or several recipients that it has in ``To``, ``Cc`` or ``Bcc``.
        subject: the whole subject, or a regular expression that is found in it.
        contains: one or several strings that its text or HTML contains.
        template: its template's name.
        context: variables that its context includes.
        count: number of matching mails.

    Returns:
        The first matching mail.

    Raises:
        AssertionError: there are more or fewer. The error lists all mails, and the arguments that each does not match.
    """
    wanted = _Wanted(to, subject, contains, template, context)
    mails = outbox()
    matching = [one for one in mails if not wanted.missing_in(one)]
    if len(matching) != count or not matching:
        raise AssertionError(_report(f"{count} mail(s) {wanted} expected, {len(matching)} found.", mails, wanted))
    return matching[0]


def assert_no_mail(
    *,
    to: str | Iterable[str] | None = None,
    subject: str | re.Pattern[str] | None = None,
    contains: str | Iterable[str] | None = None,
    template: str | None = None,
    context: Mapping[str, Any] | None = None,
) -> None:
    """Assert that no mail was sent that matches all given arguments; without arguments, none at all.

    Args:
        to: as for :func:`assert_mail`.
        subject: as for :func:`assert_mail`.
        contains: as for :func:`assert_mail`.
        template: as for :func:`assert_mail`.
        context: as for :func:`assert_mail`.

    Raises:
        AssertionError: there is such a mail.
    """
    wanted = _Wanted(to, subject, contains, template, context)
    matching = [one for one in outbox() if not wanted.missing_in(one)]
    if matching:
        raise AssertionError(_report(f"No mail {wanted} expected, {len(matching)} found.", matching, None))


class _Wanted:
    """What a mail is to be."""

    def __init__(
        self,
        to: str | Iterable[str] | None,
        subject: str | re.Pattern[str] | None,
        contains: str | Iterable[str] | None,
        template: str | None,
        context: Mapping[str, Any] | None,
    ) -> None:
        self._to = _listed(to)
        self._subject = subject
        self._contains = _listed(contains)
        self._template = template
        self._context = context

    def missing_in(self, one: OutboxMail) -> list[str]:
        """Names of the arguments that are not true of a mail."""
        recipients = {address.lower() for address in one.recipients}
        missing = []
        if any(bare_address(address).lower() not in recipients for address in self._to):
            missing.append("to")
        if isinstance(self._subject, re.Pattern):
            if not self._subject.search(one.subject):
                missing.append("subject")
        elif self._subject is not None and self._subject != one.subject:
            missing.append("subject")
        if any(text not in one.text and text not in one.html for text in self._contains):
            missing.append("contains")
        if self._template is not None and self._template != one.template:
            missing.append("template")
        if any(name not in one.context or one.context[name] != value for name, value in (self._context or {}).items()):
            missing.append("context")
        return missing

    def __str__(self) -> str:
        pattern = self._subject.pattern if isinstance(self._subject, re.Pattern) else self._subject
        given = {
            "to": ", ".join(self._to), "subject": pattern, "contains": ", ".join(map(repr, self._contains)),
            "template": self._template, "context": self._context,
        }  # fmt: skip
        said = [f"{name}={value!r}" for name, value in given.items() if value]
        return f"with {', '.join(said)}" if said else "of any kind"


def _report(first: str, mails: Sequence[OutboxMail], wanted: _Wanted | None) -> str:
    lines = [first, f"What there is ({len(mails)}):" if mails else "There is none."]
    for one in mails:
        missing = wanted.missing_in(one) if wanted is not None else []
        lines.append(f"  {one}" + (f"  (not: {', '.join(missing)})" if missing else ""))
    return "\n".join(lines)


def _listed(values: str | Iterable[str] | None) -> list[str]:
    if values is None:
        return []
    return [values] if isinstance(values, str) else list(values)


def _of_message(message: Message, delivered: Mapping[str | None, OutgoingMail]) -> OutboxMail:
    content = message.content
    shared: Any = {} if message.batch is None else message.batch.context or {}
    (context,) = decode_many([{**shared, **(message.context or {})}])
    own: dict[str, Any] = {
        "state": str(message.state), "from_email": message.from_email, "to": message.to, "cc": message.cc,
        "bcc": message.bcc, "message": message, "template": content.template,
        "context": {} if isinstance(context, Exception) else context,
    }  # fmt: skip
    try:
        wire = delivered[message.message_id].wire if message.message_id in delivered else _compose(message)
    except Exception as error:
        return OutboxMail(subject=content.subject, text="", html="", problem=error_text(error), **own)
    return OutboxMail(**own, **_read(wire))


def _compose(message: Message) -> bytes:
    if message.content_dropped_at is not None:
        raise LookupError("its content has been dropped")
    composer = Composer()
    composer.prepare([message])
    return composer.compose(message).wire


def _of_django(one: mail.EmailMessage) -> OutboxMail:
    own: dict[str, Any] = {
        "state": "collected", "from_email": str(one.from_email), "to": [str(address) for address in one.to],
        "cc": [str(address) for address in one.cc], "bcc": [str(address) for address in one.bcc],
    }  # fmt: skip
    return OutboxMail(**own, **_read(as_bytes(one)))


def _read(wire: bytes) -> dict[str, Any]:
    headers, parts = dict(read_fields(wire)), read_parts(wire)
    return {
        "subject": next((value for name, value in headers.items() if name.lower() == "subject"), ""),
        "text": parts.text,
        "html": parts.html,
        "headers": headers,
        "attachments": [
            AttachedFile(part.get_filename() or "", file_content(part), part.get_content_type()) for part in parts.files
        ],
    }
