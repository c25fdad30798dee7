"""What an attacker reads in logs, in the database and in reports of errors: no password, and nothing sensitive."""

from __future__ import annotations

import base64
import logging
import pickle
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, ClassVar
from uuid import UUID

import pytest
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.smtp import EmailBackend
from django.db import IntegrityError, OperationalError

from congressy_mailer.delivery.recording import Recorder
from congressy_mailer.exceptions import TransportUnavailable
from congressy_mailer.health import check_health
from congressy_mailer.models import Event, Message, State, TaskFailure, TransportStatus
from congressy_mailer.testing.local_sparkpost.replies import Stage
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from testbed.processes import Process
from tests.conftest import wait_for
from tests.support.mails import deliver, queue, states

pytestmark = [pytest.mark.django_db, pytest.mark.email_settings]

PASSWORD = "3f9a0c" + "77b1e8d24a"
USER = "SMTP_Injection"
LOGIN = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()).decode()
#: As a server may repeat what it was sent.
REPEATED = f"5.7.8 {LOGIN} {base64.b64encode(PASSWORD.encode()).decode()} user={USER} password={PASSWORD.upper()}"
#: Stands in what a sensitive mail says.
SECRET = "kx771" + "144zq"


@pytest.fixture(autouse=True)
def everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


@pytest.fixture
def refusing(smtp_server: LocalSparkPost, settings: Any, monkeypatch: pytest.MonkeyPatch) -> LocalSparkPost:
    """A server that refuses each login, and repeats it."""
    for name, value in smtp_server.environment().items():
        monkeypatch.setenv(name, value)
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "localhost", smtp_server.port
    settings.EMAIL_HOST_USER, settings.EMAIL_HOST_PASSWORD = USER, PASSWORD
    smtp_server.script = lambda at: f"535 {REPEATED}" if at.stage is Stage.AUTH else None
    return smtp_server


class OwnSending(EmailBackend):
    """Django's SMTP backend as a host may have changed it: it goes the way of any backend."""

    def send_messages(self, email_messages: Sequence[Any]) -> int:
        return super().send_messages(email_messages) or 0


class Repeating(BaseEmailBackend):
    """A backend of somebody else's whose errors repeat its arguments."""

    def __init__(self, password: str = "", **options: Any) -> None:
        super().__init__(**options)
        self.password = password

    def open(self) -> bool:
        raise ConnectionError(f"cannot connect with {vars(self)}")


class Unmakeable(Repeating):
    """One that cannot even be made."""

    def __init__(self, password: str = "", **options: Any) -> None:
        raise ValueError(f"no such password: {password!r}")


def chain(error: BaseException | None, seen: set[int] | None = None) -> Iterator[BaseException]:
    """An error with all that led to it, whether Python would print it or not."""
    seen = set() if seen is None else seen
    if error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        yield from chain(error.__cause__, seen)
        yield from chain(error.__context__, seen)


def shown_of(error: BaseException) -> str:
    """What a log, Celery or a report of errors may show of an error; of frames only the variables of ours."""
    parts = []
    for one in chain(error):
        parts += [repr(one), str(one), repr(vars(one)), *traceback.format_exception(one)]
        with suppress(Exception):
            parts.append(repr(pickle.dumps(one)))
        for frame, _ in traceback.walk_tb(one.__traceback__):
            if "congressy_mailer" in frame.f_globals.get("__name__", ""):
                parts += [f"{name}={value!r}" for name, value in frame.f_locals.items()]
    return "\n".join(parts)


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """What we and Celery have logged; the mail server of this process logs what it says."""
    return "\n".join(
        f"{record.getMessage()} {record.exc_text}"
        for record in caplog.records
        if record.name.startswith(("congressy_mailer", "celery"))
    )


def stored() -> str:
    """Everything that is stored of what happened."""
    rows = [
        *Message.objects.values_list("reason", "reply"),
        *Event.objects.values_list("detail"),
        *TransportStatus.objects.values_list("reason"),
        *TaskFailure.objects.values_list("error"),
    ]
    return "\n".join(str(text) for row in rows for text in row)


def assert_hidden(text: str) -> None:
    for secret in (PASSWORD, LOGIN, base64.b64encode(PASSWORD.encode()).decode().rstrip("=")):
        assert secret.lower() not in text.lower()


def error_of_delivery(ids: Sequence[UUID]) -> BaseException | None:
    try:
        deliver(ids)
    except BaseException as error:
        return error
    return None


@pytest.mark.parametrize("backend", ["django.core.mail.backends.smtp.EmailBackend", f"{__name__}.OwnSending"])
def test_a_login_that_a_server_repeats_is_shown_nowhere(
    refusing: LocalSparkPost, settings: Any, caplog: pytest.LogCaptureFixture, backend: str
) -> None:
    settings.EMAIL_BACKEND = backend
    error = error_of_delivery(queue())
    assert isinstance(error, TransportUnavailable)
    assert "refuses the login: 535 5.7.8 ********" in str(error)
    assert "********" in stored()
    assert "********" in logged(caplog)
    for text in (shown_of(error), stored(), logged(caplog), *check_health().problems):
        assert_hidden(text)


@pytest.mark.parametrize("backend", [Repeating, Unmakeable])
def test_what_a_foreign_backend_repeats_is_shown_nowhere(
    settings: Any, caplog: pytest.LogCaptureFixture, backend: type[BaseEmailBackend]
) -> None:
    options = {"BACKEND": f"{__name__}.{backend.__name__}", "OPTIONS": {"password": PASSWORD}}
    settings.CONGRESSY_MAILER = {"TRANSPORTS": {"eu": options}}
    error = error_of_delivery(queue(using="eu"))
    assert isinstance(error, TransportUnavailable)
    for text in (shown_of(error), stored(), logged(caplog)):
        assert_hidden(text)
    assert "********" in stored()


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_logs_everything_does_not_log_it(
    refusing: LocalSparkPost, start_worker: Callable[..., Process]
) -> None:
    worker = start_worker("-l", "DEBUG", "-E", MAILER_TEST_SMTP_PASSWORD=PASSWORD)
    queue()
    wait_for(TransportStatus.objects.exists, what="the refusal")
    wait_for(lambda: " retry: " in worker.output(), what="Celery's line of the task")
    assert "refuses the login: 535 5.7.8 ********" in worker.output()
    assert_hidden(worker.output())
    assert_hidden(stored())


class Custom(Exception):
    """An error that keeps what it was about."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.about = {"words": words}


# A transport's own error has the words of a server alone, which have tests of their own in test_sensitive.
KINDS: list[Callable[[str], BaseException]] = [
    RuntimeError, Custom, MemoryError, OperationalError, IntegrityError, SystemExit, KeyboardInterrupt,
]  # fmt: skip
#: Whatever the worker calls between claiming a message and the end of the task.
STEPS = (
    "congressy_mailer.delivery.composing.decode_many",
    "congressy_mailer.delivery.composing.compose",
    "congressy_mailer.delivery.admission.suppressed_recipients",
    "congressy_mailer.delivery.route_delivery.transport_for",
    "congressy_mailer.delivery.handover_outcomes.redact_outcome",
    "congressy_mailer.outbox.record",
    "congressy_mailer.outbox.postpone",
    "congressy_mailer.outbox.fail",
    "congressy_mailer.outbox.release",
)


class Failing:
    """Stands for a function, and raises."""

    made: ClassVar[Callable[[str], BaseException]] = staticmethod(RuntimeError)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        try:
            raise ValueError(f"because of {SECRET}")
        except ValueError as error:
            raise type(self).made(f"out of {SECRET}") from error


@pytest.mark.parametrize("away", [False, True], ids=["database there", "database away"])
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.rpartition(".")[2])
def test_what_leaves_a_task_repeats_nothing_sensitive(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, settings: Any, step: str, away: bool
) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    monkeypatch.setattr("congressy_mailer.outbox.is_away", lambda: away)

    def sleep_until_the_lease_ends(recorder: Recorder, seconds: float) -> None:
        recorder.deadlines.claims_end = 0.0

    monkeypatch.setattr(Recorder, "sleep", sleep_until_the_lease_ends)
    monkeypatch.setattr(step, Failing())
    left = 0
    for made in KINDS:
        Failing.made = staticmethod(made)
        # One can be composed, the template of the other fails.
        code = {"template": "confidential/link", "message": None, "context": {"code": SECRET}}
        for ids in (queue(sensitive=True, message=SECRET), queue(sensitive=True, **code)):
            error = error_of_delivery(ids)
            if error is not None:
                left += 1
                assert SECRET not in shown_of(error), (made, error)
                # Celery retries by the type.
                assert made is not OperationalError or isinstance(error, OperationalError | TransportUnavailable)
            assert SECRET not in stored()
            TransportStatus.objects.all().delete()
    assert SECRET not in logged(caplog)
    # It was tried.
    assert left or not (away and step.endswith((".decode_many", ".record", ".fail")))


def test_an_error_of_other_mail_leaves_with_what_led_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("congressy_mailer.outbox.is_away", lambda: True)
    monkeypatch.setattr("congressy_mailer.delivery.composing.decode_many", Failing())
    Failing.made = staticmethod(OperationalError)
    ids = queue()
    error = error_of_delivery(ids)
    assert isinstance(error, OperationalError)
    assert SECRET in str(error)
    assert SECRET in str(error.__cause__)
    assert states(ids) == [State.QUEUED]
