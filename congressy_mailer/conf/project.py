"""What the host's settings say before any test has changed them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings

from ..credentials import wrapped_settings

_transports: Mapping[Any, Any] = {}
_server: object = None


def remember_project() -> None:
    """Note it, once the app is loaded: what differs from it later is a test's own."""
    global _transports, _server
    configured = getattr(settings, "CONGRESSY_MAILER", None)
    transports = configured.get("TRANSPORTS") if isinstance(configured, Mapping) else None
    _transports = transports if isinstance(transports, Mapping) else {}
    _server = email_server()


def transport_of_project(alias: str) -> Any:
    """What ``TRANSPORTS`` had under this alias; ``None`` where it had nothing."""
    return _transports.get(alias)


def has_servers_of_project() -> bool:
    """Whether ``EMAIL_HOST`` and ``EMAIL_PORT`` are as they were."""
    return email_server() == _server


def email_server() -> object:
    """Host and port in ``EMAIL_*``; ``None`` where the host has ``MAILERS``, beside which Django does not read them."""
    if hasattr(settings, "MAILERS"):
        return None
    behind = wrapped_settings()
    return behind.EMAIL_HOST, behind.EMAIL_PORT
