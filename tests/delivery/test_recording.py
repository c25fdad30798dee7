"""What the mail server has said is written down together with what it says next, and never much later."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from congressy_mailer import outbox, signals, throttling
from congressy_mailer.delivery import composing, recording
from congressy_mailer.delivery.deadlines import Deadlines
from congressy_mailer.exceptions import TransportUnavailable
from congressy_mailer.models import Message, State
from congressy_mailer.replies import Outcome, Reply
from congressy_mailer.signals import transport_unavailable
from congressy_mailer.testing.local_sparkpost.replies import Exchange, Stage
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from tests.conftest import reset_throttling, wait_for
from tests.support.mails import deliver, queue

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.email_settings]


@pytest.fixture(autouse=True)
def configured(smtp_server: LocalSparkPost, published: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process delivers to the test's mail server, over Django's SMTP backend."""
    for name, value in smtp_server.environment().items():
        monkeypatch.setenv(name, value)
    with override_settings(
        EMAIL_BACKEND="django.core.mail.backends.smtp.EmailBackend",
        EMAIL_HOST="localhost",
        EMAIL_PORT=smtp_server.port,
        EMAIL_HOST_PASSWORD=smtp_server.password,
    ):
        yield


def sent() -> int:
    return Message.objects.filter(state=State.SENT).count()


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.CONTENT])
def test_it_is_written_down_while_the_server_thinks_about_the_next_mail(
    stage: Stage, smtp_server: LocalSparkPost, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Long, so that only the waiting can be the reason.
    monkeypatch.setattr(recording, "LONGEST_PENDING", 60.0)
    holding, go_on = threading.Event(), threading.Event()

    def hold(exchange: Exchange) -> None:
        if exchange.stage is stage and len(smtp_server.mailbox) == 2:
            holding.set()
            go_on.wait(20)

    def watch() -> int:
        try:
            assert holding.wait(20)
            wait_for(lambda: sent() == 2, 10, "the record of the mails before")
            return sent()
        finally:
            go_on.set()
            connection.close()

    smtp_server.script = hold
    with ThreadPoolExecutor(1) as threads:
        meanwhile = threads.submit(watch)
        deliver(queue(3))
        assert meanwhile.result() == 2
    assert sent() == 3


def test_receivers_are_told_while_no_content_is_on_its_way(smtp_server: LocalSparkPost) -> None:
    on_their_way: list[int] = []
    holding, go_on = threading.Event(), threading.Event()

    def hold(exchange: Exchange) -> None:
        if exchange.stage is Stage.CONTENT and len(smtp_server.mailbox) == 1:
            holding.set()
            go_on.wait(20)

    def watch() -> None:
        try:
            assert holding.wait(20)
            # The first mail is written down while the server thinks about the second.
            wait_for(lambda: sent() == 1, 20, "the record of the mail before")
        finally:
            go_on.set()
            connection.close()

    def note(message: Message, **kwargs: Any) -> None:
        on_their_way.append(Message.objects.filter(state=State.SENDING).count())

    smtp_server.script = hold
    signals.sent.connect(note, sender=Message)
    try:
        with ThreadPoolExecutor(1) as threads:
            meanwhile = threads.submit(watch)
            deliver(queue(3))
            meanwhile.result()
    finally:
        signals.sent.disconnect(note, sender=Message)
    # The server waits for the content of the third, and has not been sent any of it.
    assert on_their_way == [1, 1, 0]


def test_it_is_written_down_before_a_template_can_hang(
    smtp_server: LocalSparkPost, monkeypatch: pytest.MonkeyPatch
) -> None:
    compose: Callable[..., Any] = composing.compose
    missing = []

    def counting(*arguments: Any) -> Any:
        missing.append(len(smtp_server.mailbox) - sent())
        return compose(*arguments)

    monkeypatch.setattr(composing, "compose", counting)
    # A busy machine must not end the slice before all are sent.
    with override_settings(CONGRESSY_MAILER={"TIME_SLICE": timedelta(minutes=1)}):
        deliver(queue(50))
    assert len(missing) == sent() == 50
    assert set(missing) == {0}


def written_down(server: LocalSparkPost) -> bool:
    """Whether others find in the database what the server has said to each mail that it has taken."""

    def look() -> bool:
        try:
            return sent() == len(server.mailbox) > 0
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(look).result()


def test_it_is_written_down_before_a_server_says_goodbye(smtp_server: LocalSparkPost) -> None:
    found = []

    def look(exchange: Exchange) -> None:
        if exchange.stage is Stage.QUIT:
            found.append(written_down(smtp_server))

    smtp_server.script = look
    ids = queue(101)
    with override_settings(CONGRESSY_MAILER={"SLICE_SIZE": 200, "TIME_SLICE": timedelta(seconds=60)}):
        deliver(ids)
    assert found == [True]
    assert sent() == 101


def test_it_is_written_down_before_anybody_is_told_that_the_server_is_away(smtp_server: LocalSparkPost) -> None:
    def refuse(exchange: Exchange) -> str | None:
        away = len(smtp_server.mailbox) >= 3 and exchange.stage is Stage.MAIL
        return "530 5.7.0 Authentication required" if away else None

    found = []

    def look(**options: Any) -> None:
        found.append(written_down(smtp_server))

    smtp_server.script = refuse
    transport_unavailable.connect(look)
    try:
        with pytest.raises(TransportUnavailable):
            deliver(queue(6))
    finally:
        transport_unavailable.disconnect(look)
    assert found == [True]
    assert sent() == 3


def test_it_is_written_down_before_what_has_to_wait_for_a_lock(
    smtp_server: LocalSparkPost, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = outbox.record
    found = []

    def locked(*arguments: Any) -> Any:
        found.append(written_down(smtp_server))
        return record(*arguments)

    def refuse(exchange: Exchange) -> str | None:
        return "451 4.7.1 greylisted" if exchange.stage is Stage.RCPT and len(smtp_server.mailbox) == 2 else None

    monkeypatch.setattr(outbox, "record", locked)
    smtp_server.script = refuse
    deliver(queue(3))
    assert found == [True]
    assert sent() == 2


def test_it_is_written_down_before_redis_is_asked(smtp_server: LocalSparkPost, monkeypatch: pytest.MonkeyPatch) -> None:
    run = throttling.store_choice.limit_stores.run
    found = []

    def look(operation: Any) -> Any:
        if smtp_server.mailbox:
            found.append(written_down(smtp_server))
        return run(operation)

    reset_throttling()
    monkeypatch.setattr(throttling.store_choice.limit_stores, "run", look)
    # Before each mail.
    monkeypatch.setattr(throttling.limiter, "_REFRESH_INTERVAL", 0)
    with override_settings(CONGRESSY_MAILER={"TIME_SLICE": timedelta(minutes=1)}):
        deliver(queue(5))
    assert found
    assert all(found)
    assert sent() > 0


def test_many_are_written_down_at_once(smtp_server: LocalSparkPost) -> None:
    ids = queue(60)
    # A busy machine may take longer than a time slice.
    unhurried = override_settings(CONGRESSY_MAILER={"TIME_SLICE": timedelta(minutes=1)})
    with unhurried, CaptureQueriesContext(connection) as queries:
        deliver(ids)
    writes = [query for query in queries if query["sql"].lstrip().startswith("UPDATE") and "CASE id" in query["sql"]]
    assert sent() == 60
    # How many come at once is the machine's affair.
    assert 1 <= len(writes) < 60
    replies = dict(Message.objects.values_list("message_id", "reply"))
    assert all(mail.queue_id in replies[mail.message_id] for mail in smtp_server.mailbox)


def test_what_the_database_cannot_hold_keeps_no_other_from_being_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = queue(2)
    claimed = outbox.claim(ids, "t")
    recorder = recording.Recorder("t", Deadlines(), batch_accepted=True)

    def refuse(*arguments: Any) -> None:
        raise UnicodeError("no such character")

    monkeypatch.setattr(outbox, "record_accepted", refuse)
    for message in claimed:
        recorder.record(message, Outcome(message.pk, accepted=tuple(message.to), reply=Reply(250, "OK")))
    recorder.flush()
    assert sent() == 2


def test_where_a_crash_must_not_repeat_anything_each_is_written_down_at_once(smtp_server: LocalSparkPost) -> None:
    with override_settings(CONGRESSY_MAILER={"ON_CRASH": "hold"}), CaptureQueriesContext(connection) as queries:
        deliver(queue(3))
    assert not [query for query in queries if "CASE id" in query["sql"]]
    assert sent() == 3
