"""Every setting of ``CONGRESSY_MAILER``: its name, default and meaning, in one dataclass.

``CONGRESSY_EMAIL_SENDER`` and ``CONGRESSY_REPLY_TO`` keep the names they have always had and stand beside it.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from .settings import LIST_ID, SUPPRESSION_RULES, MailerSettings
from .validation import describe_number, describe_type, import_problem, quote_name, quote_path, read_settings

_cached: MailerSettings | None = None


def mailer_settings() -> MailerSettings:
    """The settings in force.

    Raises:
        django.core.exceptions.ImproperlyConfigured: ``CONGRESSY_MAILER`` has an unknown key or a value of
            the wrong type; the message names it and, for a key, the nearest known one.
    """
    global _cached
    if _cached is None:
        _cached = read_settings(getattr(django_settings, "CONGRESSY_MAILER", {}))
    return _cached


def settings_if_valid() -> MailerSettings | None:
    """The settings in force; ``None`` where they cannot be read, which has a check of its own."""
    try:
        return mailer_settings()
    except ImproperlyConfigured:
        return None


def default_sender() -> str:
    """The sender of mail that names none: ``CONGRESSY_EMAIL_SENDER``, then Django's ``DEFAULT_FROM_EMAIL``."""
    return getattr(django_settings, "CONGRESSY_EMAIL_SENDER", None) or django_settings.DEFAULT_FROM_EMAIL


def default_reply_to() -> list[str]:
    """Where answers go unless the caller says otherwise: ``CONGRESSY_REPLY_TO``, one address or a list of them."""
    configured = getattr(django_settings, "CONGRESSY_REPLY_TO", None)
    if not configured:
        return []
    return [configured] if isinstance(configured, str) else list(configured)


def _clear_cache(*, setting: str, **kwargs: Any) -> None:
    global _cached
    if setting == "CONGRESSY_MAILER":
        _cached = None


setting_changed.connect(_clear_cache, dispatch_uid="congressy_mailer.conf")


__all__ = [
    "LIST_ID",
    "SUPPRESSION_RULES",
    "MailerSettings",
    "default_reply_to",
    "default_sender",
    "describe_number",
    "describe_type",
    "import_problem",
    "mailer_settings",
    "quote_name",
    "quote_path",
    "settings_if_valid",
]
