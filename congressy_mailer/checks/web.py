"""Checks of what the site serves: the unsubscribe pages and SparkPost's webhook."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error, Warning, register
from django.urls import NoReverseMatch, reverse
from django.utils.translation import gettext as _

from ..conf import settings_if_valid
from .settings import Apps

# A guessed secret lets its finder suppress any address.
_MIN_SECRET_LENGTH = 16


@register("congressy_mailer")
def check_unsubscribe_links(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.W002``: ``SITE_URL`` is set, but ``congressy_mailer.urls`` are not included.

    ``congressy_mailer.W003``: ``LISTS`` are set, but ``SITE_URL`` is not.
    """
    conf = settings_if_valid()
    if conf is None:
        return []
    if conf.SITE_URL is None:
        if not conf.LISTS:
            return []
        return [
            Warning(
                _("Mail to LISTS has no unsubscribe link, because SITE_URL is not set."),
                hint=_('Set CONGRESSY_MAILER["SITE_URL"] = "https://www.example.com".'),
                id="congressy_mailer.W003",
            )
        ]
    try:
        reverse("congressy_mailer:unsubscribe", args=["token"])
    except NoReverseMatch:
        return [
            Warning(
                _("Mail has no unsubscribe link: SITE_URL is set, but the URLs do not include congressy_mailer.urls."),
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
    """``congressy_mailer.W004`` (``check --deploy``): ``SITE_URL`` is not https, which RFC 8058 §3.1 requires."""
    conf = settings_if_valid()
    if conf is None or conf.SITE_URL is None or conf.SITE_URL.startswith("https:"):
        return []
    return [
        Warning(
            _("SITE_URL does not begin with https: mail programs offer one-click unsubscription over HTTPS only."),
            hint=_('Set CONGRESSY_MAILER["SITE_URL"] = "https://www.example.com".'),
            id="congressy_mailer.W004",
        )
    ]


@register("congressy_mailer")
def check_webhook(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E019``: ``WEBHOOK_SECRETS`` are set, but ``congressy_mailer.urls`` are not included.

    ``congressy_mailer.W006``: the URLs and an API key are set, but ``WEBHOOK_SECRETS`` are not.
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
                _(
                    "WEBHOOK_SECRETS are set, but the URLs do not include congressy_mailer.urls: SparkPost cannot "
                    "deliver its events."
                ),
                hint=_('Add path("mailer/", include("congressy_mailer.urls")) to the URLs.'),
                id="congressy_mailer.E019",
            )
        ]
    if included and conf.SPARKPOST_API_KEY is not None and not conf.WEBHOOK_SECRETS:
        return [
            Warning(
                _(
                    "SparkPost's events are refused, because no WEBHOOK_SECRETS are set: bounces and complaints are "
                    "not recorded."
                ),
                hint=_('Set CONGRESSY_MAILER["WEBHOOK_SECRETS"] = ["basic sparkpost:A-LONG-PASSWORD"].'),
                id="congressy_mailer.W006",
            )
        ]
    return []


@register("congressy_mailer", deploy=True)
def check_webhook_secrets(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.W007`` (``check --deploy``): one of ``WEBHOOK_SECRETS`` is so short that it can be guessed."""
    conf = settings_if_valid()
    if conf is None or all(len(secret_part(secret)) >= _MIN_SECRET_LENGTH for secret in conf.WEBHOOK_SECRETS):
        return []
    return [
        Warning(
            _("One of WEBHOOK_SECRETS has fewer than %(length)d characters: it could be guessed.")
            % {"length": _MIN_SECRET_LENGTH},
            hint=_('Generate one with: python -c "import secrets; print(secrets.token_urlsafe())"'),
            id="congressy_mailer.W007",
        )
    ]


def secret_part(secret: str) -> str:
    """What is secret in one of ``WEBHOOK_SECRETS``: its password or token."""
    kind, _separator, value = secret.partition(" ")
    return value.partition(":")[2] if kind == "basic" else value
