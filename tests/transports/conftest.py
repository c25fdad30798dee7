"""A mail server that answers as a test says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.test import override_settings

from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost


@pytest.fixture(scope="module")
def only_server() -> Iterator[LocalSparkPost]:
    """One server for all: what a test leaves behind in it would show in the next one."""
    with LocalSparkPost() as server:
        yield server


@pytest.fixture
def server(only_server: LocalSparkPost, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalSparkPost]:
    """A server that is well, and that this process is configured for."""
    for name, value in only_server.environment().items():
        monkeypatch.setenv(name, value)
    only_server.script = None
    only_server.mailbox.clear()
    with override_settings(
        EMAIL_BACKEND="django.core.mail.backends.smtp.EmailBackend",
        EMAIL_PORT=only_server.port,
        EMAIL_HOST_PASSWORD=only_server.password,
    ):
        yield only_server
