"""System checks: faults of the configuration that would otherwise be found by mail that does not leave."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import InvalidStorageError, storages
from django.template import engines

from .celery_app import find_celery_app
from .conf import default_reply_to, default_sender, mailer_settings
from .content.addresses import normalise_address
from .exceptions import InvalidAddress
from .transports.django import DEFAULT_TIMEOUT

Apps = Sequence[AppConfig] | None

_SMTP_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
_SPARKPOST_HOST = re.compile(r"(^|\.)sparkpostmail\.com$", re.IGNORECASE)
# How often a client waits for a server while it hands over a mail to one recipient on a new connection: connecting,
# the greeting, EHLO, STARTTLS, the TLS handshake, EHLO, AUTH LOGIN (3), MAIL, RCPT, DATA, the content, its reply.
_WAITS = 14
_LOADS_HUMANIZE = re.compile(r"\{%\s*load\s[^%]*\bhumanize\b")


@register("congressy_mailer")
def check_settings(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E001``: ``CONGRESSY_MAILER`` has an unknown key or a wrong value."""
    try:
        mailer_settings()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="congressy_mailer.E001")]
    return []


@register("congressy_mailer")
def check_broker(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E002``: no Celery app. ``congressy_mailer.E003``: no broker URL."""
    try:
        app = find_celery_app()
    except ImproperlyConfigured as error:
        # A wrong CONGRESSY_MAILER has its own error.
        return [] if check_settings(None) else [Error(str(error), id="congressy_mailer.E002")]
    if app.conf.broker_write_url or app.conf.task_always_eager:
        return []
    return [
        Error(
            "The Celery app has no broker URL: mail would be stored, and never published.",
            hint='Set CELERY_BROKER_URL = "redis://localhost:6379/0" and let the app read Django\'s settings: '
            'app.config_from_object("django.conf:settings", namespace="CELERY").',
            id="congressy_mailer.E003",
        )
    ]


@register("congressy_mailer")
def check_addresses(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E004``: the sender is not an address. ``congressy_mailer.E005``: the reply-to is not."""
    errors: list[CheckMessage] = []
    source = "CONGRESSY_EMAIL_SENDER" if getattr(settings, "CONGRESSY_EMAIL_SENDER", None) else "DEFAULT_FROM_EMAIL"
    try:
        normalise_address(default_sender(), source)
    except InvalidAddress as error:
        errors.append(
            Error(
                f"No mail can be sent without a sender: {error}",
                hint='Set CONGRESSY_EMAIL_SENDER = "mail@example.com", with a domain that your provider knows.',
                id="congressy_mailer.E004",
            )
        )
    for address in default_reply_to():
        try:
            normalise_address(address, "CONGRESSY_REPLY_TO")
        except InvalidAddress as error:
            errors.append(Error(str(error), id="congressy_mailer.E005"))
    return errors


@dataclass(frozen=True, slots=True)
class _SMTPServer:
    """An SMTP server as the host has configured it."""

    #: Name of a setting by its name in ``MAILERS``.
    names: dict[str, str]
    host: str
    user: str
    password: str
    use_tls: bool
    use_ssl: bool
    #: Seconds that it may be silent.
    timeout: float


def _smtp_server(names: dict[str, str], values: list[Any]) -> _SMTPServer:
    host, user, password, use_tls, use_ssl, timeout = values
    return _SMTPServer(
        names, host or "", user or "", password or "", bool(use_tls), bool(use_ssl), timeout or DEFAULT_TIMEOUT
    )


def _smtp_servers() -> Iterator[_SMTPServer]:
    """Every SMTP server in ``MAILERS`` (Django 6.1 and later), or the one of ``EMAIL_*``."""
    mailers = getattr(settings, "MAILERS", None)
    options = ("host", "username", "password", "use_tls", "use_ssl", "timeout")
    if mailers is None:
        if settings.EMAIL_BACKEND != _SMTP_BACKEND:
            return
        ours = (
            "EMAIL_HOST", "EMAIL_HOST_USER", "EMAIL_HOST_PASSWORD", "EMAIL_USE_TLS", "EMAIL_USE_SSL", "EMAIL_TIMEOUT",
        )  # fmt: skip
        yield _smtp_server(dict(zip(options, ours, strict=True)), [getattr(settings, name) for name in ours])
        return
    for alias, mailer in mailers.items():
        if mailer.get("BACKEND", _SMTP_BACKEND) == _SMTP_BACKEND:
            given = mailer.get("OPTIONS", {})
            names = {option: f"MAILERS[{alias!r}]['OPTIONS'][{option!r}]" for option in options}
            yield _smtp_server(names, [given.get(option) for option in options])


@register("congressy_mailer")
def check_smtp(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E006``: TLS and SSL. ``congressy_mailer.E007``/``E008``: SparkPost without key, or TLS."""
    errors: list[CheckMessage] = []
    for server in _smtp_servers():
        names = server.names
        if server.use_tls and server.use_ssl:
            errors.append(
                Error(
                    f"{names['use_tls']} and {names['use_ssl']} are both set: Django refuses to connect.",
                    hint=f"SparkPost speaks STARTTLS on ports 587 and 2525: keep {names['use_tls']}.",
                    id="congressy_mailer.E006",
                )
            )
        if not _SPARKPOST_HOST.search(server.host):
            continue
        if not (server.user and server.password):
            errors.append(
                Error(
                    f"{names['host']} is SparkPost's, but {names['username']} or {names['password']} is empty.",
                    hint='The user is SMTP_Injection, the password an API key with "Send via SMTP".',
                    id="congressy_mailer.E007",
                )
            )
        if not server.use_tls:
            errors.append(
                Error(
                    f"{names['host']} is SparkPost's, but {names['use_tls']} is not set: the API key would travel "
                    "in the clear, and SparkPost refuses the login.",
                    hint=f"Set {names['use_tls']} to True.",
                    id="congressy_mailer.E008",
                )
            )
    return errors


@register("congressy_mailer")
def check_lease(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E012``: a message could be given to another worker while the first is still sending it."""
    try:
        conf = mailer_settings()
    except ImproperlyConfigured:
        return []
    if conf.LEASE <= conf.TIME_LIMIT:
        return [
            Error(
                f"LEASE ({conf.LEASE}) is not longer than TIME_LIMIT ({conf.TIME_LIMIT}): a message that takes long to "
                "be composed would be given to another worker meanwhile.",
                hint="Make LEASE longer, or TIME_LIMIT shorter, in CONGRESSY_MAILER.",
                id="congressy_mailer.E012",
            )
        ]
    errors: list[CheckMessage] = []
    for server in _smtp_servers():
        longest = conf.TIME_SLICE + timedelta(seconds=server.timeout * _WAITS)
        if longest >= conf.LEASE:
            errors.append(
                Error(
                    f"LEASE ({conf.LEASE}) is not longer than an exchange with a slow mail server can take ({longest}, "
                    f"with {server.timeout:g} s in {server.names['timeout']}): another worker could send the "
                    "same message a second time.",
                    hint=f'Set CONGRESSY_MAILER["LEASE"] to more than {longest}, or shorten {server.names["timeout"]}.',
                    id="congressy_mailer.E012",
                )
            )
    return errors


@register("congressy_mailer", Tags.templates)
def check_humanize(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E009``: a template loads ``humanize``, and ``django.contrib.humanize`` is not installed."""
    if apps.is_installed("django.contrib.humanize"):
        return []
    for path in _template_files():
        if _LOADS_HUMANIZE.search(path.read_text(errors="ignore")):
            return [
                Error(
                    f"The template {path} loads humanize, but django.contrib.humanize is not installed: "
                    "mail made with it would fail in the worker.",
                    hint='Add "django.contrib.humanize" to INSTALLED_APPS.',
                    id="congressy_mailer.E009",
                )
            ]
    return []


def _template_files() -> Iterator[Path]:
    for engine in engines.all():
        for folder in getattr(engine, "template_dirs", ()):
            for path in Path(folder).rglob("*"):
                if path.suffix in {".html", ".txt"} and path.is_file():
                    yield path


@register("congressy_mailer", deploy=True)
def check_eager(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E010`` (``check --deploy``): tasks run in the web process, and each request waits for SMTP."""
    try:
        eager = find_celery_app().conf.task_always_eager
    except ImproperlyConfigured:
        return []
    if not eager or settings.DEBUG:
        return []
    return [
        Error(
            "CELERY_TASK_ALWAYS_EAGER is set outside development: each request would deliver its mail itself, wait "
            "for the mail server, and not try again.",
            hint="Remove it from the settings of production.",
            id="congressy_mailer.E010",
        )
    ]


@register("congressy_mailer")
def check_attachment_storage(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E011``: the storage for attachments does not exist."""
    try:
        alias = mailer_settings().ATTACHMENT_STORAGE
    except ImproperlyConfigured:
        return []
    try:
        storages[alias]
    except InvalidStorageError as error:
        return [
            Error(
                f"CONGRESSY_MAILER['ATTACHMENT_STORAGE'] names {alias!r}, which cannot be used: {error}",
                id="congressy_mailer.E011",
            )
        ]
    return []


@register("congressy_mailer", deploy=True)
def check_public_attachments(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.W001`` (``check --deploy``): attachments wait in a storage that may be public."""
    if check_attachment_storage(None) or check_settings(None):
        return []
    alias = mailer_settings().ATTACHMENT_STORAGE
    if not getattr(storages[alias], "base_url", None) or alias != "default":
        return []
    return [
        Warning(
            "Attachments wait for the worker in the default storage, which has a public URL.",
            hint='Add a storage without one to STORAGES, such as {"mail": {"BACKEND": '
            '"django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": "/srv/mail"}}}, and name it in '
            'CONGRESSY_MAILER["ATTACHMENT_STORAGE"].',
            id="congressy_mailer.W001",
        )
    ]
