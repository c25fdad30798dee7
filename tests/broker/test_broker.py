"""Publishing: after the commit, once for a transaction, never at the caller's expense."""

from __future__ import annotations

import json
import os
from base64 import b64decode
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import kombu
import pytest
import redis
from celery import Celery
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.test import override_settings
from django.utils import timezone

from congressy_mailer import outbox, worker
from congressy_mailer.broker import celery_app, publisher, sending
from congressy_mailer.models import Message, State
from testbed.redis_server import EmbeddedRedis
from tests.support.mails import queue

pytestmark = pytest.mark.django_db(transaction=True)


class Queue:
    """What lies in the queue of a Redis of our own."""

    def __init__(self, server: EmbeddedRedis) -> None:
        self.server = server

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(port=self.server.port)

    def published(self) -> list[list[UUID]]:
        """The ids in each published task, oldest first."""
        tasks = [json.loads(raw) for raw in reversed(self.client.lrange("mailer", 0, -1))]
        assert all(task["headers"]["task"] == "congressy_mailer.deliver" for task in tasks)
        return [[UUID(key) for key in json.loads(b64decode(task["body"]))[0][0]] for task in tasks]


@pytest.fixture
def redis_queue(broker: str, redis_server: EmbeddedRedis) -> Queue:
    """The queue of the test's own Redis."""
    return Queue(redis_server)


def test_one_publish_for_all_messages_of_a_transaction(redis_queue: Queue) -> None:
    with transaction.atomic():
        ids = queue(5)
        with transaction.atomic():
            ids += queue()
        with transaction.atomic():
            ids += queue()
        assert redis_queue.published() == []
    assert redis_queue.published() == [ids]


def test_a_transaction_rolled_back_publishes_nothing(redis_queue: Queue) -> None:
    with pytest.raises(RuntimeError, match="no"), transaction.atomic():
        queue()
        raise RuntimeError("no")
    assert redis_queue.published() == []
    assert not Message.objects.exists()


def test_a_host_that_commits_by_hand_has_its_mail_published_by_the_next_sweep(redis_queue: Queue) -> None:
    transaction.set_autocommit(False)
    try:
        (key,) = queue()
        transaction.commit()
    finally:
        transaction.set_autocommit(True)
    assert redis_queue.published() == []
    assert outbox.sweep(timezone.now()) == [key]


def test_a_savepoint_rolled_back_takes_only_its_own(redis_queue: Queue) -> None:
    with transaction.atomic():
        with pytest.raises(RuntimeError, match="no"), transaction.atomic():
            (gone,) = queue()
            raise RuntimeError("no")
        (stays,) = queue()
    (published,) = redis_queue.published()
    assert stays in published
    assert gone not in published
    assert Message.objects.count() == 1


def test_a_savepoint_rolled_back_after_another_message(redis_queue: Queue) -> None:
    with transaction.atomic():
        (stays,) = queue()
        with pytest.raises(RuntimeError, match="no"), transaction.atomic():
            queue()
            raise RuntimeError("no")
    assert [stays] == [key for key in redis_queue.published()[0] if Message.objects.filter(pk=key).exists()]
    assert len(redis_queue.published()) == 1


def test_each_part_of_a_test_can_run_its_own_hooks(redis_queue: Queue) -> None:
    # As captureOnCommitCallbacks(execute=True) does it, for what was stored since it began.
    with transaction.atomic():
        hooks = transaction.get_connection().run_on_commit
        (stored_before,) = queue()
        seen = len(hooks)
        (stored_now,) = queue()
        for _, hook, _ in hooks[seen:]:
            hook()
        assert redis_queue.published() == [[stored_before, stored_now]]
        (later,) = queue()
    assert redis_queue.published() == [[stored_before, stored_now], [later]]


def test_two_transactions_are_two_publishes(redis_queue: Queue) -> None:
    with transaction.atomic():
        (first,) = queue()
    with transaction.atomic():
        (second,) = queue()
    assert redis_queue.published() == [[first], [second]]


@override_settings(CONGRESSY_MAILER={"SLICE_SIZE": 10})
def test_many_messages_are_shared_out_in_slices(redis_queue: Queue) -> None:
    with transaction.atomic():
        ids = queue(25)
    assert redis_queue.published() == [ids[:10], ids[10:20], ids[20:]]


def test_only_ids_are_in_the_broker(redis_queue: Queue) -> None:
    queue(subject="Assunto secreto", message="Texto secreto", headers={"X-Secret": "cabecalho-secreto"})
    (raw,) = redis_queue.client.lrange("mailer", 0, -1)
    body = b64decode(json.loads(raw)["body"])
    for secret in (b"secreto", b"Assunto", b"ana@example.com"):
        assert secret not in raw
        assert secret not in body
    assert json.loads(raw)["content-type"] == "application/json"


@pytest.mark.parametrize(
    "values",
    [
        {"task_create_missing_queues": False},
        {"task_create_missing_queues": False, "task_queues": [kombu.Queue("celery")]},
        {"task_routes": {"*": {"queue": "elsewhere"}}},
        {"task_routes": {"*": {"exchange": "elsewhere", "routing_key": "elsewhere"}}},
        {"task_routes": {"*": {"queue": "elsewhere"}}, "task_create_missing_queues": False},
        {"task_default_exchange": "host", "task_default_exchange_type": "topic"},
        {"task_serializer": "pickle", "accept_content": ["pickle", "json"]},
    ],
)
def test_what_the_host_says_of_its_own_tasks_is_not_about_mail(
    redis_queue: Queue, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Celery("host", set_as_current=False)
    host.conf.update(broker_url=redis_queue.server.url, **values)
    monkeypatch.setattr(sending, "find_celery_app", lambda: host)
    keys = queue(2)
    assert redis_queue.published() == [[key] for key in keys]


@pytest.mark.parametrize("kind", ["classic", "quorum"])
@pytest.mark.parametrize("creates", [True, False], ids=["missing queues are made", "none is made"])
@pytest.mark.parametrize("named", ["", "mailer,mailer.bulk,celery"], ids=["without -Q", "with -Q"])
def test_a_queue_is_declared_alike_by_workers_and_by_callers(named: str, creates: bool, kind: str) -> None:
    def app() -> Celery:
        host = Celery("host", set_as_current=False)
        host.conf.update(task_create_missing_queues=creates, task_queues=[kombu.Queue("celery")])
        host.conf.task_create_missing_queue_type = kind
        return host

    worker_app, caller_app = app(), app()
    worker.consume_our_queues("worker", SimpleNamespace(app=worker_app), {"queues": named})
    # As Celery does with -Q afterwards.
    worker_app.amqp.queues.select(named.split(",") if named else None)
    served = worker_app.amqp.queues.consume_from
    for name in ("mailer", "mailer.bulk"):
        ours, theirs = served[name], sending.declare_queue(caller_app, name)
        assert (ours.queue_arguments or {}) == (theirs.queue_arguments or {})
        assert (ours.exchange.name, ours.routing_key) == (theirs.exchange.name, theirs.routing_key)
        arguments = ours.queue_arguments or {}
        assert arguments.get("x-queue-type", "classic") == (kind if creates else "classic")


def test_a_fault_of_the_configuration_is_not_told_as_the_brokers(
    redis_queue: Queue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    host = Celery("host", set_as_current=False)
    host.conf.update(broker_url=redis_queue.server.url)

    def broken(*arguments: Any, **options: Any) -> None:
        raise KeyError("celery")

    monkeypatch.setattr(host, "send_task", broken)
    monkeypatch.setattr(sending, "find_celery_app", lambda: host)
    queue()
    assert "cannot publish as it is configured (KeyError: 'celery')" in caplog.text


def test_a_connection_that_the_broker_dropped_is_replaced(redis_queue: Queue) -> None:
    (first,) = queue()
    redis_queue.client.client_kill_filter(_type="normal", skipme=True)
    (second,) = queue()
    assert redis_queue.published() == [[first], [second]]


def test_a_child_process_makes_its_own_connection(redis_queue: Queue) -> None:
    queue()
    ours = publisher._publisher
    assert ours._idle
    child = os.fork()
    if child == 0:  # pragma: no cover
        os._exit(0 if not ours._idle and ours._inherited else 1)
    assert os.waitpid(child, 0)[1] == 0
    queue()
    assert len(redis_queue.published()) == 2


@pytest.mark.parametrize("path", ["no.such:app", "tests.project.celery:nothing"])
def test_no_celery_app_is_logged_and_loses_nothing(path: str, caplog: pytest.LogCaptureFixture) -> None:
    with override_settings(CONGRESSY_MAILER={"CELERY_APP": path}):
        with pytest.raises(ImproperlyConfigured, match="cannot be imported"):
            celery_app.find_celery_app()
        (key,) = queue()
    assert "Mail is stored but not published" in caplog.text
    assert outbox.sweep(timezone.now()) == [key]


def test_eager_mode_delivers_at_the_commit(celery_settings: Callable[..., None]) -> None:
    celery_settings(task_always_eager=True)
    (key,) = queue()
    assert Message.objects.get(pk=key).state == State.SENT
