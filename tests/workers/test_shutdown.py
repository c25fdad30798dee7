"""Whoever ends a worker without force repeats no mail."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from django.core import mail
from django.core.mail.backends.locmem import EmailBackend
from django.db import transaction
from django.test import override_settings

from congressy_mailer import send_mail
from congressy_mailer.delivery.shutdown import deferred_signals
from congressy_mailer.delivery.slice import Delivery
from congressy_mailer.models import Message, State
from congressy_mailer.testing.local_sparkpost.replies import Exchange, Stage
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from testbed.processes import Process, child_processes
from tests.conftest import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.email_settings]


class Interrupting(EmailBackend):
    """Takes the mail, and is then told to end, or interrupted, before it can say so."""

    interruption: BaseException | None = None

    def send_messages(self, messages: object) -> int:
        count = super().send_messages(messages)
        if self.interruption is not None:
            raise self.interruption
        os.kill(os.getpid(), signal.SIGTERM)
        return count


@pytest.fixture
def sigterm() -> Iterator[list[int]]:
    """The signals that reach what stands behind the mailer's own handler."""
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    yield received
    signal.signal(signal.SIGTERM, before)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGQUIT)}
    asked: list[None] = []
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # In the background a shell has it ignored as well.
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    try:
        with deferred_signals(lambda: asked.append(None)):
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGQUIT) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGQUIT) is signal.SIG_DFL
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert not asked


def _to_pool_processes(worker: int, number: int) -> None:
    for child in child_processes(worker):
        os.kill(child, number)


#: Whom somebody who ends a worker sends the signal.
RECEIVERS: dict[str, Callable[[int, int], None]] = {
    "the worker": os.kill,
    "all its processes": os.killpg,
    "its pool processes": _to_pool_processes,
}


@pytest.fixture
def busy_worker(
    start_worker: Callable[..., Process], smtp_server: LocalSparkPost
) -> Callable[..., AbstractContextManager[Process]]:
    """A worker in the midst of the fifth of 30 mails; the mail server answers when the ``with`` block is left."""

    @contextmanager
    def busy(*arguments: str, **environment: str) -> Iterator[Process]:
        in_content, go_on = threading.Event(), threading.Event()

        def hold(exchange: Exchange) -> None:
            if exchange.stage is Stage.CONTENT and len(smtp_server.mailbox) == 4:
                in_content.set()
                go_on.wait(20)

        smtp_server.script = hold
        worker = start_worker("-c", "1", *arguments, **environment)
        with transaction.atomic():
            for number in range(30):
                send_mail(f"mail {number}", "y", to=f"person{number}@example.com")
        assert in_content.wait(30)
        try:
            yield worker
        finally:
            go_on.set()

    return busy


def assert_what_was_accepted_is_recorded(smtp_server: LocalSparkPost) -> None:
    assert not Message.objects.filter(state=State.SENDING).exists()
    accepted = sorted(mail.message_id for mail in smtp_server.mailbox)
    assert accepted == sorted(Message.objects.filter(state=State.SENT).values_list("message_id", flat=True))
    assert len(accepted) >= 5


@pytest.mark.parametrize(
    ("number", "to", "remapped"),
    [
        (signal.SIGTERM, "all its processes", ""),
        (signal.SIGTERM, "its pool processes", ""),
        (signal.SIGTERM, "the worker", "SIGQUIT"),
        (signal.SIGTERM, "all its processes", "SIGQUIT"),
        (signal.SIGQUIT, "the worker", ""),
        (signal.SIGQUIT, "all its processes", ""),
        (signal.SIGHUP, "all its processes", ""),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_signal_in_the_midst_of_a_mail_repeats_nothing(
    number: signal.Signals,
    to: str,
    remapped: str,
    busy_worker: Callable[..., AbstractContextManager[Process]],
    smtp_server: LocalSparkPost,
) -> None:
    with busy_worker(REMAP_SIGTERM=remapped, MAILER_TEST_SWEEP_INTERVAL_SECONDS="1") as worker:
        (sending,) = child_processes(worker.pid)
        RECEIVERS[to](worker.pid, number)
        # A process that does not wait for the record ends at once; nothing shows of the signal in one that does.
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline and sending in child_processes(worker.pid):
            time.sleep(0.01)
    if to != "its pool processes":
        wait_for(lambda: not worker.running, what="the end of the worker")
        assert_what_was_accepted_is_recorded(smtp_server)
        return
    # Celery starts another process.
    wait_for(lambda: Message.objects.filter(state=State.SENT).count() == 30, what="the rest of the mail")
    assert sending not in child_processes(worker.pid)
    assert_what_was_accepted_is_recorded(smtp_server)


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_a_cold_shutdown_of_a_worker_without_processes_repeats_nothing(
    pool: str, busy_worker: Callable[..., AbstractContextManager[Process]], smtp_server: LocalSparkPost
) -> None:
    with busy_worker("-P", pool) as worker:
        os.kill(worker.pid, signal.SIGQUIT)
    wait_for(lambda: not worker.running, what="the end of the worker")
    assert_what_was_accepted_is_recorded(smtp_server)


@override_settings(EMAIL_BACKEND=f"{__name__}.Interrupting")
def test_sigterm_in_the_midst_of_a_mail_waits_for_the_record_of_it(sigterm: list[int]) -> None:
    ids = [send_mail("x", "y", to="ana@example.com").pk for _ in range(3)]
    result = Delivery("task:1").run(ids, redelivered=False)
    assert [Message.objects.get(pk=key).state for key in ids] == [State.SENT, State.QUEUED, State.QUEUED]
    assert result.unfinished == ids[1:]
    assert len(mail.outbox) == 1
    assert sigterm == [signal.SIGTERM]


@pytest.mark.parametrize("interruption", [SystemExit(), KeyboardInterrupt()])
def test_a_mail_in_hand_is_never_put_back_as_if_nothing_had_been(
    interruption: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Interrupting, "interruption", interruption)
    ids = [send_mail("x", "y", to="ana@example.com").pk for _ in range(2)]
    with (
        override_settings(EMAIL_BACKEND=f"{__name__}.Interrupting", CONGRESSY_MAILER={"ON_CRASH": "hold"}),
        pytest.raises(type(interruption)),
    ):
        Delivery("task:1").run(ids, redelivered=False)
    in_hand = Message.objects.get(pk=ids[0])
    assert in_hand.state == State.HELD
    assert "in doubt" in in_hand.reason
    assert Message.objects.get(pk=ids[1]).state == State.QUEUED


def test_outside_the_main_thread_nothing_changes() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def work() -> None:
        with deferred_signals(lambda: None):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
