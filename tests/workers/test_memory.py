"""What a worker's process needs at the most while large mails are on their way, several at a time over a long way."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from django.core.mail import EmailMessage

from benchmarks.link import Link
from congressy_mailer import send_bulk, send_mail
from congressy_mailer.backends import EmailBackend
from congressy_mailer.models import Message, State
from congressy_mailer.testing.local_sparkpost.whole import WholeSparkPost
from testbed.processes import Process, child_processes
from tests.conftest import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.once]

ROUND_TRIP = 0.12
CONNECTIONS = 5
#: MAX_ATTACHMENT_BYTES as it comes.
LARGE = 14_000_000
MAILS = 10
#: What docs/explanation/memory.md says of a process: megabytes beside those that it has without large mails.
BOUND = 200

HTTP = {"http": {"BACKEND": "congressy_mailer.sparkpost.backend.EmailBackend"}}


def most_memory(process: int) -> float:
    """The most that a process has had, in megabytes."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1000


@pytest.fixture
def worker(local_sparkpost: WholeSparkPost, start_worker: Callable[..., Process], settings: Any) -> Iterator[Process]:
    """A worker with one process and five connections, far from SparkPost."""
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "TRANSPORTS": HTTP}
    with ExitStack() as stack:
        smtp, api = (
            stack.enter_context(Link(port, ROUND_TRIP))
            for port in (local_sparkpost.smtp.port, int(local_sparkpost.api.address.rpartition(":")[2]))
        )
        options = {
            "SPARKPOST_API_KEY": local_sparkpost.account.key,
            "SPARKPOST_API_HOST": f"localhost:{api.port}",
            "MAX_CONNECTIONS": CONNECTIONS,
            "TRANSPORTS": HTTP,
        }
        yield start_worker(
            "-c", "1",
            MAILER_TEST_OPTIONS=json.dumps(options),
            MAILER_TEST_SMTP_PORT=str(smtp.port),
            MAILER_TEST_SMTP_PASSWORD=local_sparkpost.account.key,
            **local_sparkpost.environment(),
        )  # fmt: skip


def attach(number: int, using: str) -> None:
    send_mail("x", "y", to=f"b{number}@example.com", attachments=[("a.bin", secrets.token_bytes(LARGE))], using=using)


def drop_in(number: int, using: str) -> None:
    mail = EmailMessage("x", "y", "mail@congressy.net", [f"b{number}@example.com"])
    mail.attach("a.bin", secrets.token_bytes(LARGE), "application/octet-stream")
    EmailBackend(using=using).send_messages([mail])


@pytest.mark.parametrize(
    ("queue", "using"), [(attach, ""), (drop_in, ""), (attach, "http")], ids=["smtp", "drop-in", "http"]
)
def test_large_mails_take_no_more_memory_than_is_stated(
    worker: Process, local_sparkpost: WholeSparkPost, queue: Callable[[int, str], None], using: str
) -> None:
    # As many as open all connections.
    small = send_bulk([f"a{number}@example.com" for number in range(100)], subject="x", message="y", using=using)
    wait_for(lambda: small.progress().done, 120, "the small mails")
    (process,) = child_processes(worker.pid)
    before = most_memory(process)
    for number in range(MAILS):
        queue(number, using)
    mailbox = local_sparkpost.mailbox

    def all_sent() -> bool:
        # This process is to hold them neither.
        mailbox.clear()
        return not Message.objects.exclude(state=State.SENT).exists()

    wait_for(all_sent, 300, "the large mails")
    assert most_memory(process) - before < BOUND
