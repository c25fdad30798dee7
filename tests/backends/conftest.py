"""Mail backends behind the queue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from tests.support.drop_in import SMTP, WORLDS, Collecting, put_in_force


@pytest.fixture(params=WORLDS)
def server(
    request: pytest.FixtureRequest, smtp_server: LocalSparkPost, settings: Any, published: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> LocalSparkPost:  # fmt: skip
    """A mail server behind the queue, in each way of configuring it."""
    for name, value in smtp_server.environment().items():
        monkeypatch.setenv(name, value)
    put_in_force(
        settings, request.param, SMTP,
        {"host": "localhost", "port": smtp_server.port, "username": "SMTP_Injection", "password": smtp_server.password,
         "use_tls": True},
    )  # fmt: skip
    return smtp_server


@pytest.fixture
def collected(settings: Any, published: list[str]) -> Iterator[list[Any]]:
    """A backend behind the queue that looks into mails, and what it was given."""
    put_in_force(settings, WORLDS[-1], f"{Collecting.__module__}.Collecting", {})
    Collecting.mails.clear()
    yield Collecting.mails
    Collecting.mails.clear()
