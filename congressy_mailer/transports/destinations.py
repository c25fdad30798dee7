"""The destination of a mail backend, derived from its configuration: for the worker's log and the checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import django
from django.conf import settings
from django.core.mail.backends import console, dummy, filebased, locmem, smtp
from django.core.mail.backends.base import BaseEmailBackend
from django.utils.translation import gettext, gettext_noop

from ..conf import mailer_settings
from ..exceptions import TransportUnavailable
from ..sparkpost.backend import EmailBackend as SparkPostBackend
from .host_backends import open_backend

#: Django's backends that send no mail, and what they do with it. Subclasses stand before their base classes.
_REACHES_NOBODY: dict[type[BaseEmailBackend], str] = {
    filebased.EmailBackend: "only written to files",
    console.EmailBackend: "only printed",
    locmem.EmailBackend: "only kept in memory",
    dummy.EmailBackend: "thrown away",
}
_REACHES_NOBODY_SENTENCES = {
    "only written to files": gettext_noop("is only written to files, and reaches nobody: %(backend)s"),
    "only printed": gettext_noop("is only printed, and reaches nobody: %(backend)s"),
    "only kept in memory": gettext_noop("is only kept in memory, and reaches nobody: %(backend)s"),
    "thrown away": gettext_noop("is thrown away, and reaches nobody: %(backend)s"),
}


def fate_of_mail(backend: type | None) -> str:
    """What becomes of mail that a class of mail backends reaches nobody with, such as "only printed".

    Args:
        backend: the class; ``None``: there is none.

    Returns:
        Empty where it sends mail, as far as the configuration shows.
    """
    if backend is None:
        return ""
    return next((fate for known, fate in _REACHES_NOBODY.items() if issubclass(backend, known)), "")


@dataclass(frozen=True, slots=True)
class Destination:
    """Where mail over one backend goes."""

    #: After "mail", in English, with places for the details: "leaves over %(server)s".
    sentence: str
    #: Never a user or password.
    details: Mapping[str, str] = field(default_factory=dict)
    #: Whether it can reach a recipient.
    is_real: bool = True

    @property
    def text(self) -> str:
        """In English, for logs and whoever reads them: "leaves over smtp.example.com:587"."""
        return self.sentence % self.details

    @property
    def shown(self) -> str:
        """The same in the language in force, without "mail"."""
        return gettext(self.sentence) % self.details


def destination(using: str) -> Destination:
    """Where mail over a backend goes.

    Args:
        using: as in :func:`.host_backends.open_backend`.
    """
    try:
        backend = open_backend(using)
    except TransportUnavailable:
        # Its words may repeat an option. The first mail and `manage.py check` say more.
        sentence = gettext_noop("cannot leave: its backend cannot be made as it is configured")
        return Destination(sentence, is_real=False)
    if fate := fate_of_mail(type(backend)):
        return Destination(_REACHES_NOBODY_SENTENCES[fate], {"backend": _class_path(backend)}, is_real=False)
    if isinstance(backend, smtp.EmailBackend):
        return Destination(gettext_noop("leaves over %(server)s"), {"server": f"{backend.host}:{backend.port}"})
    if isinstance(backend, SparkPostBackend):
        return Destination(
            gettext_noop("leaves over %(server)s"), {"server": f"SparkPost's HTTP API at {backend.host}"}
        )
    return Destination(gettext_noop("leaves over %(server)s"), {"server": _class_path(backend)})


def _class_path(backend: BaseEmailBackend) -> str:
    return f"{type(backend).__module__}.{type(backend).__qualname__}"


def destinations() -> dict[str, Destination]:
    """The :func:`destination` of each mail backend that the host has configured, by alias, the default one first."""
    mailers = getattr(settings, "MAILERS", {}) if django.VERSION >= (6, 1) else {}
    aliases = [*mailer_settings().FAILOVER, *mailer_settings().TRANSPORTS, *mailers]
    return {using: destination("" if using == "default" else using) for using in dict.fromkeys(["default", *aliases])}
