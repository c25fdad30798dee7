"""What the tests stand on: a real Redis, a real mail server, real worker processes, each on a free port."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import hypothesis
import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.utils import translation

from congressy_mailer import credentials, outbox, throttling
from congressy_mailer.broker import publisher
from congressy_mailer.delivery import call_sizes, sending_rate, sweep
from congressy_mailer.metrics import counting
from congressy_mailer.testing.local_sparkpost.certificate import Certificate, make_certificate
from congressy_mailer.testing.local_sparkpost.posting import PostingOptions
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from congressy_mailer.testing.local_sparkpost.whole import WholeSparkPost
from congressy_mailer.transports import pool
from congressy_mailer.transports.smtp.pipelining import forget_restrictions
from testbed.processes import Process
from testbed.redis_server import EmbeddedRedis
from tests.project.celery import app
from tests.support import cleaning
from tests.support.forked import ModuleProcess
from tests.support.fuzzing import examples
from tests.support.scripted_https import ScriptedHttps

_R = TypeVar("_R")


def wait_for(condition: Callable[[], Any], seconds: float = 30, what: str = "the condition") -> Any:
    """Wait until a condition holds, and return its value; fail when it does not within the time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {seconds:.0f} s")
        time.sleep(0.02)
    return value


def run_concurrently(work: Callable[[int], _R], workers: int = 4) -> list[_R]:
    """Do something in several threads at the same moment, each with a database connection of its own.

    Args:
        work: what; it is given its thread's number, from 0.
        workers: how many threads.

    Returns:
        What each has returned.
    """
    barrier = threading.Barrier(workers)

    def begin(worker: int) -> _R:
        try:
            connection.ensure_connection()
            barrier.wait(20)
            return work(worker)
        finally:
            connection.close()

    with ThreadPoolExecutor(workers) as threads:
        return list(threads.map(begin, range(workers)))


@pytest.fixture(autouse=True)
def _servers_are_new() -> None:
    """What a test has learnt about a mail server, and what it has counted, says nothing of the next test's."""
    forget_restrictions()
    sending_rate.forget_rates()
    call_sizes.forget()
    counting._pending.take()
    outbox.forget_pauses()
    sweep.look_at_sweep_again()
    # The passwords of a thousand servers would make every text slow to look through.
    credentials.forget()


# Where a test does not say how many; and never by the clock, which a busy machine would fail.
hypothesis.settings.register_profile("suite", max_examples=examples(100), deadline=None)
hypothesis.settings.load_profile("suite")

cleaning.install()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """All property tests are marked, so that ``make fuzz`` finds them; what is RabbitMQ's alone is run on it alone."""
    for item in items:
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker("fuzz")
    if not os.environ.get("BROKER_URL", "").startswith("amqp"):
        elsewhere = [item for item in items if item.get_closest_marker("rabbitmq")]
        config.hook.pytest_deselected(items=elsewhere)
        items[:] = [item for item in items if item not in elsewhere]


def pytest_collection_finish() -> None:
    # Some hundred thousand objects that stay until the end: to look through them again and again took a sixth of the
    # time of the tests.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome: Any = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which CI does not allow: {report.longrepr}"


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Nothing is published; what would be is named here."""
    names: list[str] = []

    def send(task: str, *arguments: Any, **options: Any) -> bool:
        names.append(task.rpartition(".")[2])
        return True

    monkeypatch.setattr("congressy_mailer.broker.sending.send", send)
    return names


@pytest.fixture
def english() -> Iterator[None]:
    """The tests' own project speaks Portuguese."""
    with translation.override("en"):
        yield


@pytest.fixture
def support(client: Client) -> Client:
    """The browser of somebody who may do everything in the admin."""
    client.force_login(User.objects.create_superuser("support"))
    return client


@pytest.fixture
def redis_server() -> Iterator[EmbeddedRedis]:
    """A Redis of the test's own."""
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
def broker_url(request: pytest.FixtureRequest) -> str:
    """The broker: the one in ``BROKER_URL``, else a Redis of the test's own."""
    given = os.environ.get("BROKER_URL")
    return given or request.getfixturevalue("redis_server").url


@pytest.fixture
def celery_settings() -> Iterator[Callable[..., None]]:
    """Change settings of the host's Celery app until the test ends."""
    saved: dict[str, Any] = {}

    def update(values: dict[str, Any]) -> None:
        # Before Celery 5.7, what comes from Django's settings goes before the plain name.
        app.conf.update(values | {f"CELERY_{name.upper()}": value for name, value in values.items()})

    def change(**values: Any) -> None:
        for name in values:
            saved.setdefault(name, app.conf.get(name))
        update(values)

    yield change
    update(saved)


@pytest.fixture
def broker(broker_url: str, celery_settings: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> str:
    """Have this process publish to the test's broker."""
    celery_settings(broker_url=broker_url, broker_write_url=broker_url, broker_read_url=broker_url)
    monkeypatch.setattr(publisher, "_publisher", publisher._Publisher())
    reset_throttling()
    return broker_url


def reset_throttling() -> None:
    """As in a process that has just begun: what it has agreed on with others was agreed on over another broker."""
    throttling.store_choice.limit_stores._reset()
    throttling.limiter._rate_limiters.clear()
    throttling.connection_slots.forget_refusals()


@pytest.fixture
def smtp_server(tmp_path: Path) -> Iterator[LocalSparkPost]:
    """A server that speaks as SparkPost does."""
    with LocalSparkPost(directory=tmp_path / "mailbox") as server:
        yield server
        # Those that this process has kept open.
        pool.close_connections()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for servers on this machine."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def sparkpost_api(certificate: Certificate, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedHttps]:
    """SparkPost's HTTP API as far as a test scripts it; the settings name it."""
    # The client trusts what its environment names, as on a host's machine.
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.authority))
    with ScriptedHttps(certificate) as server:
        settings.CONGRESSY_MAILER = {
            **settings.CONGRESSY_MAILER,
            "SPARKPOST_API_KEY": "an-api-key-of-sparkpost",
            "SPARKPOST_API_HOST": server.host,
        }
        yield server


@pytest.fixture
def local_sparkpost(
    certificate: Certificate, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WholeSparkPost]:
    """A whole SparkPost, of which the settings know: SMTP relay, HTTP API, and events once a webhook is registered."""
    with WholeSparkPost(certificate=certificate, posting=PostingOptions(every=0.05, retry_after=0.05)) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        smtp = {
            "host": server.smtp.host,
            "port": server.smtp.port,
            "username": server.smtp.user,
            "password": server.account.key,
            "use_tls": True,
        }
        if hasattr(settings, "MAILERS"):
            settings.MAILERS = {
                **settings.MAILERS,
                "default": {"BACKEND": "django.core.mail.backends.smtp.EmailBackend", "OPTIONS": smtp},
            }
        else:
            # The test runner has put another one in its place.
            settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
            settings.EMAIL_HOST, settings.EMAIL_PORT = smtp["host"], smtp["port"]
            settings.EMAIL_HOST_PASSWORD = smtp["password"]
        settings.CONGRESSY_MAILER = {
            **settings.CONGRESSY_MAILER,
            "SPARKPOST_HEADER": "always",
            "SPARKPOST_API_KEY": server.account.key,
            "SPARKPOST_API_HOST": server.api.address,
        }
        yield server
        pool.close_connections()


@pytest.fixture
def start_worker(broker: str, smtp_server: LocalSparkPost, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start real workers on the test's database, broker and mail server: of the code here, or in another ``directory``,
    by ``celery`` or another ``program`` that is one."""
    workers: list[Process] = []

    def start(
        *arguments: str, directory: Path = Path(__file__).parent.parent, program: str = "celery", **environment: str
    ) -> Process:
        worker = ModuleProcess(
            "Celery worker",
            program,
            ["-A", "tests.project", "worker", "-c", "2", "-l", "INFO", "-n", f"worker{len(workers)}@%h", *arguments],
            tmp_path / f"worker{len(workers)}.log",
            environment={
                "DJANGO_SETTINGS_MODULE": "tests.settings",
                "MAILER_TEST_DIRECTORY": str(settings.SCRATCH),
                "MAILER_TEST_WORKER": "1",
                "DATABASE_URL": database_url(),
                "BROKER_URL": broker,
                "MAILER_TEST_SMTP_PORT": str(smtp_server.port),
                "MAILER_TEST_SMTP_PASSWORD": smtp_server.password,
                **smtp_server.environment(),
                **environment,
            },
            directory=directory,
        )
        workers.append(worker)
        worker.wait_until(lambda: " ready." in worker.output(), 30)
        return worker

    yield start
    for worker in workers:
        # A stop in order takes seconds, and is what some tests are about.
        worker.kill()


def database_url() -> str:
    """The database of this test run, as another process finds it."""
    values = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite://{values['NAME']}"
    scheme = {"postgresql": "postgresql", "mysql": "mysql"}[connection.vendor]
    login = f"{values['USER']}:{values['PASSWORD']}@" if values["PASSWORD"] else f"{values['USER']}@"
    return f"{scheme}://{login}{values['HOST']}:{values['PORT']}/{values['NAME']}"
