"""A worker's connection to the database outlives the task that opened it, although Celery closes all that it sees."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import Error, connections, transaction

from congressy_mailer.delivery import kept_connection as module
from congressy_mailer.delivery.kept_connection import close_kept_connections, kept_connection
from congressy_mailer.models import Message
from tests.conftest import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database]


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    close_kept_connections()
    yield
    close_kept_connections()


def opened_by_task() -> Any:
    """Run a task as Celery does; returns the driver's connection that it used, kept alive for comparing."""
    connections.close_all()
    with kept_connection():
        Message.objects.exists()
        used = connections["default"].connection
    connections.close_all()
    return used


def test_the_next_task_of_a_thread_uses_the_connection_of_the_last() -> None:
    first = opened_by_task()
    assert first is not None
    assert opened_by_task() is first


def test_each_thread_has_its_own() -> None:
    first = opened_by_task()
    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(opened_by_task).result()
        assert other is not first
        assert threads.submit(opened_by_task).result() is other


def test_one_that_has_been_idle_is_asked_first_and_opened_again_where_it_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = [True, False]
    monkeypatch.setattr(type(connections["default"]), "is_usable", lambda self: answers.pop(0))
    monkeypatch.setattr(module, "TRUSTED", 60.0)
    first = opened_by_task()
    assert opened_by_task() is first
    monkeypatch.setattr(module, "TRUSTED", -1.0)
    assert opened_by_task() is first
    assert opened_by_task() is not first
    assert answers == []


def test_one_with_an_error_is_not_kept() -> None:
    connections.close_all()
    with kept_connection():
        with pytest.raises(Error), connections["default"].cursor() as cursor:
            cursor.execute("SELECT nothing FROM nowhere")
        used = connections["default"].connection
        assert connections["default"].errors_occurred
    assert connections["default"].connection is used
    connections.close_all()
    assert opened_by_task() is not used


def test_within_a_transaction_everything_stays_as_it_is() -> None:
    opened_by_task()
    with transaction.atomic():
        of_host = connections["default"]
        with kept_connection():
            assert connections["default"] is of_host
        assert connections["default"] is of_host


@pytest.mark.parametrize("changes", [{"AUTOCOMMIT": False}, {"OPTIONS": {"pool": True}}])
def test_a_host_that_pools_or_commits_by_hand_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    monkeypatch.setitem(connections.settings, "default", {**connections.settings["default"], **changes})
    wrapper = connections["default"]
    with kept_connection():
        Message.objects.exists()
    assert connections["default"] is wrapper


def test_one_that_no_task_comes_for_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_IDLE", 0.05)
    connections.close_all()
    with kept_connection():
        Message.objects.exists()
        wrapper = connections["default"]
    wait_for(lambda: wrapper.connection is None, 20, "the end of the idle connection")
    wait_for(
        lambda: not any("idle-database" in thread.name for thread in threading.enumerate()), 20, "the end of the thread"
    )


def test_what_a_process_has_inherited_is_left_to_its_parent() -> None:
    first = opened_by_task()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with kept_connection():
                mine = connections["default"].connection is not first
            os.write(writing, b"1" if mine else b"0")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 1) == b"1"
    assert opened_by_task() is first
