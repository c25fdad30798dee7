"""Checks of ``CONGRESSY_MAILER``, of the sender and reply-to, and of time zones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.utils.translation import gettext as _

from ..conf import default_reply_to, default_sender, describe_type, mailer_settings
from ..exceptions import InvalidAddress

Apps = Sequence[AppConfig] | None

# The URL of a server with a user and a password has an @ too.
_LIKE_AN_ADDRESS = re.compile(r"[^\s:/@]+@[^\s:/@]*")


@register("congressy_mailer")
def check_settings(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E001``: ``CONGRESSY_MAILER`` has an unknown key or an invalid value."""
    try:
        mailer_settings()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="congressy_mailer.E001")]
    return []


@register("congressy_mailer")
def check_addresses(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E004``: the sender is no address. ``congressy_mailer.E005``: the reply-to is no address."""
    from ..mime.addresses import normalise_address

    errors: list[CheckMessage] = []
    source = "CONGRESSY_EMAIL_SENDER" if getattr(settings, "CONGRESSY_EMAIL_SENDER", None) else "DEFAULT_FROM_EMAIL"
    try:
        normalise_address(default_sender(), source)
    except InvalidAddress as error:
        problem = _address_problem(source, default_sender(), error)
        errors.append(
            Error(
                _("No mail can be sent without a sender: %(error)s") % {"error": problem},
                hint=_(
                    'Set CONGRESSY_EMAIL_SENDER = "mail@example.com", with a domain that you have verified at your '
                    "provider."
                ),
                id="congressy_mailer.E004",
            )
        )
    address: object = None
    try:
        for address in default_reply_to():
            normalise_address(address, "CONGRESSY_REPLY_TO")
    except InvalidAddress as error:
        errors.append(Error(_address_problem("CONGRESSY_REPLY_TO", address, error), id="congressy_mailer.E005"))
    except TypeError:
        errors.append(
            Error(
                _("CONGRESSY_REPLY_TO must be an address or a list of addresses, not %(value)s.")
                % {"value": describe_type(settings.CONGRESSY_REPLY_TO)},
                id="congressy_mailer.E005",
            )
        )
    return errors


def _address_problem(setting: str, value: object, error: InvalidAddress) -> str:
    """What is wrong with an address; without its words where it may be something else in the wrong place."""
    if isinstance(value, str) and (not value or _LIKE_AN_ADDRESS.fullmatch(value)):
        return str(error)
    return _(
        "%(setting)s is not an address. Its type is %(type)s; the value is not shown, because it may be a secret."
    ) % {
        "setting": setting, "type": type(value).__name__,
    }  # fmt: skip


@register("congressy_mailer")
def check_time_zones(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E013``: ``USE_TZ`` is ``False``, or the database's time zone has daylight saving time."""
    if settings.USE_TZ:
        return _check_zone_of_database()
    return [
        Error(
            _("USE_TZ is False: the mailer compares times that have a time zone, so every sweep would fail."),
            hint=_("Set USE_TZ = True."),
            id="congressy_mailer.E013",
        )
    ]


def _check_zone_of_database() -> list[CheckMessage]:
    from ..models.transactions import database

    connection = connections[database()]
    zone = connection.timezone
    year = datetime.now(UTC).year
    moments = [datetime(year + later, month, 1, tzinfo=UTC) for later in (0, 1) for month in range(1, 13)]
    # Only where the database has no time zones itself: MariaDB, MySQL and SQLite.
    if zone is None or len({moment.astimezone(zone).utcoffset() for moment in moments}) == 1:
        return []
    return [
        Error(
            _(
                "DATABASES[%(alias)r]['TIME_ZONE'] is %(zone)s, which has daylight saving time: once a year an hour is "
                "stored twice, so that the lease of a mail that is being sent seems to have ended, and the mail is "
                "sent again."
            )
            % {"alias": connection.alias, "zone": zone},
            hint=_("Remove TIME_ZONE from the settings of this database, or set it to 'UTC'."),
            id="congressy_mailer.E013",
        )
    ]
