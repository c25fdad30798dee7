"""Checks of the mail backend that queues what Django sends: what is behind it, and who else uses it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.utils.translation import gettext as _

from ..conf import quote_name, settings_if_valid
from .mail_backends import backend_class
from .settings import Apps

_HANDLER = "django.utils.log.AdminEmailHandler"


@register("congressy_mailer")
def check_queue(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E023``: the backend that queues mail has no backend behind it, or another queueing one."""
    from ..transports.aliases import is_queue, mailers, target_of

    conf = settings_if_valid()
    if conf is None:
        return []
    aliases = ["" if mailers() is None else "default", *(mailers() or ()), *conf.TRANSPORTS]
    known = {*(mailers() or ()), *conf.TRANSPORTS}
    errors: list[CheckMessage] = []
    for alias in dict.fromkeys(aliases):
        if not is_queue(alias):
            continue
        target = target_of(alias)
        problem = None
        if not target:
            # EMAIL_* stand behind EMAIL_BACKEND.
            problem = _('its options have no "using"') if alias else None
        elif target not in known:
            problem = _("there is no %(target)s") % {"target": quote_name(target)}
        elif is_queue(target):
            problem = _("%(target)s queues mail as well") % {"target": quote_name(target)}
        if problem:
            errors.append(
                Error(
                    _(
                        "%(name)s queues mail and needs another backend to send it, but %(problem)s: no mail would "
                        "leave."
                    )
                    % {"name": _shown(alias), "problem": problem},
                    hint=_('Set "using" in its options to the alias of a backend that sends, such as %(path)s.')
                    % {"path": "django.core.mail.backends.smtp.EmailBackend"},
                    id="congressy_mailer.E023",
                )
            )
    errors += [
        Error(
            _("CONGRESSY_MAILER['FAILOVER'] names %(alias)s, which queues mail: no mail would leave.")
            % {"alias": quote_name(alias)},
            hint=_("Name the alias of a backend that sends."),
            id="congressy_mailer.E023",
        )
        for alias in conf.FAILOVER
        if is_queue(alias)
    ]
    return errors


def _shown(alias: str) -> str:
    from ..transports.aliases import mailers

    if not alias:
        return "EMAIL_BACKEND"
    setting = "MAILERS" if alias in (mailers() or ()) else "CONGRESSY_MAILER['TRANSPORTS']"
    return f"{setting}[{quote_name(alias)}]"


@register("congressy_mailer")
def check_error_mail(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.W009``: a ``LOGGING`` handler for error mail names a backend that queues mail."""
    return [
        Warning(
            _(
                "LOGGING['handlers'][%(handler)s] names a backend that queues mail. Error mail is sent directly and "
                "not queued, because the queue itself may have failed."
            )
            % {"handler": quote_name(handler)},
            hint=_("Name the backend that sends the queued mail, or none."),
            id="congressy_mailer.W009",
        )
        for handler in _handlers_that_queue()
    ]


def _handlers_that_queue() -> Iterator[str]:
    from ..transports.aliases import QueueingBackend, is_queue

    configured = settings.LOGGING.get("handlers", {}) if isinstance(settings.LOGGING, Mapping) else {}
    for name, handler in configured.items() if isinstance(configured, Mapping) else ():
        if not isinstance(handler, Mapping) or handler.get("class") != _HANDLER:
            continue
        alias, path = handler.get("using"), handler.get("email_backend")
        if isinstance(alias, str) and is_queue(alias):
            yield name
        elif path:
            found = backend_class(path)
            if found is not None and issubclass(found, QueueingBackend):
                yield name


@register("congressy_mailer")
def check_tenants(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.W010``: with django-tenants, the app is in the tenants' schemas, which no worker reads."""
    shared = getattr(settings, "SHARED_APPS", None)
    tenants = getattr(settings, "TENANT_APPS", None)
    if shared is None or tenants is None:
        return []
    names = ("congressy_mailer", "congressy_mailer.apps.CongressyMailerConfig")
    if not any(name in tenants for name in names) and any(name in shared for name in names):
        return []
    return [
        Warning(
            _("congressy_mailer must be in SHARED_APPS only: workers look for mail in the public schema and no other."),
            hint=_("Move it from TENANT_APPS to SHARED_APPS."),
            id="congressy_mailer.W010",
        )
    ]
