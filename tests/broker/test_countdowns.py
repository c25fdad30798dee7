"""What is to wait does so for its time, whatever the clocks of the hosts say."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from congressy_mailer import send_bulk, send_mail
from congressy_mailer.models import Message, State
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from testbed.processes import Process
from tests.conftest import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.broker]

#: No sweep finds again what comes too early or never.
NEVER_AGAIN = {"MAILER_TEST_LOST_AFTER_SECONDS": "3600", "MAILER_TEST_SWEEP_INTERVAL_SECONDS": "3600"}

#: A worker's clock as Celery reads it; that of the outbox is its database's.
WRONG_CLOCK = """
import time
right = time.time
time.time = lambda: right() + {ahead}
"""


@pytest.fixture(params=[3600, -3600], ids=["an hour ahead", "an hour behind"])
def wrong_clock(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The environment of a worker that takes what others publish, and whose clock is not theirs."""
    folder = tmp_path / "clock"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(WRONG_CLOCK.format(ahead=request.param))
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]), **NEVER_AGAIN}


def test_a_mail_that_was_refused_for_the_moment_is_tried_again_after_a_while(
    start_worker: Callable[..., Process], smtp_server: LocalSparkPost, wrong_clock: dict[str, str]
) -> None:
    start_worker(**wrong_clock)
    message = send_mail("s", "b", to="delay-2@example.com")
    wait_for(lambda: Message.objects.get(pk=message.pk).state == State.SENT, 90, "the third attempt")
    message.refresh_from_db()
    assert message.attempts == 3
    assert message.sent_at is not None
    # Each of them after the five seconds that SparkPost asks for.
    assert (message.sent_at - message.created_at).total_seconds() > 10


@pytest.mark.parametrize("is_batch", [False, True], ids=["mail", "batch"])
def test_a_server_that_is_down_is_asked_again_after_a_while(
    start_worker: Callable[..., Process], smtp_server: LocalSparkPost, wrong_clock: dict[str, str], is_batch: bool
) -> None:
    smtp_server.stop()
    worker = start_worker(**wrong_clock)
    if is_batch:
        send_bulk(["ana@example.com"], subject="s", message="b")
    else:
        send_mail("s", "b", to="ana@example.com")
    wait_for(lambda: "cannot be reached" in worker.output(), 60, "the worker's complaint")
    smtp_server.start()
    wait_for(lambda: Message.objects.filter(state=State.SENT).exists(), 90, "the mail")
    # None in a hurry.
    assert worker.output().count("cannot be reached") < 12
