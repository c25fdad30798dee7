"""The host's ``INTERCEPTORS``: the last look at a mail, from every kind of caller and for every mail backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from django.utils.module_loading import import_string
from django.views.decorators.debug import sensitive_variables

from .. import outbox
from ..conf import mailer_settings
from ..exceptions import ContentNotReady, Withhold
from ..mime.header_values import normalise_headers
from ..mime.outgoing import OutgoingMail
from ..mime.parts import MailParts, read_parts
from ..models import Event, Message
from ..replies import error_text

_RELEASING = (Event.Type.WITHHELD, Event.Type.RETRIED)


@dataclass
class InterceptedMail:
    """A composed mail that is about to be handed over. Only its headers may be changed."""

    #: The stored message.
    message: Message
    #: As it is rendered.
    subject: str = field(repr=False)
    #: Envelope sender, with its name.
    from_email: str
    #: Who it goes to now, bare.
    recipients: list[str]
    #: Further headers by name; what is put here stands in the mail.
    headers: dict[str, str] = field(repr=False)
    _wire: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """Plain text; empty where there is none."""
        return self._parts.text

    @property
    def html(self) -> str:
        """HTML; empty where there is none."""
        return self._parts.html

    @cached_property
    def _parts(self) -> MailParts:
        return read_parts(self._wire)


@sensitive_variables()
def intercepted(message: Message, mail: OutgoingMail) -> OutgoingMail:
    """The mail as the interceptors leave it.

    Raises:
        Withhold: an interceptor withholds it, and it has not been released since.
        ContentNotReady: one failed, or set an invalid header.
    """
    paths = mailer_settings().INTERCEPTORS
    if not paths:
        return mail
    given = dict(mail.extra_headers)
    seen = InterceptedMail(message, str(mail.subject), mail.from_email, list(mail.envelope), dict(given), mail.wire)
    for path in paths:
        try:
            interceptor: Callable[[InterceptedMail], Any] = import_string(path)
            interceptor(seen)
        except Withhold:
            if not _is_released(message):
                raise
        except (MemoryError, SoftTimeLimitExceeded):
            raise
        except Exception as error:
            # It is not sent as it is.
            raise ContentNotReady(f"The interceptor {path!r} failed: {error_text(error)}") from error
    changed = {name: value for name, value in seen.headers.items() if given.get(name) != value}
    removed = [name for name in given if name not in seen.headers]
    if not changed and not removed:
        return mail
    try:
        return mail.with_head(headers=normalise_headers(changed), without=removed)
    except ValueError as error:
        raise ContentNotReady(f"An interceptor has set an invalid header: {error_text(error)}") from error


def _is_released(message: Message) -> bool:
    """Whether a person has released it since it was withheld."""
    events = Event.objects.using(outbox.database()).filter(message_id=message.id, type__in=_RELEASING)
    found = list(events.order_by("at", "id").values_list("type", flat=True))
    return Event.Type.WITHHELD in found and found[-1] == Event.Type.RETRIED
