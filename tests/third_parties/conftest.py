"""A mail server, a broker and a worker that all tests of other people's apps share, and the site in each world."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as site_settings
from django.db import connection

from congressy_mailer.broker import publisher
from congressy_mailer.models import Message, State
from congressy_mailer.testing.local_sparkpost.certificate import Certificate
from congressy_mailer.testing.local_sparkpost.mailbox import ReceivedMail
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from congressy_mailer.transports import pool
from testbed.processes import Process
from testbed.redis_server import EmbeddedRedis
from tests.conftest import database_url, reset_throttling, wait_for
from tests.support.drop_in import SMTP, WORLDS, put_in_force


def pytest_configure(config: pytest.Config) -> None:
    """What other people's apps deprecate is theirs."""
    config.addinivalue_line("filterwarnings", "default::DeprecationWarning")
    config.addinivalue_line("filterwarnings", "default::PendingDeprecationWarning")


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture(scope="session")
def mail_server(certificate: Certificate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSparkPost]:
    with LocalSparkPost(directory=tmp_path_factory.mktemp("mailbox"), certificate=certificate) as server:
        yield server


@pytest.fixture(scope="session")
def worker(
    django_db_setup: None, django_db_blocker: Any, shared_redis: EmbeddedRedis, mail_server: LocalSparkPost,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Process]:  # fmt: skip
    """A real one, with the settings of the site."""
    with django_db_blocker.unblock():
        connection.ensure_connection()
        url = database_url()
    process = Process(
        "Celery worker",
        [sys.executable, "-m", "celery", "-A", "tests.project", "worker", "-c", "1", "-l", "INFO"],
        tmp_path_factory.mktemp("worker") / "worker.log",
        environment={
            "DJANGO_SETTINGS_MODULE": "tests.third_parties.settings",
            "MAILER_TEST_DIRECTORY": str(site_settings.SCRATCH),
            "MAILER_TEST_WORKER": "1",
            "DATABASE_URL": url,
            "BROKER_URL": shared_redis.url,
            "MAILER_TEST_SMTP_PORT": str(mail_server.port),
            "MAILER_TEST_SMTP_PASSWORD": mail_server.password,
            **mail_server.environment(),
        },
        directory=Path(__file__).parents[2],
    )
    process.wait_until(lambda: " ready." in process.output(), 60)
    yield process
    process.kill()


@pytest.fixture
def broker_url(shared_redis: EmbeddedRedis) -> str:
    """The broker of the worker that all share."""
    return shared_redis.url


@pytest.fixture(params=WORLDS)
def arrived(
    request: pytest.FixtureRequest, transactional_db: None, broker: str, worker: Process, mail_server: LocalSparkPost,
    settings: Any, monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., list[ReceivedMail]]]:  # fmt: skip
    """Wait for so many mails, with the queue in force in each way of configuring it; ``queued`` of them were stored."""
    for name, value in mail_server.environment().items():
        monkeypatch.setenv(name, value)
    options = {
        "host": "localhost", "port": mail_server.port, "username": "SMTP_Injection", "password": mail_server.password,
        "use_tls": True,
    }  # fmt: skip
    put_in_force(settings, request.param, SMTP, options)
    # Migrations make it, and the end of each test empties its table.
    from django.contrib.sites.models import Site

    Site.objects.get_or_create(pk=site_settings.SITE_ID, defaults={"domain": "example.com", "name": "example.com"})
    mail_server.mailbox.clear()

    def wait(count: int = 1, *, queued: int | None = None) -> list[ReceivedMail]:
        mails = mail_server.mailbox.wait_for(count, 60)
        expected = count if queued is None else queued
        wait_for(lambda: not Message.objects.exclude(state=State.SENT).exists(), 30, "recording them as sent")
        assert Message.objects.count() == expected
        return mails

    yield wait
    pool.close_connections()
    publisher.forget()
    reset_throttling()
