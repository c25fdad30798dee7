"""The host project, in which one system at a time is installed."""

from .celery import app

__all__ = ["app"]
