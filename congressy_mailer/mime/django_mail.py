"""A mail of Django's → its bytes, as Django's own SMTP backend would send them, in seven bits."""

from __future__ import annotations

import email.policy
import inspect
import re
from email.message import Message
from typing import Any

import django
from django.core.mail import EmailMessage

from ..exceptions import InvalidHeader
from .seven_bits import flatten, in_seven_bits
from .verification import check_as_built

_OCTETS_LINE_BREAK = re.compile(rb"\r\n|\r|\n")
# RFC 1847, RFC 8551 §3: writing such a part anew breaks its signature.
_SIGNED = frozenset({"multipart/signed", "multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime"})


def django_mail_bytes(mail: EmailMessage) -> bytes:
    """A mail with CRLF line breaks, as it arrives: dots are not doubled.

    It is ASCII, but for a signed or encrypted mail whose author has written eight bits: that is not touched.

    Args:
        mail: of Django's, or of a class that derives from it. Its ``message()`` is called once.

    Raises:
        InvalidHeader: Django would write header fields or parts that the mail was not given.
    """
    message = _built(mail)
    if not _is_plain(message):
        # A foreign class writes itself, perhaps for the sake of a signature.
        content = message.as_bytes(linesep="\r\n") if _takes(message.as_bytes, "linesep") else message.as_bytes()
        return _with_crlf(content)
    content = flatten(message)
    try:
        check_as_built(content, message)
    except ValueError as error:
        raise InvalidHeader(f"The mail is not sent: {error}.") from None
    if not content.isascii() and not _is_signed(message):
        content = in_seven_bits(content, message)
    return _with_crlf(content)


def _built(mail: EmailMessage) -> Any:
    # Django 6.0 and later gives it the policy of SMTP; a class that was written before does not take one.
    if django.VERSION >= (6, 0) and _takes(mail.message, "policy"):
        return mail.message(policy=email.policy.SMTP)
    return mail.message()


def _takes(function: Any, argument: str) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(one.name == argument or one.kind is one.VAR_KEYWORD for one in parameters)


def _is_plain(message: Any) -> bool:
    """Whether it is written by Python's or Django's own code."""
    if not isinstance(message, Message):
        return False
    owner = next(one for one in type(message).__mro__ if "as_bytes" in vars(one))
    return owner.__module__.partition(".")[0] in ("email", "django")


def _is_signed(message: Message) -> bool:
    return any(part.get_content_type() in _SIGNED for part in message.walk())


def _with_crlf(content: bytes) -> bytes:
    if not content.count(b"\r\n") == content.count(b"\r") == content.count(b"\n"):
        # RFC 5321 §2.3.8 allows CR and LF in pairs only: where servers differ about a single one, one mail can
        # pass for two.
        content = _OCTETS_LINE_BREAK.sub(b"\r\n", content)
    return content
