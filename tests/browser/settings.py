"""The demo's project, in the language that the browser asks for."""

from demo.project.settings import *  # noqa: F403

MIDDLEWARE.insert(2, "django.middleware.locale.LocaleMiddleware")  # noqa: F405
