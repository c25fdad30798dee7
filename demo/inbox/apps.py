"""The app's configuration."""

from django.apps import AppConfig


class InboxConfig(AppConfig):
    """The inbox."""

    name = "demo.inbox"
    verbose_name = "Caixa de entrada"
