"""Pieces of pickles, as another package may have stored them."""

from __future__ import annotations

import pickle
from typing import Any


def text(value: str) -> bytes:
    """A text in a pickle."""
    return pickle.SHORT_BINUNICODE + bytes([len(value)]) + value.encode()


def named(module: str, name: str) -> bytes:
    """What a pickle names of a module."""
    return text(module) + text(name) + pickle.STACK_GLOBAL


#: The class that most mails are of.
MAIL = named("django.core.mail.message", "EmailMessage")


def mail_with(field: str, value: bytes) -> bytes:
    """A mail with one field more, whose value is a piece of a pickle."""
    fields = text("to") + b"](" + text("b@example.com") + b"e" + text(field) + value
    return b"\x80\x04" + MAIL + b")\x81}(" + fields + b"ub."


#: What was called nevertheless.
CALLED: list[str] = []


def call_me(*arguments: Any) -> None:
    """What no pickle may call."""
    CALLED.append(repr(arguments))


#: Values of a field that would do something else than hold a value.
HOSTILE = {
    "a function of the system": named("os", "system") + text("touch /tmp/x") + b"\x85R",
    "one through a module that mail needs": named("email.utils", "os.system") + text("true") + b"\x85R",
    "one through a class that mail needs": named("django.core.mail.message", "EmailMessage.send") + b")R",
    "one of Django's": named("django.core.mail", "import_string") + text("os.system") + b"\x85R",
    "builtins": named("builtins", "eval") + text("1") + b"\x85R",
    "attributes": named("builtins", "getattr") + text("a") + text("upper") + b"\x86R",
    "by the older way": b"cos\nsystem\n" + text("true") + b"\x85R",
    "by the oldest way": b"(" + text("true") + b"ios\nsystem\n",
    "ours": named(__name__, "call_me") + b")R",
    "a persistent id": b"Pos.system\n",
    "the registry of extensions": pickle.EXT1 + b"\x01",
    "keyword arguments": named("builtins", "str") + b")}\x92",
    "another package's prefix": named("email.mime.image.evil", "MIMEImage") + b")\x81",
    "a name with a blank": b"cdjango.core.mail.message EmailMessage\nx\n)\x81",
}  # fmt: skip
