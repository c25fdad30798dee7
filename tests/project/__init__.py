"""A host project as Celery's guide for Django describes it, and nothing more."""

from .celery import app

__all__ = ["app"]
