"""Dropping what is old, in chunks; and only what nobody can send any more."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.db.models.signals import post_delete
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from congressy_mailer import cancel, outbox, send_mail, tasks
from congressy_mailer.delivery import upkeep
from congressy_mailer.exceptions import InvalidTransition
from congressy_mailer.models import Attachment, Batch, Event, Message, RecipientStatus, State
from congressy_mailer.outbox import retention
from congressy_mailer.replies import Outcome, Reply
from tests.conftest import run_concurrently
from tests.support.mails import queue
from tests.support.purging import finish, purge
from tests.support.storages import Stubborn, stored_paths, use_stubborn_storage

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database]

MOVING = (State.SCHEDULED, State.QUEUED, State.SENDING, State.DEFERRED)


@pytest.fixture(autouse=True)
def files(settings: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, published: list[str]) -> type[Stubborn]:
    """A storage of the test's own; nothing is published."""
    return use_stubborn_storage(settings, monkeypatch, str(tmp_path))


@pytest.fixture
def keep(settings: Any) -> Callable[..., None]:
    def change(**values: timedelta | None) -> None:
        settings.CONGRESSY_MAILER = values

    return change


def has_content(key: UUID) -> bool:
    message = Message.objects.get(pk=key)
    content = {name: getattr(message, name) for name in retention.DROPPED}
    if message.content_dropped_at is not None:
        assert content == retention.DROPPED
        assert message.mime is None
        return False
    assert any(content.values())
    return True


def test_old_content_goes_and_the_message_stays() -> None:
    (old,) = queue(
        attachments=[("boleto.pdf", b"%PDF"), ("b.txt", b"b")], headers={"X-Order": "7"}, html_message="<p>x",
        reply_to="bia@example.com", campaign="may", tags=["invoice"], metadata={"order": "7"},
        sparkpost={"options": {"ip_pool": "invoices"}},
    )  # fmt: skip
    with_template = send_mail("x", to="ana@example.com", template="mail/hello", context={"user": {"name": "Ana"}}).pk
    (young,) = queue(attachments=[("boleto.pdf", b"%PDF")])
    finish([old, with_template], days=30, seconds=1)
    finish([young], days=29)
    assert len(stored_paths()) == 3
    purge()
    assert [has_content(key) for key in (old, with_template, young)] == [False, False, True]
    assert not Attachment.objects.filter(message_id=old).exists()
    assert [attachment.file.name for attachment in Attachment.objects.all()] == stored_paths()
    message = Message.objects.get(pk=old)
    assert (message.to, message.state, message.from_email) == (["ana@example.com"], State.SENT, "mail@congressy.net")
    assert message.message_id
    assert Message.objects.get(pk=with_template).template == "mail/hello"


@pytest.fixture
def heard() -> Iterator[list[UUID]]:
    """Keys of the messages of whose deletion a receiver of the host's is told."""
    keys: list[UUID] = []

    def receive(instance: Message, **kwargs: object) -> None:
        keys.append(instance.pk)

    post_delete.connect(receive, sender=Message)
    yield keys
    post_delete.disconnect(receive, sender=Message)


def test_a_host_that_follows_deletions_is_told_of_each(heard: list[UUID]) -> None:
    ids = queue(3)
    finish(ids, days=366)
    purge()
    assert sorted(heard) == sorted(ids)
    assert not Message.objects.exists()


def test_old_messages_go_with_everything_that_belongs_to_them() -> None:
    old, young = queue(2, attachments=[("boleto.pdf", b"%PDF")])
    for key in (old, young):
        Event.objects.create(message_id=key, type=Event.Type.DEFERRED, at=timezone.now())
        RecipientStatus.objects.create(message_id=key, recipient="ana@example.com")
    finish([old], days=366)
    finish([young], days=364)
    purge()
    assert list(Message.objects.values_list("pk", flat=True)) == [young]
    assert list(Event.objects.values_list("message_id", flat=True)) == [young]
    assert list(RecipientStatus.objects.values_list("message_id", flat=True)) == [young]
    assert stored_paths() == []


@pytest.mark.parametrize("state", State)
def test_only_what_is_final_is_ever_purged(state: State) -> None:
    (key,) = queue(attachments=[("a", b"1")])
    long_ago = timezone.now() - timedelta(days=4000)
    Message.objects.update(state=state, created_at=long_ago, queued_at=long_ago, due_at=long_ago, finished_at=long_ago)
    if state in MOVING:
        # As the outbox has them; the state alone must be enough to be left alone, too.
        purge()
        assert has_content(key)
        Message.objects.update(finished_at=None)
        purge()
        assert has_content(key)
        assert len(stored_paths()) == 1
    else:
        purge()
        assert not Message.objects.exists()
        assert stored_paths() == []


@pytest.mark.parametrize("sensitive", [False, True])
def test_nothing_is_dropped_of_a_message_that_was_queued_again_since_it_was_found(
    monkeypatch: pytest.MonkeyPatch, sensitive: bool
) -> None:
    """As on a database without SKIP LOCKED, where what was found is not locked."""
    retried, resent, again = queue(3, attachments=[("a", b"1")], sensitive=sensitive)
    finish([retried, resent, again], State.FAILED, days=400)

    def meanwhile(ids: Any, still: Any) -> Any:
        if retried in ids:
            outbox.retry(retried)
            outbox.resend(resent)
            # Sent once more, and at its end again: what it says is new.
            outbox.resend(again)
            finish([again], State.FAILED, hours=1)
        return original(ids, still)

    original = retention._drop
    monkeypatch.setattr(retention, "_drop", meanwhile)
    purge()
    assert [has_content(key) for key in (retried, resent, again)] == [True, True, True]
    assert len(stored_paths()) == 3
    assert len(outbox.claim([retried, resent], "task:1")) == 2


def test_purging_and_queueing_again_at_the_same_time_never_leaves_a_queued_message_without_content() -> None:
    ids = queue(40)
    finish(ids, State.FAILED, days=31)

    def retry(some: list[UUID]) -> int:
        refused = 0
        for key in some:
            try:
                outbox.retry(key)
            except InvalidTransition:
                refused += 1
        return refused

    jobs = [purge, lambda: retry(ids[:20]), lambda: retry(list(reversed(ids[20:])))]
    run_concurrently(lambda worker: jobs[worker](), 3)
    assert not Message.objects.filter(state=State.QUEUED, content_dropped_at__isnull=False).exists()
    assert not Message.objects.filter(state=State.FAILED, content_dropped_at=None).exists()


def test_chunks_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_CHUNK", 10)
    ids = queue(25)
    finish(ids, days=31)
    assert outbox.purge()
    assert Message.objects.filter(content_dropped_at__isnull=False).count() == 10
    assert purge() == 2
    assert Message.objects.filter(content_dropped_at=None).count() == 0
    finish(ids, days=366)
    assert outbox.purge()
    assert Message.objects.count() == 15
    assert purge() == 2
    assert Message.objects.count() == 0
    assert purge() == 1


def test_more_than_a_real_chunk_goes() -> None:
    now = timezone.now()
    Message.objects.bulk_create(
        Message(
            state=State.SENT, created_at=now, finished_at=now - timedelta(days=400), message_id=f"<{turn}@a>", text="x",
            from_email="a@b.com", to=["ana@example.com"],
        )
        for turn in range(2201)
    )  # fmt: skip
    assert purge() == 3
    assert not Message.objects.exists()


def test_what_is_kept_for_ever_stays(keep: Callable[..., None]) -> None:
    (key,) = queue(attachments=[("a", b"1")])
    finish([key], days=10_000)
    keep(KEEP_CONTENT=None, KEEP_MESSAGES=None)
    purge()
    assert has_content(key)
    keep(KEEP_CONTENT=timedelta(days=1), KEEP_MESSAGES=None)
    purge()
    assert not has_content(key)
    assert stored_paths() == []


def test_content_that_is_kept_as_long_as_the_message_goes_with_it(keep: Callable[..., None]) -> None:
    old, young = queue(2, attachments=[("a", b"1")])
    finish([old], days=366)
    finish([young], days=364)
    keep(KEEP_CONTENT=None)
    purge()
    assert list(Message.objects.values_list("pk", flat=True)) == [young]
    assert has_content(young)
    assert len(stored_paths()) == 1


def test_messages_may_be_kept_for_less_time_than_content(keep: Callable[..., None]) -> None:
    old, young = queue(2, attachments=[("a", b"1")])
    finish([old], days=3)
    finish([young], days=1)
    keep(KEEP_CONTENT=timedelta(days=30), KEEP_MESSAGES=timedelta(days=2))
    purge()
    assert list(Message.objects.values_list("pk", flat=True)) == [young]
    assert has_content(young)


def test_age_counts_from_the_end() -> None:
    (key,) = queue()
    Message.objects.update(created_at=timezone.now() - timedelta(days=500))
    finish([key], days=1)
    purge()
    assert has_content(key)
    finish([key], State.FAILED, days=29)
    outbox.retry(key)
    outbox.cancel(key)
    Message.objects.update(created_at=timezone.now() - timedelta(days=500))
    purge()
    assert has_content(key)


def test_purges_at_the_same_time_do_not_get_in_each_others_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_CHUNK", 10)
    finish(queue(30, attachments=[("a", b"1")]), days=366)
    kept = queue(5, attachments=[("a", b"1")])
    run_concurrently(lambda worker: purge(), 3)
    purge()
    assert sorted(Message.objects.values_list("pk", flat=True)) == sorted(kept)
    assert len(stored_paths()) == 5


def test_a_batch_goes_with_its_last_message() -> None:
    long_ago = timezone.now() - timedelta(days=366)
    old, mixed = (Batch.objects.create(created_at=long_ago, stored_at=long_ago) for _ in range(2))
    first, second, third = queue(3)
    Message.objects.filter(pk=first).update(batch=old)
    Message.objects.filter(pk__in=[second, third]).update(batch=mixed)
    finish([first, second], days=366)
    finish([third], days=1)
    purge()
    assert list(Message.objects.values_list("pk", flat=True)) == [third]
    assert list(Batch.objects.values_list("pk", flat=True)) == [mixed.pk]


def test_what_has_come_to_its_end_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_CHUNK", 10)
    finish(queue(55), days=366)
    ended: set[str] = set()
    passes = []
    more = True
    while more:
        with CaptureQueriesContext(connection) as queries:
            more = upkeep.purge_some(ended)
        passes.append([query["sql"] for query in queries])
    assert not Message.objects.exists()
    assert len(passes) > 5
    for table in ("webhookbatch", "suppressionremoval"):
        assert [sum(table in sql and "SELECT" in sql for sql in sqls) for sqls in passes[1:]] == [0] * (len(passes) - 1)


def test_a_batch_is_not_looked_through_before_anything_of_it_can_be_old(keep: Callable[..., None]) -> None:
    batches = [
        Batch.objects.create(created_at=timezone.now() - timedelta(days=age), stored_at=timezone.now(), **options)
        for age, options in ((29, {}), (31, {}), (1, {"sensitive": True}))
    ]
    with CaptureQueriesContext(connection) as queries:
        purge()
    looked_through = [query["sql"] for query in queries if "batch_id" in query["sql"] and "SELECT 1" in query["sql"]]
    assert len(looked_through) == 2
    kept = [Batch.objects.get(pk=batch.pk).content_dropped_at is None for batch in batches]
    assert kept == [True, False, False]


def test_content_of_a_batch_is_kept_for_a_caller_who_may_go_on(keep: Callable[..., None]) -> None:
    batch = Batch.objects.create(created_at=timezone.now() - timedelta(days=29), subject="x", text="y", key="k")
    purge()
    batch.refresh_from_db()
    assert batch.subject == "x"
    Batch.objects.update(created_at=timezone.now() - timedelta(days=60), last_stored_at=timezone.now())
    purge()
    assert Batch.objects.get().subject == "x"
    Batch.objects.update(last_stored_at=timezone.now() - timedelta(days=31))
    purge()
    assert Batch.objects.get().content_dropped_at is not None


def test_what_was_dropped_cannot_be_sent_again_and_that_is_said() -> None:
    sent, failed = queue(2)
    finish([sent], days=31)
    finish([failed], State.FAILED, days=31)
    purge()
    message = Message.objects.get(pk=failed)
    with pytest.raises(InvalidTransition, match="has nothing left to say: its content has been dropped"):
        message.retry()
    with pytest.raises(InvalidTransition, match="has nothing left to say: its content has been dropped"):
        outbox.resend(sent)
    finish([failed], State.FAILED, days=366)
    purge()
    with pytest.raises(InvalidTransition, match="is gone"):
        message.retry()


def test_an_idempotency_key_is_known_for_as_long_as_its_message() -> None:
    first = send_mail("x", "y", to="ana@example.com", idempotency_key="order-1")
    finish([first.pk], days=31)
    purge()
    assert not has_content(first.pk)
    assert send_mail("x", "y", to="ana@example.com", idempotency_key="order-1").pk == first.pk
    finish([first.pk], days=366)
    purge()
    again = send_mail("x", "y", to="ana@example.com", idempotency_key="order-1")
    assert again.pk != first.pk
    assert again.state == State.QUEUED


# What is sensitive


def test_sensitive_content_goes_when_it_is_sent() -> None:
    (key,) = queue(sensitive=True, attachments=[("a", b"1")])
    (message,) = outbox.claim([key], "task:1")
    outbox.record("task:1", message, Outcome(key, accepted=("ana@example.com",), reply=Reply(250, "OK")))
    assert not has_content(key)
    assert stored_paths() == []


def test_sensitive_content_goes_when_the_rest_of_the_recipients_is_given_up() -> None:
    (key,) = queue(sensitive=True, to=["ana@example.com", "eva@example.com"], attachments=[("a", b"1")])
    (message,) = outbox.claim([key], "task:1")
    refused = {"eva@example.com": Reply(451, "4.7.1")}
    outbox.record(
        "task:1", message, Outcome(key, accepted=("ana@example.com",), deferred=refused, reply=Reply(250, "OK"))
    )
    assert has_content(key)
    long_ago = timezone.now() - timedelta(days=3)
    Message.objects.update(due_at=timezone.now(), first_attempt_at=long_ago)
    (message,) = outbox.claim([key], "task:2")
    outbox.record("task:2", message, Outcome(key, deferred=refused, reply=Reply(451, "4.7.1")))
    assert Message.objects.get(pk=key).state == State.SENT
    assert not has_content(key)
    assert stored_paths() == []


def test_sensitive_content_of_a_claim_that_was_lost_stays() -> None:
    (key,) = queue(sensitive=True)
    (message,) = outbox.claim([key], "task:1")
    Message.objects.update(token="task:2")
    outbox.record("task:1", message, Outcome(key, rejected={"ana@example.com": Reply(550, "no")}))
    retention.drop_content([key])
    assert has_content(key)
    # Only a mail that has left needs it no more, whoever holds it.
    outbox.record("task:1", message, Outcome(key, accepted=("ana@example.com",), reply=Reply(250, "OK")))
    assert not has_content(key)


def test_sensitive_content_of_what_is_not_wanted_any_more_goes_with_the_next_purge() -> None:
    cancelled, expired, ordinary = (
        send_mail("Senha", "991122", to="ana@example.com", sensitive=sensitive, attachments=[("a", b"1")])
        for sensitive in (True, True, False)
    )
    assert cancel(cancelled)
    assert cancel(ordinary)
    Message.objects.filter(pk=expired.pk).update(expires_at=timezone.now(), due_at=timezone.now())
    assert outbox.sweep(timezone.now()) == []
    expired.refresh_from_db()
    assert expired.state == State.EXPIRED
    purge()
    assert [has_content(message.pk) for message in (cancelled, expired, ordinary)] == [False, False, True]
    assert len(stored_paths()) == 1
    with pytest.raises(InvalidTransition, match="its content has been dropped"):
        cancelled.retry()


@pytest.mark.parametrize("state", [State.FAILED, State.HELD])
def test_sensitive_content_waits_for_a_person_as_long_as_it_would_have_been_tried(state: State) -> None:
    (key,) = queue(sensitive=True, attachments=[("a", b"1")])
    finish([key], state, hours=47)
    purge()
    assert has_content(key)
    Message.objects.get(pk=key).retry()
    assert Message.objects.get(pk=key).state == State.QUEUED
    finish([key], state, hours=49)
    purge()
    assert not has_content(key)
    assert stored_paths() == []


def test_sensitive_content_is_not_kept_for_ever_where_other_content_is(keep: Callable[..., None]) -> None:
    (sent,), (failed,) = queue(sensitive=True), queue(sensitive=True)
    finish([sent], days=0)
    finish([failed], State.FAILED, hours=3)
    keep(KEEP_CONTENT=None, KEEP_MESSAGES=None, RETRY_FOR=timedelta(hours=2))
    purge()
    assert [has_content(sent), has_content(failed)] == [False, False]


def test_sensitive_content_that_is_moving_stays() -> None:
    ids = queue(4, sensitive=True)
    for key, state in zip(ids, MOVING, strict=True):
        Message.objects.filter(pk=key).update(state=state)
    purge()
    assert all(has_content(key) for key in ids)


# What the worker does by itself


def test_the_workers_purge_drops_everything_that_is_due(published: list[str]) -> None:
    finish(queue(3, attachments=[("a", b"1")]), days=366)
    published.clear()
    tasks.sweep(time.time())
    assert published == ["purge"]
    tasks.purge()
    assert not Message.objects.exists()
    assert stored_paths() == []
