"""Congressy Mailer: transactional and bulk e-mail for Django through Celery and SparkPost.

The names below are the public ones. They are loaded on first use, because Django imports this package before
its models can be.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "1.0.0rc1"

if TYPE_CHECKING:
    from .bulk import asend_bulk, send_bulk
    from .exceptions import MailerError
    from .mail import asend_mail, cancel, send_mail
    from .mime.attachments import Attachment
    from .models import Priority
    from .models.about import mails_about
    from .pausing import pause, resume
    from .submission.recipients import Recipient

__all__ = [
    "Attachment",
    "MailerError",
    "Priority",
    "Recipient",
    "asend_bulk",
    "asend_mail",
    "cancel",
    "mails_about",
    "pause",
    "resume",
    "send_bulk",
    "send_mail",
]

_MODULES = {
    "Attachment": ".mime.attachments",
    "MailerError": ".exceptions",
    "Priority": ".models",
    "Recipient": ".submission.recipients",
    "asend_bulk": ".bulk",
    "asend_mail": ".mail",
    "cancel": ".mail",
    "mails_about": ".models.about",
    "pause": ".pausing",
    "resume": ".pausing",
    "send_bulk": ".bulk",
    "send_mail": ".mail",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name], __name__), name)
