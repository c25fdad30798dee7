"""The destination of a mail backend, derived from its configuration: for the worker's log and the checks."""

from __future__ import annotations

from dataclasses import dataclass

import django
from django.conf import settings
from django.core.mail.backends import console, dummy, filebased, locmem, smtp
from django.core.mail.backends.base import BaseEmailBackend

from ..conf import mailer_settings
from ..exceptions import TransportUnavailable
from ..sparkpost.backend import EmailBackend as SparkPostBackend
from .django_backend import open_backend

#: Backends of Django's that reach nobody, and what becomes of their mail. One that derives from another stands first.
_REACHES_NOBODY: dict[type[BaseEmailBackend], str] = {
    filebased.EmailBackend: "only written to files",
    console.EmailBackend: "only printed",
    locmem.EmailBackend: "only kept in memory",
    dummy.EmailBackend: "thrown away",
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

    #: For people, after "mail": "leaves over smtp.example.com:587". Never a user or password.
    text: str
    #: Whether it can reach a recipient.
    is_real: bool = True


def destination(using: str) -> Destination:
    """Where mail over a backend goes.

    Args:
        using: as in :func:`.django_backend.open_backend`.
    """
    try:
        backend = open_backend(using)
    except TransportUnavailable:
        # Its words may repeat an option. The first mail and `manage.py check` say more.
        return Destination("cannot leave: its backend cannot be made as it is configured", is_real=False)
    if fate := fate_of_mail(type(backend)):
        return Destination(f"is {fate}, and reaches nobody: {_class_path(backend)}", is_real=False)
    if isinstance(backend, smtp.EmailBackend):
        return Destination(f"leaves over {backend.host}:{backend.port}")
    if isinstance(backend, SparkPostBackend):
        return Destination(f"leaves over SparkPost's HTTP API at {backend.host}")
    return Destination(f"leaves over {_class_path(backend)}")


def _class_path(backend: BaseEmailBackend) -> str:
    return f"{type(backend).__module__}.{type(backend).__qualname__}"


def destinations() -> dict[str, Destination]:
    """The :func:`destination` of each mail backend that the host has configured, by alias, the default one first."""
    mailers = getattr(settings, "MAILERS", {}) if django.VERSION >= (6, 1) else {}
    aliases = [*mailer_settings().FAILOVER, *mailer_settings().TRANSPORTS, *mailers]
    return {using: destination("" if using == "default" else using) for using in dict.fromkeys(["default", *aliases])}
