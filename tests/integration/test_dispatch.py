"""Publishing: after the commit, once for a transaction, never at the caller's expense."""

from __future__ import annotations

import json
import os
from base64 import b64decode
from collections.abc import Callable
from typing import Any

import pytest
import redis
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.test import override_settings
from django.utils import timezone

from congressy_mailer import celery_app, dispatch, outbox, send_mail
from congressy_mailer.models import Message, State
from demo.embedded_redis import EmbeddedRedis

pytestmark = pytest.mark.django_db(transaction=True)


class Queue:
    """What lies in the queue of a Redis of our own."""

    def __init__(self, server: EmbeddedRedis) -> None:
        self.server = server

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(port=self.server.port)

    def published(self) -> list[list[str]]:
        """The ids in each published task, oldest first."""
        tasks = [json.loads(raw) for raw in reversed(self.client.lrange("mailer", 0, -1))]
        assert all(task["headers"]["task"] == "congressy_mailer.deliver" for task in tasks)
        return [json.loads(b64decode(task["body"]))[0][0] for task in tasks]


@pytest.fixture
def queue(broker: str, redis_server: EmbeddedRedis) -> Queue:
    """The queue of the test's own Redis."""
    return Queue(redis_server)


def send(**options: Any) -> str:
    return str(send_mail("Assunto secreto", "Texto secreto", to="ana@example.com", **options).pk)


def test_one_publish_for_all_messages_of_a_transaction(queue: Queue) -> None:
    with transaction.atomic():
        ids = [send() for _ in range(5)]
        with transaction.atomic():
            ids.append(send())
        with transaction.atomic():
            ids.append(send())
        assert queue.published() == []
    assert queue.published() == [ids]


def test_a_transaction_rolled_back_publishes_nothing(queue: Queue) -> None:
    with pytest.raises(RuntimeError, match="no"), transaction.atomic():
        send()
        raise RuntimeError("no")
    assert queue.published() == []
    assert not Message.objects.exists()


def test_a_savepoint_rolled_back_takes_only_its_own(queue: Queue) -> None:
    with transaction.atomic():
        with pytest.raises(RuntimeError, match="no"), transaction.atomic():
            gone = send()
            raise RuntimeError("no")
        stays = send()
    (published,) = queue.published()
    assert stays in published
    assert gone not in published
    assert Message.objects.count() == 1


def test_a_savepoint_rolled_back_after_another_message(queue: Queue) -> None:
    with transaction.atomic():
        stays = send()
        with pytest.raises(RuntimeError, match="no"), transaction.atomic():
            send()
            raise RuntimeError("no")
    assert [stays] == [key for key in queue.published()[0] if Message.objects.filter(pk=key).exists()]
    assert len(queue.published()) == 1


def test_two_transactions_are_two_publishes(queue: Queue) -> None:
    with transaction.atomic():
        first = send()
    with transaction.atomic():
        second = send()
    assert queue.published() == [[first], [second]]


@override_settings(CONGRESSY_MAILER={"SLICE_SIZE": 10})
def test_many_messages_are_shared_out_in_slices(queue: Queue) -> None:
    with transaction.atomic():
        ids = [send() for _ in range(25)]
    assert queue.published() == [ids[:10], ids[10:20], ids[20:]]


def test_only_ids_are_in_the_broker(queue: Queue) -> None:
    send(headers={"X-Secret": "cabecalho-secreto"})
    (raw,) = queue.client.lrange("mailer", 0, -1)
    body = b64decode(json.loads(raw)["body"])
    for secret in (b"secreto", b"Assunto", b"ana@example.com"):
        assert secret not in raw
        assert secret not in body
    assert json.loads(raw)["content-type"] == "application/json"


def test_a_connection_that_the_broker_dropped_is_replaced(queue: Queue) -> None:
    first = send()
    queue.client.client_kill_filter(_type="normal", skipme=True)
    second = send()
    assert queue.published() == [[first], [second]]


def test_a_child_process_makes_its_own_connection(queue: Queue) -> None:
    send()
    publisher = dispatch._publisher
    assert publisher._idle
    child = os.fork()
    if child == 0:  # pragma: no cover
        os._exit(0 if not publisher._idle and publisher._inherited else 1)
    assert os.waitpid(child, 0)[1] == 0
    send()
    assert len(queue.published()) == 2


@pytest.mark.parametrize("path", ["no.such:app", "tests.project.celery:nothing"])
def test_no_celery_app_is_logged_and_loses_nothing(path: str, caplog: pytest.LogCaptureFixture) -> None:
    with override_settings(CONGRESSY_MAILER={"CELERY_APP": path}):
        with pytest.raises(ImproperlyConfigured, match="cannot be imported"):
            celery_app.find_celery_app()
        key = send()
    assert "Mail is stored but not published" in caplog.text
    assert [str(found) for found in outbox.sweep(timezone.now())] == [key]


def test_eager_mode_delivers_at_the_commit(celery_settings: Callable[..., None]) -> None:
    celery_settings(task_always_eager=True)
    key = send()
    assert Message.objects.get(pk=key).state == State.SENT
