"""The mail backends that the host has configured, as it configured them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import django
from django.conf import settings
from django.core.mail import get_connection
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.locmem import EmailBackend as LocmemBackend
from django.core.mail.backends.smtp import EmailBackend as SmtpBackend
from django.utils.module_loading import import_string

from ..conf import import_problem, mailer_settings
from ..credentials import remember_those_of
from ..exceptions import TransportUnavailable
from ..replies import error_text
from ..sparkpost.backend import EmailBackend as SparkPostBackend
from .aliases import backend_path, collects_for_tests, delivery_alias, mailers

# RFC 5321 §4.5.3.2 and SparkPost's "SMTP and REST API Injection Best Practices" ask for at least a minute.
# Django's default is none: a silent server would hold a worker for ever.
#: Seconds that a server may be silent where the host has set no timeout.
DEFAULT_TIMEOUT = 60


def open_backend(using: str) -> BaseEmailBackend:
    """The host's mail backend.

    Args:
        using: alias in ``MAILERS`` (Django 6.1 and later) or ``CONGRESSY_MAILER["TRANSPORTS"]``; empty: the
            default one.

    Raises:
        TransportUnavailable: there is no such alias, or its backend cannot be made.
    """
    unavailable: TransportUnavailable | None = None
    try:
        backend = _make_backend(using)
    except TransportUnavailable:
        raise
    except Exception as error:
        path = _configured_path(using)
        problem = error_text(error) if path is None else import_problem(path, error_text(error))
        unavailable = TransportUnavailable(f"The mail backend {using or 'default'!r} cannot be made: {problem}")
    if unavailable is not None:
        # Without the cause: its frames hold the password.
        raise unavailable
    remember_those_of(backend)
    if getattr(backend, "timeout", DEFAULT_TIMEOUT) is None:
        backend.timeout = DEFAULT_TIMEOUT  # type: ignore[attr-defined]
    if fails_silently(backend):
        # Silence would leave the worker to guess what became of a mail.
        backend.fail_silently = False
    return backend


def knows_sparkpost(using: str) -> bool:
    """Whether mail over an alias may have SparkPost's options: over SMTP and over SparkPost's API.

    Any other backend is a provider's, and reads what its own users set.

    Args:
        using: an alias; empty: the default one.
    """
    try:
        alias = delivery_alias(using)
        found = SmtpBackend if alias is None else import_string(backend_path(alias))
    except Exception:
        # A wrong alias or path is reported where the backend is made.
        return False
    return isinstance(found, type) and issubclass(found, (SmtpBackend, SparkPostBackend))


def fails_silently(backend: BaseEmailBackend) -> bool:
    # Not the attribute of Django's base class, which is deprecated.
    return bool(vars(backend).get("fail_silently"))


def _make_backend(using: str) -> BaseEmailBackend:
    alias = delivery_alias(using)
    transports = mailer_settings().TRANSPORTS
    # As MAILERS makes its own: get_connection() is deprecated there, and refuses once MAILERS is set.
    named: dict[str, Any] = {"alias": alias} if django.VERSION >= (6, 1) else {}
    if alias is None:
        return LocmemBackend(**named) if collects_for_tests(None) else SmtpBackend(**named)
    if alias in transports and alias not in (mailers() or ()):
        if collects_for_tests(alias):
            return LocmemBackend(**named)
        path, options = transports[alias]["BACKEND"], transports[alias].get("OPTIONS", {})
        if not named:
            return get_connection(path, **options)
        return cast(BaseEmailBackend, import_string(path)(**named, **options))
    if not named:
        if alias:
            raise KeyError(alias)
        return get_connection()
    from django.core.mail import mailers as configured

    backend: BaseEmailBackend = configured[alias or "default"]
    return backend


def _configured_path(using: str) -> object:
    """What stands in ``BACKEND``; ``None`` where nothing does."""
    if mailers() is None and not using:
        return settings.EMAIL_BACKEND
    found = (mailers() or {}).get(using or "default") or mailer_settings().TRANSPORTS.get(using)
    return found.get("BACKEND") if isinstance(found, Mapping) else None
