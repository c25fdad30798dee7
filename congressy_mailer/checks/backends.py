"""Checks of the mail backends: SMTP servers, failover, and the lease that must outlast them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import django
from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _

from ..conf import (
    describe_number,
    describe_type,
    import_problem,
    quote_name,
    quote_path,
    settings_if_valid,
)
from .mail_backends import mail_backends, smtp_servers
from .settings import Apps

# How often a client waits for a server while it hands over a mail to one recipient on a new connection: connecting,
# the greeting, EHLO, STARTTLS, the TLS handshake, EHLO, AUTH LOGIN (3), MAIL, RCPT, DATA, the content, its reply.
_ROUND_TRIPS = 14
# Without the content and its reply.
_ROUND_TRIPS_BEFORE_CONTENT = 12
_HTTP_BACKEND = "congressy_mailer.sparkpost.backend.EmailBackend"


@register("congressy_mailer")
def check_backends(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E014``: a mail backend cannot be imported, or its options are invalid.

    ``congressy_mailer.E015``: ``MAILERS`` has no ``"default"``.
    """
    errors: list[CheckMessage] = []
    if django.VERSION >= (6, 1) and "default" not in getattr(settings, "MAILERS", ["default"]):
        errors.append(
            Error(
                _('MAILERS has no "default": mail without using= would never be sent.'),
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
                    _("%(name)s is %(path)s, which cannot be imported: %(error)s")
                    % {
                        "name": backend.name,
                        "path": quote_path(backend.path),
                        "error": import_problem(backend.path, str(error)),
                    },
                    id="congressy_mailer.E014",
                )
            )
        if not isinstance(backend.options, Mapping):
            errors.append(
                Error(
                    _("%(name)s must be a dict, not %(value)s.")
                    % {"name": backend.options_name, "value": describe_type(backend.options)},
                    id="congressy_mailer.E014",
                )
            )
    errors += [
        Error(
            _("%(name)s must be a number of seconds above zero, not %(value)s.")
            % {"name": server.names["timeout"], "value": describe_number(server.timeout)},
            id="congressy_mailer.E014",
        )
        for server in smtp_servers()
        if not server.has_timeout
    ]
    return errors


@register("congressy_mailer")
def check_smtp(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E006``: TLS and SSL are both set. ``congressy_mailer.E007``: SparkPost's login is incomplete.

    ``congressy_mailer.E008``: SparkPost is used without STARTTLS.
    """
    from ..sparkpost import headers

    errors: list[CheckMessage] = []
    for server in smtp_servers():
        names, values = server.names, server.values
        if values["use_tls"] and values["use_ssl"]:
            errors.append(
                Error(
                    _("%(use_tls)s and %(use_ssl)s are both set: Django refuses to connect.") % names,
                    hint=_("SparkPost supports STARTTLS on ports 587 and 2525: keep %(use_tls)s.") % names,
                    id="congressy_mailer.E006",
                )
            )
        if not headers.HOST.search(str(values["host"])):
            continue
        if not (values["username"] and values["password"]):
            errors.append(
                Error(
                    _("%(host)s is SparkPost's, but %(username)s or %(password)s is empty.") % names,
                    hint=_('The user is SMTP_Injection, the password an API key with the permission "Send via SMTP".'),
                    id="congressy_mailer.E007",
                )
            )
        if not values["use_tls"]:
            errors.append(
                Error(
                    _(
                        "%(host)s is SparkPost's, but %(use_tls)s is not set: the API key would be sent unencrypted, "
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
    """``congressy_mailer.E017``: ``FAILOVER`` names a mail backend that does not exist."""
    conf = settings_if_valid()
    if conf is None:
        return []
    known = set(conf.TRANSPORTS)
    if django.VERSION >= (6, 1):
        known |= set(getattr(settings, "MAILERS", ()))
    return [
        Error(
            _(
                "CONGRESSY_MAILER['FAILOVER'] names %(alias)s, which is not the alias of a mail backend other than the "
                "default."
            )
            % {"alias": quote_name(alias)},
            hint=_("Use the aliases of %(where)s.")
            % {"where": "MAILERS" if django.VERSION >= (6, 1) else "CONGRESSY_MAILER['TRANSPORTS']"},
            id="congressy_mailer.E017",
        )
        for alias in conf.FAILOVER
        if alias not in known or alias == "default"
    ]


@register("congressy_mailer")
def check_interceptors(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E024``: one of ``INTERCEPTORS`` cannot be imported or is not callable: all mail would wait."""
    conf = settings_if_valid()
    errors: list[CheckMessage] = []
    for path in conf.INTERCEPTORS if conf is not None else ():
        try:
            problem = "" if callable(import_string(path)) else _("it is not callable")
        except Exception as error:
            problem = import_problem(path, str(error))
        if problem:
            errors.append(
                Error(
                    _("CONGRESSY_MAILER['INTERCEPTORS'] names %(path)s, which cannot be used: %(problem)s")
                    % {"path": quote_path(path), "problem": problem},
                    id="congressy_mailer.E024",
                )
            )
    return errors


@register("congressy_mailer")
def check_api_key(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E018``: a mail backend for SparkPost's HTTP API has no API key."""
    conf = settings_if_valid()
    if conf is None or conf.SPARKPOST_API_KEY is not None:
        return []
    return [
        Error(
            _("%(name)s sends over SparkPost's HTTP API, but no API key is set.") % {"name": backend.name},
            hint=_("Set CONGRESSY_MAILER['SPARKPOST_API_KEY'], or api_key in the OPTIONS of the backend."),
            id="congressy_mailer.E018",
        )
        for backend in mail_backends()
        if backend.path == _HTTP_BACKEND and isinstance(backend.options, Mapping) and not backend.options.get("api_key")
    ]


@register("congressy_mailer")
def check_lease(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E012``: ``LEASE`` is so short that another worker could take a message that is being sent."""
    conf = settings_if_valid()
    if conf is None:
        return []
    if conf.LEASE <= conf.TIME_LIMIT:
        return [
            Error(
                _(
                    "LEASE (%(lease)s) is not longer than TIME_LIMIT (%(limit)s): another worker could take a message "
                    "that is still being composed."
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
        # The lease is extended before the content leaves, where all recipients took long.
        recipients = server.timeout * _ROUND_TRIPS_BEFORE_CONTENT + conf.longest_envelope.total_seconds()
        longest = conf.TIME_SLICE + timedelta(seconds=max(server.timeout * _ROUND_TRIPS, recipients))
        if longest >= conf.LEASE:
            values = {
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
                    % values,
                    hint=_('Set CONGRESSY_MAILER["LEASE"] to more than %(longest)s, or shorten %(setting)s.') % values,
                    id="congressy_mailer.E012",
                )
            )
    return errors
