"""A mail of Django's, as its apps and others send it → a message: its bytes, its envelope, and what else it carries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import parseaddr
from typing import Any

import django
from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.smtp import EmailBackend as SmtpBackend
from django.utils.encoding import force_str
from django.views.decorators.debug import sensitive_variables

from ..content.context import encode
from ..content.values import UNSTORABLE
from ..exceptions import InvalidAddress
from ..mime.addresses import bare_address, common_bare_address
from ..mime.attachments import LoadedAttachment
from ..mime.django_mail import django_mail_bytes
from ..mime.parts import field_value
from ..models import Message
from ..transports.guard import hops_of
from .anymail_attributes import ANYMAIL_ATTRIBUTES, apply_to_sparkpost, attributes_of

# A larger one is no row's, of which a worker reads a hundred at once.
_LARGEST_IN_ROW = 100_000
_LONGEST_MESSAGE_ID = 320
_LONGEST_SENDER = 1000

# Only for the address check of Django's; it has no server.
_checker = SmtpBackend.__new__(SmtpBackend)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How mail of a backend is stored."""

    using: str
    priority: int
    sensitive: bool
    expires_at: datetime | None
    #: Names of attributes that are stored, beside django-anymail's.
    attributes: Sequence[str]
    #: Whether what is behind the queue knows SparkPost's options, and django-anymail's attributes only by these.
    knows_sparkpost: bool = False


@sensitive_variables()
def message_from(mail: EmailMessage, options: Options) -> tuple[Message, LoadedAttachment | None] | None:
    """The message for a mail, which is not changed; it is not stored yet.

    Args:
        mail: of Django's, or of a class that derives from it.
        options: how it is to be stored.

    Returns:
        The message and, where it is too large for a row, its bytes as the attachment; ``None`` for a mail to nobody.

    Raises:
        ValueError: an address or a header is not one, as Django's SMTP backend finds.
        ContextNotSerializable: an attribute cannot be stored.
        TransportUnavailable: it comes out of the backend that it would be delivered over.
    """
    recipients = mail.recipients()
    if not recipients:
        return None
    encoding = str(mail.encoding or settings.DEFAULT_CHARSET)
    sender = _checked(mail.from_email, encoding)
    bare = {str(address): _checked(address, encoding) for address in recipients}
    message = Message(
        using=options.using,
        priority=options.priority,
        sensitive=options.sensitive,
        expires_at=options.expires_at,
        subject=_storable(mail.subject),
        from_email=_stored(mail.from_email, sender, _LONGEST_SENDER),
        reply_to=[_storable(address) for address in mail.reply_to],
        headers={_storable(name): _storable(value) for name, value in mail.extra_headers.items()},
    )
    _set_recipients(message, mail, bare)
    message_id = _message_id(mail) or f"<{message.pk.hex}@{sender.rpartition('@')[2] or 'localhost'}>"
    wire = django_mail_bytes(_with_message_id(mail, message_id))
    message.message_id = (field_value(wire, "Message-ID") or message_id)[:_LONGEST_MESSAGE_ID]
    message.attributes = _attributes(mail, options, hops_of(mail, wire))
    if options.knows_sparkpost:
        apply_to_sparkpost(message, mail)
    if len(wire) <= _LARGEST_IN_ROW:
        message.mime = wire
        return message, None
    message.mime = b""
    return message, LoadedAttachment("message.eml", wire, "message/rfc822", "")


def _checked(address: Any, encoding: str) -> str:
    """The address as Django's SMTP backend gives it to a server.

    Raises:
        ValueError: it refuses it.
    """
    text = force_str(address) if not isinstance(address, tuple) else address
    if isinstance(text, str) and (common := common_bare_address(text)) is not None:
        return common
    try:
        bare = _prepared(text, encoding)
    except IndexError:
        # Python's parser trips over some.
        bare = ""
    if not bare or bare.startswith("=?"):
        # Encoded (RFC 2047), which no server takes for an address.
        raise InvalidAddress(f"Invalid address {text!r}: it is not one, or the part before the @ is not ASCII.")
    return bare


def _prepared(address: Any, encoding: str) -> str:
    if django.VERSION >= (6, 0):
        return str(_checker.prep_address(address))
    from django.core.mail.message import sanitize_address

    return parseaddr(sanitize_address(address, encoding))[1]


def _stored(address: Any, bare: str, longest: int = 1000) -> str:
    """The address with its name, where it is read again as the same address."""
    text = _storable(address).strip()
    return text if len(text) <= longest and bare_address(text) == bare else bare


def _set_recipients(message: Message, mail: EmailMessage, bare: Mapping[str, str]) -> None:
    """Who gets it. A class may send to others than it names, whom no header needs to name."""
    given = [[str(address) for address in addresses if address] for addresses in (mail.to, mail.cc, mail.bcc)]
    if [address for addresses in given for address in addresses] == list(map(str, mail.recipients())):
        message.to, message.cc, message.bcc = (
            [_stored(address, bare[address]) for address in addresses] for addresses in given
        )
    else:
        message.bcc = list(bare.values())


def _message_id(mail: EmailMessage) -> str:
    return next((str(value) for name, value in mail.extra_headers.items() if str(name).lower() == "message-id"), "")


def _with_message_id(mail: EmailMessage, message_id: str) -> EmailMessage:
    """A copy that has one. Django would make one up of the host's name, which may take long to find out."""
    own = mail.__class__.__new__(mail.__class__)
    own.__dict__.update(mail.__dict__)
    own.extra_headers = dict(mail.extra_headers)
    if not _message_id(mail):
        own.extra_headers["Message-ID"] = message_id
    return own


def _attributes(mail: EmailMessage, options: Options, hops: int) -> dict[str, Any]:
    found = attributes_of(mail, (*ANYMAIL_ATTRIBUTES, *options.attributes))
    attributes: dict[str, Any] = {}
    if found:
        attributes["values"] = encode(found, language=None, sensitive=options.sensitive)
    if hops:
        attributes["hops"] = hops
    return attributes


def _storable(value: object) -> str:
    return UNSTORABLE.sub("\ufffd", force_str(value))


def server_addresses() -> frozenset[str]:
    """Addresses of ``ADMINS`` and ``MANAGERS``, in lower case and without names."""
    found: set[str] = set()
    for people in (settings.ADMINS, settings.MANAGERS):
        for person in people if isinstance(people, Iterable) and not isinstance(people, str) else ():
            # Django before 6.0 has pairs of name and address.
            address = person[1] if isinstance(person, (tuple, list)) and len(person) == 2 else person
            found.add(parseaddr(force_str(address))[1].lower())
    return frozenset(found)


def is_servers_own(mail: EmailMessage, people: frozenset[str]) -> bool:
    """Whether a mail is an error report or another mail of the server's to those who look after it.

    Args:
        mail: any.
        people: :func:`server_addresses`.
    """
    if not people or force_str(mail.from_email) != force_str(settings.SERVER_EMAIL):
        return False
    recipients = mail.recipients()
    return bool(recipients) and all(parseaddr(force_str(one))[1].lower() in people for one in recipients)
