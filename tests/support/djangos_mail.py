"""What a worker would hand over for a call, and how a reader sees it."""

from __future__ import annotations

import email
import email.policy
from typing import Any

from congressy_mailer import send_mail
from congressy_mailer.mime.outgoing import OutgoingMail
from tests.support.mails import composed_as_stored
from tests.support.raw_mail import read_raw

SENDER = "Congressy <mail@congressy.net>"
ANA, EVA, ZE = "ana@example.com", "eva@example.com", "ze@example.com"


def sent(subject: Any = "Programa", message: Any = "Texto", *arguments: Any, **options: Any) -> OutgoingMail:
    """What a worker would hand over for this call."""
    if not arguments:
        options = {"from_email": SENDER, **options}
        options.setdefault("to", [ANA])
    return composed_as_stored(send_mail(subject, message, *arguments, **options))


def read(mail: OutgoingMail) -> Any:
    """What arrives, read by Python; it is what a strict reader takes too, and what a backend is given."""
    read_raw(mail.wire)
    assert mail.message().as_bytes(policy=email.policy.SMTP) == mail.wire
    return email.message_from_bytes(mail.wire.replace(b"\r\n", b"\n"), policy=email.policy.default)


def raw_field(mail: OutgoingMail, name: str) -> str | None:
    """A field as it is written."""
    return dict(read_raw(mail.wire).fields).get(name)


def structure(part: Any) -> Any:
    """Media types of a mail: a list is a multipart with what is in it."""
    if part.is_multipart():
        return [part.get_content_subtype(), *map(structure, part.iter_parts())]
    return part.get_content_type()


def files(mail: OutgoingMail) -> list[Any]:
    """The parts that are attached."""
    return [part for part in read(mail).walk() if part.get_content_disposition() == "attachment"]
