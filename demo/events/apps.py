"""The app's configuration."""

from django.apps import AppConfig


class EventsConfig(AppConfig):
    """Events and registrations."""

    name = "demo.events"
    verbose_name = "Eventos"
