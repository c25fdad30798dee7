"""The host project, as Celery's guide for Django describes one: it imports its Celery app, and nothing more."""

from .celery import app

__all__ = ["app"]
