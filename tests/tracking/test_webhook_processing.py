"""Batches of SparkPost's events: processed by one task, set aside where they cannot be, purged."""

from __future__ import annotations

import json
import sqlite3
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone

from congressy_mailer import outbox
from congressy_mailer.health import check_health
from congressy_mailer.models import Event, WebhookBatch
from congressy_mailer.tracking import inbox, processing
from tests.conftest import run_concurrently
from tests.support.mails import queue_message
from tests.support.sparkpost_events import batch_body, event
from tests.support.webhook import post, process_all

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("webhook_secrets")]


@pytest.mark.database
@pytest.mark.django_db(transaction=True)
def test_of_several_tasks_for_a_batch_one_takes_it(published: list[str]) -> None:
    post(batch_body(event("delivery")))
    batch = WebhookBatch.objects.get()
    assert batch.due_at is not None
    ticket = (batch.id, batch.due_at)
    taken = [one for one in run_concurrently(lambda number: inbox.claim(ticket)) if one is not None]
    assert len(taken) == 1
    assert inbox.save_progress(taken[0], 1, "")
    WebhookBatch.objects.update(due_at=timezone.now())
    assert not inbox.save_progress(taken[0], 1, "")


def test_an_event_that_cannot_be_written_down_leaves_the_others_alone(
    published: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    message = queue_message()
    track = processing.track

    def poisonous(events: Any) -> int:
        if any(one.key == "666" for one in events):
            raise ValueError("about ana@example.com")
        return track(events)

    monkeypatch.setattr(processing, "track", poisonous)
    told = [
        event("open", message, at, event_id=str(number)) for number, at in zip(range(660, 670), range(10), strict=True)
    ]
    post(batch_body(*told))
    post(batch_body(event("delivery", message)))
    process_all()
    assert Event.objects.filter(type="opened").count() == 9
    assert Event.objects.filter(type="delivered").count() == 1
    aside = WebhookBatch.objects.exclude(problem="").get()
    assert aside.problem.startswith("Event 666 cannot be recorded: ValueError in ")
    assert aside.due_at is None
    assert len(json.loads(inbox.body_of(aside))) == 10
    assert "is set aside" in caplog.text
    assert "ana@example.com" not in caplog.text + aside.problem


def test_a_batch_that_kills_its_workers_is_set_aside_seen_and_processed_again_on_demand(published: list[str]) -> None:
    post(batch_body(event("delivery")))
    for _ in range(3):
        WebhookBatch.objects.update(due_at=timezone.now())
        assert inbox.claim(inbox.due_batches()[0]) is not None
    process_all()
    assert "begun 3 times without progress" in WebhookBatch.objects.get().problem
    assert not Event.objects.exists()
    assert check_health().webhook_batches_set_aside == 1
    assert any(problem.startswith("1 lote de eventos da SparkPost") for problem in check_health().problems)
    assert inbox.process_again(inbox.set_aside()) == 1
    assert check_health().webhook_batches_set_aside == 0
    process_all()
    assert Event.objects.filter(type="delivered").count() == 1


def test_a_batch_goes_on_where_its_last_worker_has_died(published: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    message = queue_message()
    monkeypatch.setattr(processing, "_CHUNK", 10)
    post(batch_body(*(event("open", message, at) for at in range(95))))
    track = processing.track
    calls = []

    def die(events: Any) -> int:
        calls.append([one.event.at for one in events])
        if len(calls) in (4, 6):
            raise SystemExit
        return track(events)

    monkeypatch.setattr(processing, "track", die)
    for _ in range(2):
        with pytest.raises(SystemExit):
            process_all()
    process_all()
    assert message.events.filter(type="opened").count() == 95
    # Ten pieces, and each of those again in which a worker died: nothing before it.
    assert len(calls) == 12
    assert calls[4] == calls[3]
    assert calls[6] == calls[5]
    assert WebhookBatch.objects.get().problem == ""


@pytest.mark.django_db(transaction=True)
def test_events_that_the_database_refuses_each_time_are_set_aside_without_the_others(
    published: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = queue_message()
    track = processing.track

    def refused(events: Any) -> int:
        if any(one.key == "666" for one in events):
            raise OperationalError("value too deep for this index") from sqlite3.OperationalError("x")
        return track(events)

    monkeypatch.setattr(processing, "track", refused)
    post(batch_body(*(event("open", message, at, event_id=str(660 + at)) for at in range(10))))
    process_all()
    assert message.events.filter(type="opened").count() == 9
    assert WebhookBatch.objects.get().problem.startswith("Event 666 cannot be recorded: OperationalError")


@pytest.mark.django_db(transaction=True)
def test_a_batch_that_is_broken_off_each_time_waits_longer_and_is_set_aside_in_the_end(
    published: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(events: Any) -> int:
        raise OperationalError("database is locked") from sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(processing, "track", locked)
    post(batch_body(event("delivery")))
    waits = []
    for _ in range(3):
        with pytest.raises(OperationalError):
            process_all()
        due_at = WebhookBatch.objects.get().due_at
        assert due_at is not None
        waits.append(due_at - timezone.now())
    assert waits == sorted(waits)
    assert waits[0] > timedelta(seconds=10)
    process_all()
    assert "without progress" in WebhookBatch.objects.get().problem


def test_with_the_database_away_it_waits(published: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    post(batch_body(event("delivery")))
    track = processing.track

    def away(events: Any) -> int:
        raise OperationalError("away") from sqlite3.OperationalError("away")

    monkeypatch.setattr(processing, "track", away)
    monkeypatch.setattr(processing, "is_away", lambda: True)
    for _ in range(5):
        with pytest.raises(OperationalError):
            process_all()
    assert WebhookBatch.objects.get().problem == ""
    monkeypatch.setattr(processing, "track", track)
    process_all()
    assert Event.objects.count() == 1


def test_a_large_batch_is_written_down_in_pieces_that_others_see(published: list[str]) -> None:
    message = queue_message()
    post(batch_body(*(event("open", message, at) for at in range(1203))))
    process_all()
    assert message.events.filter(type="opened").count() == 1203
    assert WebhookBatch.objects.get().due_at is None


@pytest.mark.database
def test_batches_and_events_of_others_are_purged(settings: Any, published: list[str]) -> None:
    for number, type in enumerate(["delivery", "open", "click"]):
        post(batch_body(event(type, event_id=f"1{number}")))
    done, waiting, recent = WebhookBatch.objects.order_by("received_at")
    for batch in (done, recent):
        assert batch.due_at is not None
        processing.process((batch.id, batch.due_at))
    long_ago = timezone.now() - timedelta(days=8)
    WebhookBatch.objects.exclude(id=recent.id).update(received_at=long_ago)
    Event.objects.filter(key="10").update(at=timezone.now() - timedelta(days=366))
    Event.objects.filter(key="12").update(at=timezone.now() - timedelta(days=364))
    while outbox.purge():
        pass
    # What still waits for a worker stays, however old it is.
    assert {one.id for one in WebhookBatch.objects.all()} == {waiting.id, recent.id}
    assert [one.key for one in Event.objects.all()] == ["12"]


def test_an_item_that_cannot_be_read_leaves_the_others_alone(published: list[str]) -> None:
    message = queue_message()
    deep = '{"msys": {"message_event": {"type": "open", "deep": ' + "[" * 200_000 + "]" * 200_000 + "}}}"
    long = json.dumps(event("open", message, 1)).replace('"type"', '"long": ' + "7" * 5_000 + ', "type"')
    body = f"[{json.dumps(event('delivery', message))}, {deep}, {long}]"
    assert post(body.encode()) == 200
    process_all()
    assert sorted(message.events.exclude(key=None).values_list("type", flat=True)) == ["delivered", "opened"]
    assert WebhookBatch.objects.get().problem == "An event is nested too deeply to be read."
