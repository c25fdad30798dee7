"""Whoever ends a worker without force repeats no mail."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest
from django.core import mail
from django.core.mail.backends.locmem import EmailBackend
from django.db import transaction
from django.test import override_settings

from congressy_mailer import send_mail
from congressy_mailer.delivery.shutdown import deferred_sigterm
from congressy_mailer.delivery.slice import Delivery
from congressy_mailer.models import Message, State
from congressy_mailer.testing.local_sparkpost.replies import Exchange, Stage
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from testbed.processes import Process
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


def test_sigterm_to_all_processes_of_a_worker_repeats_nothing(
    start_worker: Callable[..., Process], smtp_server: LocalSparkPost
) -> None:
    in_content, go_on = threading.Event(), threading.Event()

    def hold(exchange: Exchange) -> None:
        if exchange.stage is Stage.CONTENT and len(smtp_server.mailbox) == 4:
            in_content.set()
            go_on.wait(20)

    smtp_server.script = hold
    first = start_worker()
    with transaction.atomic():
        for number in range(30):
            send_mail(f"mail {number}", "y", to=f"person{number}@example.com")
    assert in_content.wait(30)
    os.killpg(first.pid, signal.SIGTERM)
    go_on.set()
    wait_for(lambda: not first.running, what="the end of the worker")
    assert not Message.objects.filter(state=State.SENDING).exists()
    start_worker(MAILER_TEST_SWEEP_INTERVAL_SECONDS="1")
    wait_for(lambda: Message.objects.filter(state=State.SENT).count() == 30, what="the rest of the mail")
    assert list(smtp_server.mailbox.copies().values()) == [1] * 30


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
        with deferred_sigterm(lambda: None):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
