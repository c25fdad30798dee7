"""System checks: faults of the configuration that would otherwise be found by mail that does not leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext as _

from ..conf import default_reply_to, default_sender, mailer_settings
from ..exceptions import InvalidAddress
from ..mime.addresses import normalise_address

Apps = Sequence[AppConfig] | None


@register("congressy_mailer")
def check_settings(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E001``: ``CONGRESSY_MAILER`` has an unknown key or a wrong value."""
    try:
        mailer_settings()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="congressy_mailer.E001")]
    return []


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
