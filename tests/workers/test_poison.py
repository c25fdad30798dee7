"""A message that makes its worker crash, hang or use all memory is set aside, and the others are sent."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable
from datetime import timedelta
from types import FrameType
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.core import mail
from django.db import transaction
from django.test import override_settings

from congressy_mailer import outbox, send_mail
from congressy_mailer.delivery.slice import Delivery
from congressy_mailer.exceptions import AttachmentTooLarge
from congressy_mailer.models import Event, Message, State
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from testbed.processes import Process
from tests.conftest import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

_OTHERS = 30


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("poison/crash", "Its worker died 3 times while holding it: it may be the cause."),
        ("poison/hang", "It broke its worker 3 times: SoftTimeLimitExceeded while it was composed"),
        ("poison/stubborn", "Its worker died 3 times while holding it: it may be the cause."),
        ("poison/hoard", "It broke its worker 3 times: MemoryError while it was composed"),
    ],
)
def test_poison_is_set_aside_and_the_others_are_sent(
    start_worker: Callable[..., Process], smtp_server: LocalSparkPost, template: str, reason: str, settings: Any
) -> None:
    # Who publishes a task gives it its limit.
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "TIME_LIMIT": timedelta(seconds=1)}
    with transaction.atomic():
        others = [send_mail(f"mail {number}", "y", to="ana@example.com") for number in range(_OTHERS // 2)]
        poison = send_mail("poison", to="eva@example.com", template=template)
        others += [send_mail(f"mail {number}", "y", to="ana@example.com") for number in range(_OTHERS // 2)]
    worker = start_worker(
        MAILER_TEST_TIME_LIMIT_SECONDS="1", MAILER_TEST_LEASE_SECONDS="3", MAILER_TEST_SWEEP_INTERVAL_SECONDS="0.5"
    )
    wait_for(lambda: Message.objects.filter(state=State.SENT).count() == _OTHERS, 60, "the arrival of the others")
    wait_for(lambda: Message.objects.filter(state=State.HELD).exists(), 60, "the poison being set aside")
    poison.refresh_from_db()
    assert (poison.state, poison.crashes, poison.reason) == (State.HELD, 3, reason)
    assert [event.type for event in poison.events.all()] == [Event.Type.CRASHED] * 3
    assert set(smtp_server.mailbox.copies().values()) == {1}
    assert len(smtp_server.mailbox) == len(others)
    # The worker is alive and well.
    after = send_mail("after", "y", to="ana@example.com")
    wait_for(lambda: Message.objects.get(pk=after.pk).state == State.SENT, what="a mail after the poison")
    # Celery takes its time to stop after it has interrupted a task, and that is not what is looked at here.
    worker.kill()


def test_what_was_set_aside_can_be_sent_once_its_template_is_healed(
    start_worker: Callable[..., Process], smtp_server: LocalSparkPost
) -> None:
    message = send_mail("x", to="ana@example.com", template="mail/hello")
    Message.objects.update(state=State.HELD, crashes=3, due_at=None)
    start_worker()
    message.refresh_from_db()
    message.retry()
    wait_for(lambda: Message.objects.get(pk=message.pk).state == State.SENT, what="the retried mail")
    assert Message.objects.get(pk=message.pk).crashes == 0


def test_an_interruption_while_it_is_composed_concerns_that_message_alone() -> None:
    ids = [send_mail("poison", to="eva@example.com", template="poison/hang").pk]
    ids += [send_mail("x", "y", to="ana@example.com").pk for _ in range(2)]

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise SoftTimeLimitExceeded

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        result = Delivery("task:1").run(ids, redelivered=False)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert result.unfinished == ids[1:]
    poison = Message.objects.get(pk=ids[0])
    assert (poison.state, poison.crashes, poison.attempts) == (State.QUEUED, 1, 0)
    # Not at once, and alone: were it claimed with others, it would hold them up again.
    assert poison.due_at is not None
    assert outbox.claim(ids, "task:2")[0].id == ids[1]
    assert outbox.needing_solo(ids) == [ids[0]]
    assert mail.outbox == []


@override_settings(CONGRESSY_MAILER={"TIME_LIMIT": timedelta(seconds=1)})
def test_a_huge_attachment_is_refused_at_the_call_without_being_read(tmp_path: object) -> None:
    path = f"{tmp_path}/huge.bin"
    with open(path, "wb") as file:
        file.truncate(500 * 1024 * 1024)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(AttachmentTooLarge, match="'huge.bin'"):
        send_mail("x", "y", to="ana@example.com", attachments=[path])
    # In kilobytes. The most that is read is what a mail may hold.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024
    assert not Message.objects.exists()
