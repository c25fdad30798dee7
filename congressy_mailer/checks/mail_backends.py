"""The mail backends that the host has configured, wherever it has done so, as the checks want to know them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import django
from django.conf import settings
from django.utils.module_loading import import_string

from ..conf import quote_name, settings_if_valid

#: What ``MAILERS`` uses where no ``BACKEND`` is named.
_SMTP_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
#: Options of the SMTP backend, and the settings that stand for them outside ``MAILERS``.
_OPTIONS = {
    "host": "EMAIL_HOST",
    "username": "EMAIL_HOST_USER",
    "password": "EMAIL_HOST_PASSWORD",
    "use_tls": "EMAIL_USE_TLS",
    "use_ssl": "EMAIL_USE_SSL",
    "timeout": "EMAIL_TIMEOUT",
}


@dataclass(frozen=True, slots=True)
class MailBackend:
    """A mail backend as the host has configured it."""

    #: Name of the setting that names its class.
    name: str
    path: Any
    #: Name of the setting that holds its options, where there is one.
    options_name: str
    options: Any
    #: Whether options that are left out come from ``EMAIL_*``.
    uses_email_settings: bool


def mail_backends() -> Iterator[MailBackend]:
    """Every mail backend that a message may be sent through."""
    from ..transports.aliases import is_queue, target_of

    knows_mailers = django.VERSION >= (6, 1)
    mailers = getattr(settings, "MAILERS", None) if knows_mailers else None
    if mailers is None:
        yield MailBackend("EMAIL_BACKEND", settings.EMAIL_BACKEND, "", {}, uses_email_settings=True)
        if is_queue("") and not target_of(""):
            yield MailBackend("EMAIL_BACKEND", _SMTP_BACKEND, "", {}, uses_email_settings=True)
    else:
        yield from _backends_of("MAILERS", mailers, uses_email_settings=False)
    if conf := settings_if_valid():
        yield from _backends_of(
            "CONGRESSY_MAILER['TRANSPORTS']", conf.TRANSPORTS, uses_email_settings=not knows_mailers
        )


def _backends_of(setting: str, configured: Mapping[str, Any], *, uses_email_settings: bool) -> Iterator[MailBackend]:
    for alias, backend in configured.items() if isinstance(configured, Mapping) else ():
        if not isinstance(backend, Mapping):
            # Django refuses it, and so do our own settings.
            continue
        name = f"{setting}[{quote_name(alias)}]"
        yield MailBackend(
            f"{name}['BACKEND']", backend.get("BACKEND", _SMTP_BACKEND),
            f"{name}['OPTIONS']", backend.get("OPTIONS", {}), uses_email_settings,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class SMTPServer:
    """An SMTP server as the host has configured it."""

    #: Name of the setting of each option.
    names: dict[str, str]
    values: dict[str, Any]

    @property
    def timeout(self) -> Any:
        """Seconds that it may be silent."""
        from ..transports.host_backends import DEFAULT_TIMEOUT

        timeout = self.values["timeout"]
        return DEFAULT_TIMEOUT if timeout is None else timeout

    @property
    def has_timeout(self) -> bool:
        """Whether its timeout is one."""
        return isinstance(self.timeout, int | float) and self.timeout > 0


def smtp_servers() -> Iterator[SMTPServer]:
    """Every SMTP server in ``MAILERS`` (Django 6.1 and later), or the one of ``EMAIL_*``, and in ``TRANSPORTS``."""
    for backend in mail_backends():
        if not isinstance(backend.options, Mapping) or not _is_smtp_backend(backend.path):
            continue
        names = {option: f"{backend.options_name}[{option!r}]" for option in _OPTIONS}
        values = {option: backend.options.get(option) for option in _OPTIONS}
        for option, setting in _OPTIONS.items() if backend.uses_email_settings else ():
            if values[option] is None:
                values[option] = getattr(settings, setting)
                if values[option] or not backend.options_name:
                    names[option] = setting
        yield SMTPServer(names, values)


def _is_smtp_backend(path: Any) -> bool:
    from django.core.mail.backends.smtp import EmailBackend

    found = backend_class(path)
    return found is not None and issubclass(found, EmailBackend)


def backend_class(path: Any) -> type | None:
    """The class of a mail backend; ``None`` where it cannot be imported, which has a check of its own."""
    try:
        found = import_string(path)
    except Exception:
        return None
    return found if isinstance(found, type) else None
