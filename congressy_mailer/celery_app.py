"""Finding the host's Celery app, in whatever process asks for it."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from celery import Celery, _state
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from .conf import mailer_settings

_ADVICE = (
    'Set CONGRESSY_MAILER = {"CELERY_APP": "project.celery:app"}, or make the app in the module "celery" beside '
    "your settings and import it in that package's __init__.py, as Celery's guide for Django shows."
)


def find_celery_app() -> Celery:
    """The host's Celery app.

    Celery itself falls back on an app without configuration, which publishes to ``amqp://localhost`` where nobody
    listens; that one is never returned.

    Raises:
        django.core.exceptions.ImproperlyConfigured: there is none, or ``CELERY_APP`` does not name one.
    """
    configured = mailer_settings().CELERY_APP
    if configured:
        return _load(configured)
    app = _current_app()
    if app is not None:
        return app
    package = (settings.SETTINGS_MODULE or "").rpartition(".")[0] if settings.configured else ""
    for module in (f"{package}.celery", f"{package.rpartition('.')[0]}.celery"):
        if not module.startswith(".") and _exists(module):
            import_module(module)
            app = _current_app()
            if app is not None:
                return app
            return _load(f"{module}:app")
    raise ImproperlyConfigured(f"No Celery app was found. {_ADVICE}")


def _current_app() -> Celery | None:
    # Celery's own current_app() makes an app where there is none; these two only look.
    threads: Any = vars(_state)["_tls"]
    app: Celery | None = threads.current_app or vars(_state)["default_app"]
    if app is None or app.main == "default":
        return None
    return app


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _load(path: str) -> Celery:
    try:
        app = import_string(path.replace(":", "."))
    except ImportError as error:
        raise ImproperlyConfigured(f"The Celery app {path!r} cannot be imported: {error}. {_ADVICE}") from error
    if not isinstance(app, Celery):
        raise ImproperlyConfigured(f"{path!r} is a {type(app).__name__}, not a Celery app. {_ADVICE}")
    return app
