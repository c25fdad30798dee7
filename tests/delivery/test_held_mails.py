"""How much of the mails on their way a process may hold: a bound for all of its tasks, which stops none of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from congressy_mailer import send_mail
from congressy_mailer.delivery.composing import Composer
from congressy_mailer.delivery.memory import BUDGET, HeldMails, expected_size
from congressy_mailer.models import Message

LARGE = BUDGET * 2 // 5


@pytest.fixture(autouse=True)
def nothing_held() -> Iterator[None]:
    yield
    # Each test has released what it has counted, no more and no less.
    others = HeldMails()
    key = uuid4()
    others.hold(key, of_size(0))
    assert others.has_room(BUDGET)
    assert not others.has_room(BUDGET + 1)
    others.release(key)


def of_size(size: int) -> Any:
    return SimpleNamespace(wire=bytes(size), files=[])


@pytest.fixture
def held() -> Iterator[HeldMails]:
    held = HeldMails()
    yield held
    held.release_all()


def hold(held: HeldMails, size: int = LARGE) -> UUID:
    key = uuid4()
    held.hold(key, of_size(size))
    return key


def test_one_mail_passes_whatever_its_size(held: HeldMails) -> None:
    assert held.has_room(BUDGET * 10)


def test_no_further_mail_is_composed_beyond_the_budget(held: HeldMails) -> None:
    first = hold(held)
    assert held.has_room(LARGE)
    hold(held)
    assert not held.has_room(LARGE)
    assert held.has_room(BUDGET - 2 * LARGE)
    held.release(first)
    assert held.has_room(LARGE)


def test_a_mail_that_is_composed_again_counts_once_and_is_released_once(held: HeldMails) -> None:
    key = hold(held)
    held.hold(key, of_size(LARGE))
    hold(held, 0)
    assert held.has_room(LARGE)
    held.release(key)
    held.release(key)
    assert held.has_room(BUDGET)


def test_tasks_of_one_process_share_the_budget_and_none_is_stopped_by_the_others(held: HeldMails) -> None:
    others = HeldMails()
    threads = [threading.Thread(target=hold, args=(others,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert held.has_room(LARGE), "its first mail"
    hold(held, 1)
    assert not held.has_room(LARGE)
    others.release_all()
    assert held.has_room(LARGE)


def test_a_file_that_is_kept_beside_the_mail_counts_and_one_that_all_share_does_not(held: HeldMails) -> None:
    files = [SimpleNamespace(content=bytes(LARGE), shared=True), SimpleNamespace(content=bytes(LARGE), shared=False)]
    held.hold(uuid4(), SimpleNamespace(wire=bytes(LARGE), files=files))
    assert held.has_room(BUDGET - 2 * LARGE)
    assert not held.has_room(BUDGET - 2 * LARGE + 1)


@pytest.mark.django_db
@pytest.mark.parametrize("size", [0, 1, 1000, 100_000])
def test_the_size_that_is_expected_is_about_that_on_the_wire(
    size: int, compose_whole: Callable[[Message], Any]
) -> None:
    message = send_mail("x", "y", to="ana@example.com", attachments=[("a.bin", bytes(size))] if size else [])
    composed = compose_whole(message)
    on_the_wire = len(composed.wire) + sum(len(one.content) for one in composed.files)
    assert expected_size(message) <= on_the_wire <= expected_size(message) + 2000


@pytest.fixture
def compose_whole() -> Callable[[Message], Any]:
    def compose(message: Message) -> Any:
        composer = Composer()
        composer.prepare([message])
        return composer.compose(message)

    return compose


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_that_was_forked_holds_nothing(held: HeldMails) -> None:
    hold(held, BUDGET)
    if (child := os.fork()) == 0:
        own = HeldMails()
        hold(own, 0)
        os._exit(0 if own.has_room(BUDGET) else 1)
    assert os.waitpid(child, 0)[1] == 0
