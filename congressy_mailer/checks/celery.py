"""Checks of the host's Celery app."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext as _

from ..broker.celery_app import find_celery_app
from ..conf import settings_if_valid
from .settings import Apps


@register("congressy_mailer")
def check_broker(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E002``: there is no Celery app. ``congressy_mailer.E003``: it has no broker URL.

    ``congressy_mailer.E016``: ``CELERY_ACCEPT_CONTENT`` lacks JSON, in which the mailer's tasks are published.
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
                _("The Celery app has no broker URL: mail would be stored but never published."),
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


@register("congressy_mailer", deploy=True)
def check_eager(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E010`` (``check --deploy``): ``CELERY_TASK_ALWAYS_EAGER``: requests would wait for SMTP."""
    try:
        eager = find_celery_app().conf.task_always_eager
    except ImproperlyConfigured:
        return []
    if not eager or settings.DEBUG:
        return []
    return [
        Error(
            _(
                "CELERY_TASK_ALWAYS_EAGER is set outside development: each request would deliver its own mail, wait "
                "for the mail server, and retry nothing."
            ),
            hint=_("Remove it from the production settings."),
            id="congressy_mailer.E010",
        )
    ]
