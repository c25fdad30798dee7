"""What a worker's log tells: where mail leaves, and in one line for each task what became of its mail."""

from __future__ import annotations

import logging
import re
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.mail.backends.console import EmailBackend as ConsoleBackend
from django.test import override_settings

from congressy_mailer import send_bulk, send_mail, tasks
from congressy_mailer.models import Message, State
from congressy_mailer.suppressions import suppress
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from congressy_mailer.transports.destinations import destinations
from congressy_mailer.worker import start_sweeping

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("published"), pytest.mark.email_settings]

_SMTP = "django.core.mail.backends.smtp.EmailBackend"
_PASSWORD = "the-api-key-of-the-account"


class Printer(ConsoleBackend):
    """A host's own, which derives from one of Django's."""


@pytest.fixture
def smtp(settings: Any, smtp_server: LocalSparkPost, monkeypatch: pytest.MonkeyPatch) -> LocalSparkPost:
    for name, value in smtp_server.environment().items():
        monkeypatch.setenv(name, value)
    settings.EMAIL_BACKEND = _SMTP
    # A busy machine must not end the slice before all are sent.
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "TIME_SLICE": timedelta(minutes=1)}
    settings.EMAIL_HOST, settings.EMAIL_PORT = smtp_server.host, smtp_server.port
    settings.EMAIL_HOST_PASSWORD = smtp_server.password
    return smtp_server


def lines(caplog: pytest.LogCaptureFixture, logger: str = "congressy_mailer.delivery") -> list[str]:
    """What was logged at INFO, with the time left out."""
    found = [record for record in caplog.records if record.name == logger and record.levelno == logging.INFO]
    return [re.sub(r"\d+\.\d s$", "… s", record.getMessage()) for record in found]


def test_each_task_logs_in_one_line_what_became_of_its_mail(
    smtp: LocalSparkPost, caplog: pytest.LogCaptureFixture, tmp_path: Path, settings: Any
) -> None:
    caplog.set_level(logging.INFO)
    folder = tmp_path / "templates"
    folder.mkdir()
    (folder / "late.txt").write_text("x")
    settings.TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [folder]}]
    sent = [send_mail("x", "very secret words", to=f"ana{number}@example.com", sensitive=True) for number in range(3)]
    deferred = send_mail("x", "y", to="delay-1@example.com")
    refused = send_mail("x", "y", to="refused@example.com")
    waits = send_mail("x", to="ana@example.com", template="late")
    left = send_mail("x", "y", to="left@example.com", transactional=False)
    suppress("left@example.com", scope="non_transactional")
    (folder / "late.txt").unlink()
    settings.TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [folder]}]

    tasks.deliver([str(message.pk) for message in (*sent, deferred, refused, waits, left)])

    assert lines(caplog) == ["Queue mailer: sent 3, deferred 2, failed 1, suppressed 1, … s"]
    assert "secret" not in caplog.text
    states = list(Message.objects.order_by("id").values_list("state", flat=True))
    assert states == [*[State.SENT] * 3, State.DEFERRED, State.FAILED, State.DEFERRED, State.SUPPRESSED]


def test_a_task_that_finds_nothing_to_do_logs_nothing(smtp: LocalSparkPost, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    message = send_mail("x", "y", to="ana@example.com")
    tasks.deliver([str(message.pk)])
    assert lines(caplog) == ["Queue mailer: sent 1, … s"]
    tasks.deliver([str(message.pk)])
    tasks.sweep(0)
    assert lines(caplog) == ["Queue mailer: sent 1, … s"]
    assert lines(caplog, "congressy_mailer.outbox") == []


def test_a_task_for_a_batch_names_the_batch(smtp: LocalSparkPost, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    batch = send_bulk([f"ana{number}@example.com" for number in range(5)], subject="x", message="y")
    tasks.deliver_batch(str(batch.pk), batch.generation, False)
    assert lines(caplog) == [f"Batch {batch.pk}: sent 5, … s"]


def test_mail_that_waits_for_its_server_is_counted_too(
    smtp: LocalSparkPost, caplog: pytest.LogCaptureFixture, settings: Any
) -> None:
    caplog.set_level(logging.INFO)
    settings.EMAIL_PORT = 1
    ids = [str(send_mail("x", "y", to=f"ana{number}@example.com").pk) for number in range(4)]
    with pytest.raises(Exception, match="cannot be reached|refused"):
        tasks.deliver(ids)
    assert lines(caplog) == ["Queue mailer: put back 4, … s"]


def test_a_filter_of_the_hosts_that_raises_repeats_no_mail(
    smtp: LocalSparkPost, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def broken(record: logging.LogRecord) -> bool:
        raise LookupError

    message = send_mail("x", "y", to="ana@example.com")
    logger = logging.getLogger("congressy_mailer.delivery")
    logger.addFilter(broken)
    try:
        tasks.deliver([str(message.pk)])
    finally:
        logger.removeFilter(broken)
    message.refresh_from_db()
    assert message.state == State.SENT


def started(caplog: pytest.LogCaptureFixture, *queues: str) -> list[tuple[int, str]]:
    """What a worker that serves these queues logs when it is ready."""
    caplog.set_level(logging.INFO)
    served = SimpleNamespace(consume_from=dict.fromkeys(queues))
    timer = SimpleNamespace(call_repeatedly=lambda *arguments: None)
    app = SimpleNamespace(amqp=SimpleNamespace(queues=served))
    worker = SimpleNamespace(concurrency=1, pool_cls="prefork")
    start_sweeping(SimpleNamespace(app=app, timer=timer, hostname="celery@web", pool=None, controller=worker))
    return [
        (record.levelno, record.getMessage()) for record in caplog.records if record.name == "congressy_mailer.worker"
    ]


def test_a_worker_tells_where_mail_leaves_and_no_password(caplog: pytest.LogCaptureFixture, settings: Any) -> None:
    settings.EMAIL_BACKEND, settings.EMAIL_HOST, settings.EMAIL_PORT = _SMTP, "smtp.sparkpostmail.com", 587
    settings.EMAIL_HOST_PASSWORD = _PASSWORD
    settings.CONGRESSY_EMAIL_SENDER = "Congressy <mail@congressy.net>"
    settings.CONGRESSY_MAILER = {
        "FAILOVER": ["http"],
        "TRANSPORTS": {
            "http": {
                "BACKEND": "congressy_mailer.sparkpost.backend.EmailBackend",
                "OPTIONS": {"api_key": _PASSWORD, "host": "api.eu.sparkpost.com"},
            }
        },
    }
    assert started(caplog, "mailer", "mailer.bulk", "celery") == [
        (logging.INFO, "Mail leaves over smtp.sparkpostmail.com:587."),
        (logging.INFO, "Mail over the backend 'http' leaves over SparkPost's HTTP API at api.eu.sparkpost.com."),
        (
            logging.INFO,
            "Sender: Congressy <mail@congressy.net>. Queues of the mailer that this worker serves: mailer, "
            "mailer.bulk.",
        ),
    ]
    assert _PASSWORD not in caplog.text


@pytest.mark.parametrize(
    ("backend", "fate"),
    [
        ("django.core.mail.backends.console.EmailBackend", "only printed"),
        ("django.core.mail.backends.filebased.EmailBackend", "only written to files"),
        ("django.core.mail.backends.locmem.EmailBackend", "only kept in memory"),
        ("django.core.mail.backends.dummy.EmailBackend", "thrown away"),
        ("tests.delivery.test_run_log.Printer", "only printed"),
    ],
)
def test_a_worker_tells_that_mail_reaches_nobody(
    caplog: pytest.LogCaptureFixture, settings: Any, backend: str, fate: str, tmp_path: Path
) -> None:
    settings.EMAIL_BACKEND, settings.EMAIL_FILE_PATH = backend, str(tmp_path)
    line = f"Mail is {fate}, and reaches nobody: {backend}."
    assert (logging.WARNING, line) in started(caplog, "mailer")
    caplog.clear()
    with override_settings(DEBUG=True):
        assert (logging.INFO, line) in started(caplog, "mailer")


def test_a_backend_that_cannot_be_made_is_told_without_its_options(
    caplog: pytest.LogCaptureFixture, settings: Any
) -> None:
    settings.CONGRESSY_MAILER = {"TRANSPORTS": {"typo": {"BACKEND": _SMTP, "OPTIONS": {"pasword": _PASSWORD}}}}
    settings.CONGRESSY_MAILER["TRANSPORTS"]["gone"] = {"BACKEND": f"nowhere.{_PASSWORD}"}
    texts = {alias: found.text for alias, found in destinations().items()}
    # Django before 6.1 overlooks options that it does not know.
    assert "cannot leave" in texts["typo"] or "leaves over" in texts["typo"]
    assert texts["gone"] == "cannot leave: its backend cannot be made as it is configured"
    assert _PASSWORD not in " ".join(message for _, message in started(caplog, "mailer"))
