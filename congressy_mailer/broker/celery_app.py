"""Finding the host's Celery app, in every kind of process."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from celery import Celery, _state
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from ..conf import import_problem, mailer_settings, quote_path

_ADVICE = (
    'Set CONGRESSY_MAILER = {"CELERY_APP": "project.celery:app"}, or make the app in the module "celery" beside '
    "your settings and import it in that package's __init__.py, as Celery's guide for Django shows."
)


def find_celery_app() -> Celery:
    """The host's Celery app: ``CELERY_APP``, else ``app`` in the ``celery`` module beside the settings, else Celery's.

    What Celery takes for the app may be a library's, and another one in each thread, so that comes last. Where there is
    none it makes one without configuration, which publishes to ``amqp://localhost`` where nobody listens; that one is
    never returned.

    Raises:
        django.core.exceptions.ImproperlyConfigured: there is none, ``CELERY_APP`` does not name one, or the module
            beside the settings cannot be imported.
    """
    configured = mailer_settings().CELERY_APP
    if configured:
        return _load(configured)
    app = _app_beside_the_settings() or _current_app()
    if app is None:
        raise ImproperlyConfigured(f"No Celery app was found. {_ADVICE}")
    return app


def _app_beside_the_settings() -> Celery | None:
    package = (settings.SETTINGS_MODULE or "").rpartition(".")[0] if settings.configured else ""
    for module in (f"{package}.celery", f"{package.rpartition('.')[0]}.celery"):
        if not module.startswith(".") and _exists(module):
            try:
                app = getattr(import_module(module), "app", None)
            except ImportError as error:
                raise ImproperlyConfigured(f"The module {module!r} cannot be imported: {error}. {_ADVICE}") from error
            if isinstance(app, Celery):
                return app
    return None


def _current_app() -> Celery | None:
    # Celery's own current_app() makes an app where there is none; these only look. The default one first, since all
    # threads share it.
    threads: Any = vars(_state)["_tls"]
    apps: list[Celery | None] = [vars(_state)["default_app"], threads.current_app]
    return next((app for app in apps if app is not None and app.main != "default"), None)


@cache
def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _load(path: str) -> Celery:
    try:
        app = import_string(path.replace(":", "."))
    except ImportError as error:
        problem = f"The Celery app {quote_path(path)} cannot be imported: {import_problem(path, str(error))}. {_ADVICE}"
        raise ImproperlyConfigured(problem) from None
    if not isinstance(app, Celery):
        raise ImproperlyConfigured(f"{quote_path(path)} is a {type(app).__name__}, not a Celery app. {_ADVICE}")
    return app
