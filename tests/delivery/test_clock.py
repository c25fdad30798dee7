"""Workers go by the database's clock, and commit what they do."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from unittest import mock
from zoneinfo import ZoneInfo

import pytest
from django.core.mail.backends.base import BaseEmailBackend
from django.db import OperationalError, connection, connections, transaction
from django.utils import timezone

from congressy_mailer import outbox, send_mail, tasks
from congressy_mailer.broker import host_clock, sending
from congressy_mailer.checks.settings import check_time_zones
from congressy_mailer.delivery import sweep
from congressy_mailer.health import check_health
from congressy_mailer.models import Message, State, clock
from tests.conftest import wait_for
from tests.support.mails import deliver

pytestmark = [pytest.mark.database, pytest.mark.django_db(transaction=True)]


class Backend(BaseEmailBackend):
    """Takes everything, after something has happened."""

    taken: list[str] = []
    before: Callable[[], None]

    def send_messages(self, email_messages: Any) -> int:
        if not self.taken:
            Backend.before()
        self.taken += [recipient for message in email_messages for recipient in message.recipients()]
        return len(email_messages)


@contextmanager
def host_ahead_by(ahead: timedelta) -> Iterator[None]:
    """This host's clock, set forwards or backwards."""
    now, seconds = timezone.now, time.time
    clock.forget()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timezone, "now", lambda: now() + ahead)
        patch.setattr(clock.time, "time", lambda: seconds() + ahead.total_seconds())
        yield
    clock.forget()


def shared_clock() -> bool:
    """SQLite's database has the clock of its host."""
    return connection.vendor != "sqlite"


def about_now(moment: datetime, ahead: timedelta = timedelta(0)) -> bool:
    return abs(moment - timezone.now() - ahead) < timedelta(seconds=30)


@pytest.mark.parametrize("ahead", [timedelta(minutes=20), timedelta(minutes=-20), timedelta(days=400)])
def test_a_host_whose_clock_is_wrong_takes_nothing_from_others(published: list[str], ahead: timedelta) -> None:
    messages = [send_mail("s", "b", to=f"r{number}@example.com") for number in range(3)]
    assert len(outbox.claim([message.pk for message in messages], "elsewhere:1")) == 3
    with host_ahead_by(ahead):
        if not shared_clock():
            return
        assert outbox.sweep(timezone.now()) == []
        assert not Message.objects.exclude(state=State.SENDING).exists()
        # Its own claims hold for all others as long as theirs.
        outbox.release_claim("elsewhere:1")
        assert len(outbox.claim([message.pk for message in messages], "here:1")) == 3
    due_at = Message.objects.first().due_at  # type: ignore[union-attr]
    assert due_at is not None
    assert about_now(due_at, timedelta(minutes=15))
    assert outbox.sweep(timezone.now()) == []


def test_a_clock_that_is_set_while_the_worker_runs_is_noticed_at_once() -> None:
    assert about_now(clock.now())
    with host_ahead_by(timedelta(0)):
        clock.now()
        ahead = timedelta(hours=3)
        now, seconds = timezone.now, time.time
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(timezone, "now", lambda: now() + ahead)
            patch.setattr(clock.time, "time", lambda: seconds() + ahead.total_seconds())
            assert about_now(clock.now(), timedelta(0) if not shared_clock() else -ahead)


def test_a_database_that_was_away_at_the_first_question_is_asked_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    if not shared_clock():
        return
    with host_ahead_by(timedelta(hours=1)):
        statements = dict(clock._STATEMENTS)
        with monkeypatch.context() as patch:
            # As far as the caller can tell.
            patch.setattr(clock, "_STATEMENTS", dict.fromkeys(statements, "SELECT nothing FROM nowhere"))
            clock.now()
            clock.now()
        # What is written a moment later would wait for an hour.
        assert about_now(clock.now(), timedelta(hours=-1))


def test_a_worker_and_health_tell_that_clocks_are_apart(
    published: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "_difference_told_at", -1e9)
    tasks.sweep(timezone.now().timestamp())
    assert "clock" not in caplog.text
    with host_ahead_by(timedelta(minutes=10)):
        for _ in range(3):
            tasks.sweep(timezone.now().timestamp())
        told = [record for record in caplog.records if "The clock of this host" in record.message]
        assert len(told) == (1 if shared_clock() else 0)
        assert all(record.levelno == logging.WARNING and " 600." in record.message for record in told)
        assert any("rel\u00f3gio" in problem for problem in check_health().problems) == shared_clock()


def test_a_worker_that_no_sweep_reaches_tells_it_as_well(
    published: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "_difference_told_at", -1e9)
    with host_ahead_by(timedelta(minutes=-10)):
        for _ in range(3):
            sweep.look_at_sweep_again()
            sweep.after_delivery(made_due=False)
    assert caplog.text.count("The clock of this host is 600") == (1 if shared_clock() else 0)


@pytest.mark.email_settings
def test_a_machine_that_was_suspended_sends_nothing_that_others_have_taken_meanwhile(
    published: list[str], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.EMAIL_BACKEND = f"{__name__}.Backend"
    monkeypatch.setattr(Backend, "taken", [])
    with transaction.atomic():
        keys = [send_mail("s", "b", to=f"r{number}@example.com").pk for number in range(5)]
    elsewhere: list[Message] = []

    def suspend() -> None:
        away = timedelta(hours=1)
        now, elapsed = clock.now, clock.elapsed
        # time.monotonic() stands still meanwhile.
        monkeypatch.setattr(clock, "now", lambda: now() + away)
        monkeypatch.setattr(clock, "elapsed", lambda: elapsed() + away.total_seconds())
        outbox.sweep(clock.now())
        # Each alone, since their worker may have died of one of them.
        for key in keys:
            elsewhere.extend(outbox.claim([key], "elsewhere:1"))

    monkeypatch.setattr(Backend, "before", staticmethod(suspend), raising=False)
    deliver(keys)
    assert len(Backend.taken) == 1
    assert {message.pk for message in elsewhere} == set(keys)
    # What was in the server's hands before has been accepted, and is recorded all the same.
    sent = Message.objects.get(state=State.SENT)
    assert Message.objects.exclude(pk=sent.pk).filter(token="elsewhere:1", state=State.SENDING).count() == 4


def test_a_database_that_does_not_answer_is_no_reason_to_raise() -> None:
    clock.forget()
    with mock.patch.object(connection, "cursor", side_effect=OperationalError("away")):
        assert about_now(clock.now())
    clock.forget()


@pytest.mark.parametrize(("zone", "is_error"), [("America/New_York", True), ("UTC", False), ("America/Recife", False)])
def test_a_database_with_daylight_saving_is_an_error(
    zone: str, is_error: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections["default"], "timezone", ZoneInfo(zone))
    found = check_time_zones(None)
    assert [error.id for error in found] == ["congressy_mailer.E013"] * is_error
    assert all(zone in str(error.msg) for error in found)


def test_a_worker_of_a_host_that_commits_by_hand_sends_each_mail_once(
    start_worker: Callable[..., Any], smtp_server: Any
) -> None:
    worker = start_worker(MAILER_TEST_AUTOCOMMIT="0", MAILER_TEST_SWEEP_INTERVAL_SECONDS="1")
    messages = [send_mail("s", "b", to=f"r{number}@example.com") for number in range(3)]
    wait_for(lambda: Message.objects.filter(state=State.SENT).count() == 3, 60, "three mails")
    # Several sweeps find nothing more.
    sweeps = worker.output().count("congressy_mailer.sweep")
    wait_for(lambda: worker.output().count("congressy_mailer.sweep") > sweeps + 6, 60, "sweeps")
    assert Message.objects.filter(attempts=1).count() == len(messages)
    assert len(smtp_server.mailbox) == 3


def test_a_task_inside_a_transaction_of_the_host_refuses(start_worker: Callable[..., Any]) -> None:
    worker = start_worker(MAILER_TEST_ATOMIC_TASKS="1")
    message = send_mail("s", "b", to="ana@example.com")
    wait_for(lambda: "do not wrap these tasks in atomic()" in worker.output(), 60, "the refusal")
    assert Message.objects.get(pk=message.pk).state == State.QUEUED


def test_a_sweep_of_a_host_whose_clock_is_wrong_tells_what_time_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    sweeps: list[tuple[Any, ...]] = []

    def send(task: str, *arguments: Any, **options: Any) -> bool:
        if task == sending.SWEEP:
            sweeps.append(arguments)
        return True

    monkeypatch.setattr(sending, "send", send)
    for ahead in (timedelta(hours=1), timedelta(hours=-1)):
        with host_ahead_by(ahead):
            clock.now()
            sending.publish_sweep()
    if not shared_clock():
        assert [behind for _, behind in sweeps] == [None, None]
        return
    # It is run where the clock is right.
    message = send_mail("s", "b", to="ana@example.com")
    now = clock.now()
    for published_at, behind in sweeps:
        assert abs(published_at + behind - now.timestamp()) < 30
    # Published before the message went into the queue: that it waits there is no sign that it was lost.
    Message.objects.update(due_at=now + timedelta(minutes=1))
    with monkeypatch.context() as patch:
        patch.setattr(clock, "now", lambda: now + timedelta(minutes=5))
        found: list[Any] = []
        patch.setattr(sweep.publishing, "publish", lambda ids, **options: bool(found.extend(ids)) or True)
        for published_at, behind in sweeps:
            tasks.sweep(published_at, behind)
        assert found == []
        # And one that was published later is, whatever its host's clock said.
        tasks.sweep(sweeps[0][0] + 120, sweeps[0][1])
        assert found == [message.pk]


def test_the_parent_of_a_worker_knows_what_its_children_have_found() -> None:
    before = host_clock.seconds_behind()
    try:
        host_clock.tell(0.5)
        child = os.fork()
        if not child:
            host_clock.tell(-7.25)
            os._exit(0)
        os.waitpid(child, 0)
        assert host_clock.seconds_behind() == -7.25
    finally:
        host_clock.tell(before if before is not None else float("nan"))
