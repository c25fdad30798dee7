"""What is measured: this project and its peers, a module each, in the order in which they take turns."""

from __future__ import annotations

from importlib import import_module

from .base import System

OURS = "congressy"
PEERS = ("celery_email", "post_office", "django_mailer", "plain_celery")
ALL = (OURS, *PEERS)


def system(key: str) -> System:
    """The system that a module of this package describes."""
    found: System = import_module(f"{__name__}.{key}").system
    return found
