"""System checks: faults of the configuration that would otherwise be found by mail that does not leave."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import django
from django.apps import AppConfig, apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import InvalidStorageError, storages
from django.template import engines
from django.urls import NoReverseMatch, reverse
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _

from ..broker.celery_app import find_celery_app
from ..conf import default_reply_to, default_sender, mailer_settings, settings_if_valid
from ..exceptions import InvalidAddress
from ..mime.addresses import normalise_address
from ..sparkpost import headers
from .mail_backends import mail_backends, smtp_servers

Apps = Sequence[AppConfig] | None

# How often a client waits for a server while it hands over a mail to one recipient on a new connection: connecting,
# the greeting, EHLO, STARTTLS, the TLS handshake, EHLO, AUTH LOGIN (3), MAIL, RCPT, DATA, the content, its reply.
_WAITS = 14
# Whoever guesses one decides who gets no more mail.
_SHORTEST_SECRET = 16
_HTTP_BACKEND = "congressy_mailer.sparkpost.backend.EmailBackend"
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
    """``congressy_mailer.E002``: no Celery app. ``congressy_mailer.E003``: no broker URL.

    ``congressy_mailer.E016``: workers would refuse JSON, which our tasks are published as.
    """
    if settings_if_valid() is None:
        return []
    try:
        app = find_celery_app()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="congressy_mailer.E002")]
    if app.conf.task_always_eager:
        return []
    errors: list[CheckMessage] = []
    if not app.conf.broker_write_url:
        errors.append(
            Error(
                _("The Celery app has no broker URL: mail would be stored, and never published."),
                hint=_(
                    'Set CELERY_BROKER_URL = "redis://localhost:6379/0" and let the app read Django\'s settings: '
                    'app.config_from_object("django.conf:settings", namespace="CELERY").'
                ),
                id="congressy_mailer.E003",
            )
        )
    if not {"json", "application/json"} & set(app.conf.accept_content or ()):
        errors.append(
            Error(
                _("CELERY_ACCEPT_CONTENT lacks JSON: the workers would refuse the ids of messages."),
                hint=_('Add "json" to CELERY_ACCEPT_CONTENT.'),
                id="congressy_mailer.E016",
            )
        )
    return errors


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
                _("No mail can be sent without a sender: %(error)s") % {"error": error},
                hint=_('Set CONGRESSY_EMAIL_SENDER = "mail@example.com", with a domain that your provider knows.'),
                id="congressy_mailer.E004",
            )
        )
    try:
        for address in default_reply_to():
            normalise_address(address, "CONGRESSY_REPLY_TO")
    except InvalidAddress as error:
        errors.append(Error(str(error), id="congressy_mailer.E005"))
    except TypeError:
        errors.append(
            Error(
                _("CONGRESSY_REPLY_TO must be an address or a list of addresses, not %(value)r.")
                % {"value": settings.CONGRESSY_REPLY_TO},
                id="congressy_mailer.E005",
            )
        )
    return errors


@register("congressy_mailer")
def check_time_zones(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E013``: ``USE_TZ`` is ``False``."""
    if settings.USE_TZ:
        return []
    return [
        Error(
            _("USE_TZ is False: times are compared with their time zones everywhere, and every sweep would fail."),
            hint=_("Set USE_TZ = True."),
            id="congressy_mailer.E013",
        )
    ]


@register("congressy_mailer")
def check_backends(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E014``: a mail backend cannot be made as it is configured.

    ``congressy_mailer.E015``: ``MAILERS`` has no ``"default"``.
    """
    errors: list[CheckMessage] = []
    if django.VERSION >= (6, 1) and "default" not in getattr(settings, "MAILERS", ["default"]):
        errors.append(
            Error(
                _('MAILERS has no "default": mail that is sent without using= would wait for ever.'),
                hint=_('Add "default" to MAILERS.'),
                id="congressy_mailer.E015",
            )
        )
    for backend in mail_backends():
        try:
            import_string(backend.path)
        except Exception as error:
            errors.append(
                Error(
                    _("%(name)s is %(path)r, which cannot be imported: %(error)s")
                    % {"name": backend.name, "path": backend.path, "error": error},
                    id="congressy_mailer.E014",
                )
            )
        if not isinstance(backend.options, Mapping):
            errors.append(
                Error(
                    _("%(name)s must be a dict, not %(value)r.")
                    % {"name": backend.options_name, "value": backend.options},
                    id="congressy_mailer.E014",
                )
            )
    errors += [
        Error(
            _("%(name)s must be a number of seconds above zero, not %(value)r.")
            % {"name": server.names["timeout"], "value": server.timeout},
            id="congressy_mailer.E014",
        )
        for server in smtp_servers()
        if not server.has_timeout
    ]
    return errors


@register("congressy_mailer")
def check_smtp(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E006``: TLS and SSL. ``congressy_mailer.E007``/``E008``: SparkPost without key, or TLS."""
    errors: list[CheckMessage] = []
    for server in smtp_servers():
        names, values = server.names, server.values
        if values["use_tls"] and values["use_ssl"]:
            errors.append(
                Error(
                    _("%(use_tls)s and %(use_ssl)s are both set: Django refuses to connect.") % names,
                    hint=_("SparkPost speaks STARTTLS on ports 587 and 2525: keep %(use_tls)s.") % names,
                    id="congressy_mailer.E006",
                )
            )
        if not headers.HOST.search(str(values["host"])):
            continue
        if not (values["username"] and values["password"]):
            errors.append(
                Error(
                    _("%(host)s is SparkPost's, but %(username)s or %(password)s is empty.") % names,
                    hint=_('The user is SMTP_Injection, the password an API key with "Send via SMTP".'),
                    id="congressy_mailer.E007",
                )
            )
        if not values["use_tls"]:
            errors.append(
                Error(
                    _(
                        "%(host)s is SparkPost's, but %(use_tls)s is not set: the API key would travel in the clear, "
                        "and SparkPost refuses the login."
                    )
                    % names,
                    hint=_("Set %(use_tls)s to True.") % names,
                    id="congressy_mailer.E008",
                )
            )
    return errors


@register("congressy_mailer")
def check_failover(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E017``: ``FAILOVER`` names a mail backend that there is not."""
    conf = settings_if_valid()
    if conf is None:
        return []
    known = set(conf.TRANSPORTS)
    if django.VERSION >= (6, 1):
        known |= set(getattr(settings, "MAILERS", ()))
    return [
        Error(
            _("CONGRESSY_MAILER['FAILOVER'] names %(alias)r, which is no mail backend beside the default one.")
            % {"alias": alias},
            hint=_("Name aliases of %(where)s.")
            % {"where": "MAILERS" if django.VERSION >= (6, 1) else "CONGRESSY_MAILER['TRANSPORTS']"},
            id="congressy_mailer.E017",
        )
        for alias in conf.FAILOVER
        if alias not in known or alias == "default"
    ]


@register("congressy_mailer")
def check_api_key(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E018``: a mail backend over SparkPost's HTTP API has no API key."""
    conf = settings_if_valid()
    if conf is None or conf.SPARKPOST_API_KEY is not None:
        return []
    return [
        Error(
            _("%(name)s sends over SparkPost's HTTP API, and there is no API key.") % {"name": backend.name},
            hint=_("Set CONGRESSY_MAILER['SPARKPOST_API_KEY'], or api_key in the OPTIONS of the backend."),
            id="congressy_mailer.E018",
        )
        for backend in mail_backends()
        if backend.path == _HTTP_BACKEND and isinstance(backend.options, Mapping) and not backend.options.get("api_key")
    ]


@register("congressy_mailer")
def check_lease(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E012``: a message could be given to another worker while the first is still sending it."""
    conf = settings_if_valid()
    if conf is None:
        return []
    if conf.LEASE <= conf.TIME_LIMIT:
        return [
            Error(
                _(
                    "LEASE (%(lease)s) is not longer than TIME_LIMIT (%(limit)s): a message that takes long to be "
                    "composed would be given to another worker meanwhile."
                )
                % {"lease": conf.LEASE, "limit": conf.TIME_LIMIT},
                hint=_("Make LEASE longer, or TIME_LIMIT shorter, in CONGRESSY_MAILER."),
                id="congressy_mailer.E012",
            )
        ]
    errors: list[CheckMessage] = []
    for server in smtp_servers():
        if not server.has_timeout:
            continue
        longest = conf.TIME_SLICE + timedelta(seconds=server.timeout * _WAITS)
        if longest >= conf.LEASE:
            told = {
                "lease": conf.LEASE, "longest": longest, "timeout": f"{server.timeout:g}",
                "setting": server.names["timeout"],
            }  # fmt: skip
            errors.append(
                Error(
                    _(
                        "LEASE (%(lease)s) is not longer than an exchange with a slow mail server can take "
                        "(%(longest)s, with %(timeout)s s in %(setting)s): another worker could send the same message "
                        "a second time."
                    )
                    % told,
                    hint=_('Set CONGRESSY_MAILER["LEASE"] to more than %(longest)s, or shorten %(setting)s.') % told,
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
                    _(
                        "The template %(path)s loads humanize, but django.contrib.humanize is not installed: mail made "
                        "with it would fail in the worker."
                    )
                    % {"path": path},
                    hint=_('Add "django.contrib.humanize" to INSTALLED_APPS.'),
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
            _(
                "CELERY_TASK_ALWAYS_EAGER is set outside development: each request would deliver its mail itself, wait "
                "for the mail server, and not try again."
            ),
            hint=_("Remove it from the settings of production."),
            id="congressy_mailer.E010",
        )
    ]


@register("congressy_mailer")
def check_attachment_storage(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E011``: the storage for attachments does not exist."""
    conf = settings_if_valid()
    if conf is None:
        return []
    alias = conf.ATTACHMENT_STORAGE
    try:
        storages[alias]
    except InvalidStorageError as error:
        return [
            Error(
                _("CONGRESSY_MAILER['ATTACHMENT_STORAGE'] names %(alias)r, which cannot be used: %(error)s")
                % {"alias": alias, "error": error},
                id="congressy_mailer.E011",
            )
        ]
    return []


@register("congressy_mailer", deploy=True)
def check_public_attachments(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.W001`` (``check --deploy``): attachments wait in a storage that may be public."""
    conf = settings_if_valid()
    if conf is None or check_attachment_storage(None):
        return []
    alias = conf.ATTACHMENT_STORAGE
    if not getattr(storages[alias], "base_url", None) or alias != "default":
        return []
    return [
        Warning(
            _("Attachments wait for the worker in the default storage, which has a public URL."),
            hint=_(
                'Add a storage without one to STORAGES, such as {"mail": {"BACKEND": '
                '"django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": "/srv/mail"}}}, and name it in '
                'CONGRESSY_MAILER["ATTACHMENT_STORAGE"].'
            ),
            id="congressy_mailer.W001",
        )
    ]


@register("congressy_mailer")
def check_links_to_leave(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.W002``: ``SITE_URL`` without our URLs. ``congressy_mailer.W003``: ``LISTS`` without it."""
    conf = settings_if_valid()
    if conf is None:
        return []
    if conf.SITE_URL is None:
        if not conf.LISTS:
            return []
        return [
            Warning(
                _("Mail of LISTS has no link to unsubscribe, since nobody says where the site is."),
                hint=_('Set CONGRESSY_MAILER["SITE_URL"] = "https://www.example.com".'),
                id="congressy_mailer.W003",
            )
        ]
    try:
        reverse("congressy_mailer:unsubscribe", args=["token"])
    except NoReverseMatch:
        return [
            Warning(
                _("Mail has no link to unsubscribe: SITE_URL is set, and the pages that links lead to are missing."),
                hint=_('Add path("mailer/", include("congressy_mailer.urls")) to the URLs.'),
                id="congressy_mailer.W002",
            )
        ]
    except Exception:
        # The URLs cannot be loaded, which Django has checks of its own for.
        return []
    return []


@register("congressy_mailer", deploy=True)
def check_site_is_secure(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.W004`` (``check --deploy``): ``SITE_URL`` is not https, as RFC 8058 §3.1 asks of the link."""
    conf = settings_if_valid()
    if conf is None or conf.SITE_URL is None or conf.SITE_URL.startswith("https:"):
        return []
    return [
        Warning(
            _("SITE_URL does not begin with https: mail programs offer no way to unsubscribe in one click then."),
            hint=_('Set CONGRESSY_MAILER["SITE_URL"] = "https://www.example.com".'),
            id="congressy_mailer.W004",
        )
    ]


@register("congressy_mailer")
def check_webhook(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E019``: ``WEBHOOK_SECRETS`` without our URLs.

    ``congressy_mailer.W006``: our URLs and an API key without ``WEBHOOK_SECRETS``.
    """
    conf = settings_if_valid()
    if conf is None:
        return []
    try:
        reverse("congressy_mailer:sparkpost-events")
        included = True
    except NoReverseMatch:
        included = False
    except Exception:
        # The URLs cannot be loaded, which Django has checks of its own for.
        return []
    if conf.WEBHOOK_SECRETS and not included:
        return [
            Error(
                _("WEBHOOK_SECRETS are set, and the URL is missing that SparkPost would post its events to."),
                hint=_('Add path("mailer/", include("congressy_mailer.urls")) to the URLs.'),
                id="congressy_mailer.E019",
            )
        ]
    if included and conf.SPARKPOST_API_KEY is not None and not conf.WEBHOOK_SECRETS:
        return [
            Warning(
                _("SparkPost's events are refused, since no WEBHOOK_SECRETS are set: nobody learns of bounces."),
                hint=_('Set CONGRESSY_MAILER["WEBHOOK_SECRETS"] = ["basic sparkpost:A-LONG-PASSWORD"].'),
                id="congressy_mailer.W006",
            )
        ]
    return []


@register("congressy_mailer", deploy=True)
def check_webhook_secrets(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.W007`` (``check --deploy``): one of ``WEBHOOK_SECRETS`` is so short that it can be guessed."""
    conf = settings_if_valid()
    if conf is None or all(len(_secret_part(secret)) >= _SHORTEST_SECRET for secret in conf.WEBHOOK_SECRETS):
        return []
    return [
        Warning(
            _("One of WEBHOOK_SECRETS has fewer than %(length)d characters: it could be guessed.")
            % {"length": _SHORTEST_SECRET},
            hint=_('Make one with: python -c "import secrets; print(secrets.token_urlsafe())"'),
            id="congressy_mailer.W007",
        )
    ]


def _secret_part(secret: str) -> str:
    kind, _separator, value = secret.partition(" ")
    return value.partition(":")[2] if kind == "basic" else value
