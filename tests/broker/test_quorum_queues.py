"""RabbitMQ's quorum queues, and hosts that have Celery make no queue that is missing: real workers with both."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings as django_settings
from kombu import Connection, Exchange, Queue

from congressy_mailer import send_bulk, send_mail
from congressy_mailer.models import Message, State
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from testbed.processes import Process
from tests.conftest import wait_for
from tests.project import app

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.broker, pytest.mark.rabbitmq]

#: No sweep finds again what the broker has lost.
NEVER_AGAIN = {"MAILER_TEST_LOST_AFTER_SECONDS": "3600", "MAILER_TEST_SWEEP_INTERVAL_SECONDS": "3600"}

HostOf = Callable[[dict[str, Any]], dict[str, str]]


@pytest.fixture
def host_of(
    broker: str, celery_settings: Callable[..., None], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HostOf]:
    """Have this process publish as a host with such settings of Celery does; returns a worker's environment.

    Queues of names of their own: a broker refuses one that it knows with other arguments.
    """
    name = uuid.uuid4().hex[:8]

    def host(celery: dict[str, Any]) -> dict[str, str]:
        celery = {**celery, "task_default_queue": f"host.{name}"}
        names = {"QUEUE": f"mailer.{name}", "BULK_QUEUE": f"mailer.bulk.{name}"}
        celery_settings(**celery)
        settings.CONGRESSY_MAILER = {**django_settings.CONGRESSY_MAILER, **names}
        vars(app.amqp).pop("queues", None)
        return {"MAILER_TEST_CELERY": json.dumps(celery), "MAILER_TEST_OPTIONS": json.dumps(names), **NEVER_AGAIN}

    yield host
    vars(app.amqp).pop("queues", None)


def named(environment: dict[str, str]) -> list[str]:
    options, celery = json.loads(environment["MAILER_TEST_OPTIONS"]), json.loads(environment["MAILER_TEST_CELERY"])
    return ["-Q", ",".join([options["QUEUE"], options["BULK_QUEUE"], celery["task_default_queue"]])]


def is_quorum_queue(broker: str, name: str) -> bool:
    with Connection(broker) as connection:
        # Refused with another type than it has.
        arguments = {"x-queue-type": "quorum"}
        queue = Queue(name, Exchange(name), routing_key=name, queue_arguments=arguments)
        try:
            queue(connection.channel()).queue_declare()
        except connection.channel_errors:
            return False
    return True


@pytest.mark.parametrize(
    ("celery", "is_quorum"),
    [
        ({"task_default_queue_type": "quorum", "task_create_missing_queue_type": "quorum"}, True),
        ({"task_create_missing_queues": False}, False),
    ],
    ids=["quorum queues", "no missing queue is made"],
)
@pytest.mark.parametrize("with_names", [False, True], ids=["without -Q", "with -Q"])
def test_all_mail_arrives_once_also_what_is_tried_again_later(
    start_worker: Callable[..., Process],
    smtp_server: LocalSparkPost,
    broker: str,
    host_of: HostOf,
    celery: dict[str, Any],
    is_quorum: bool,
    with_names: bool,
) -> None:
    environment = host_of(celery)
    smtp_server.stop()
    # Before any worker: whoever comes first declares the queues.
    early = send_mail("before", "x", to="before@example.com")
    worker = start_worker(*(named(environment) if with_names else []), **environment)
    batch = send_bulk((f"bulk{number}@example.com" for number in range(5)), subject="s", message="x")
    wait_for(lambda: "cannot be reached" in worker.output(), what="the worker's complaint")
    smtp_server.start()
    # By the tasks' own retries, since nothing else looks for it.
    wait_for(lambda: not Message.objects.exclude(state=State.SENT).exists(), 80, "all mail")
    wait_for(lambda: batch.progress().done, 40, "the end of the batch")
    assert list(smtp_server.mailbox.copies().values()) == [1] * 6
    assert Message.objects.get(pk=early.pk).attempts == 1
    names = json.loads(environment["MAILER_TEST_OPTIONS"])
    assert [is_quorum_queue(broker, name) for name in names.values()] == [is_quorum, is_quorum]
