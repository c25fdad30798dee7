"""Helpers for a host's tests: the mail that was sent, and delivery in the test's process, without broker or worker.

``transaction.on_commit`` does not run inside Django's ``TestCase``, so mail stays queued until the test delivers it::

    from congressy_mailer.testing import assert_mail, deliver_all

    def test_confirmation(self):
        self.client.post("/register/", {...})
        assert_mail(to="ana@example.com", subject="Inscrição confirmada", contains="boleto")
        deliver_all()

The names are loaded on first use, because the local SparkPost is in this package and is started without Django.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .delivering import deliver_all, drop_in, fail_next
    from .events import simulate
    from .mails import AttachedFile, OutboxMail, assert_mail, assert_no_mail, outbox

__all__ = [
    "AttachedFile",
    "OutboxMail",
    "assert_mail",
    "assert_no_mail",
    "deliver_all",
    "drop_in",
    "fail_next",
    "outbox",
    "simulate",
]

_MODULES = {
    **dict.fromkeys(["deliver_all", "drop_in", "fail_next"], ".delivering"),
    "simulate": ".events",
    **dict.fromkeys(["AttachedFile", "OutboxMail", "assert_mail", "assert_no_mail", "outbox"], ".mails"),
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name], __name__), name)
