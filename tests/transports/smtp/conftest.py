"""A mail server that an alias stands for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celery.signals import worker_process_shutdown

from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from tests.conftest import reset_throttling
from tests.support.transports import sparkpost_at


@pytest.fixture(autouse=True)
def no_learnt_limits() -> None:
    """What one test's server has refused says nothing of the next one's."""
    reset_throttling()


@pytest.fixture
def server(smtp_server: LocalSparkPost, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalSparkPost]:
    """A server that the alias ``sparkpost`` stands for."""
    for name, value in smtp_server.environment().items():
        monkeypatch.setenv(name, value)
    with sparkpost_at(smtp_server):
        yield smtp_server
    worker_process_shutdown.send(None)
