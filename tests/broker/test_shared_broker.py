"""Two projects with one broker, and nothing that keeps their queues apart."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from django.conf import settings as django_settings

from congressy_mailer import send_bulk, send_mail
from congressy_mailer.models import Message, State
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from testbed.processes import Process
from tests.conftest import wait_for
from tests.support.forked import run_code, run_module

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).parent.parent.parent
#: What the broker has lost is not found again while a test goes on.
NEVER_AGAIN = {"MAILER_TEST_LOST_AFTER_SECONDS": "3600"}

#: The other project's view.
SEND = """
import django; django.setup()
from congressy_mailer import send_mail
for number in range(5):
    send_mail("of the other", "x", to=f"other{number}@example.com")
"""


@pytest.fixture
def other_project(tmp_path: Path, broker: str) -> dict[str, str]:
    """The environment of another project's processes: a database of its own, and the same broker."""
    environment = {
        "DATABASE_URL": f"sqlite://{tmp_path}/other.sqlite3",
        "BROKER_URL": broker,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "MAILER_TEST_DIRECTORY": str(django_settings.SCRATCH),
        "MAILER_TEST_SECRET_KEY": "of the other project",
        "MAILER_TEST_OPTIONS": '{"CELERY_APP": "tests.project:app"}',
        **NEVER_AGAIN,
    }
    run_module("django", "migrate", "--verbosity", "0", environment={**os.environ, **environment}).check_returncode()
    return environment


@pytest.mark.broker
def test_a_task_of_another_project_is_handed_on_to_its_workers(
    start_worker: Callable[..., Process], smtp_server: LocalSparkPost, other_project: dict[str, str]
) -> None:
    foreign = start_worker(**other_project)
    for number in range(5):
        send_mail("ours", "x", to=f"ours{number}@example.com")
    batch = send_bulk((f"bulk{number}@example.com" for number in range(10)), subject="ours", message="x")
    run_code(SEND, environment={**os.environ, **other_project}).check_returncode()
    wait_for(lambda: "It is handed on" in foreign.output(), what="a task in the wrong hands")
    start_worker(**NEVER_AGAIN)
    wait_for(lambda: len(smtp_server.mailbox) == 20, 80, "all mail of both projects")
    wait_for(lambda: batch.progress().done, 80, "the end of the batch")
    assert set(Message.objects.values_list("state", flat=True)) == {State.SENT}
    assert Message.objects.count() == 15
    assert list(smtp_server.mailbox.copies().values()) == [1] * 20
    # Once, and not for each task.
    assert foreign.output().count("It is handed on") <= 2
