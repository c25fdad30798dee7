"""A mail server that is there or not, and time that is put forward."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.utils import timezone

from congressy_mailer.signals import transport_available, transport_unavailable
from tests.support.availability import Clock, Other, Server


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time that can be put forward."""
    clock = Clock()
    monkeypatch.setattr(timezone, "now", clock.now)
    return clock


@pytest.fixture
def server(settings: Any, published: list[str]) -> type[Server]:
    """The default backend's server, well at first. Only workers and servers are under test: nothing is published."""
    settings.EMAIL_BACKEND = f"{Server.__module__}.Server"
    settings.CONGRESSY_MAILER = {"TRANSPORTS": {"other": {"BACKEND": f"{Other.__module__}.Other"}}}
    for kind in (Server, Other):
        kind.away, kind.unconfigured, kind.opened, kind.at_open = "", set(), 0, staticmethod(lambda: None)
        kind.subjects.clear()
    return Server


@pytest.fixture
def told() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """The signals that were sent of servers lost and found."""
    received: list[tuple[str, dict[str, Any]]] = []

    def lost(signal: Any, sender: type, **arguments: Any) -> None:
        received.append(("unavailable", arguments))

    def found(signal: Any, sender: type, **arguments: Any) -> None:
        received.append(("available", arguments))

    transport_unavailable.connect(lost)
    transport_available.connect(found)
    yield received
    transport_unavailable.disconnect(lost)
    transport_available.disconnect(found)
