"""Dropping what is old, in chunks; and only what nobody can send any more."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, InMemoryStorage
from django.db import transaction
from django.utils import timezone

from congressy_mailer import cancel, outbox, periodic, send_mail, tasks
from congressy_mailer.exceptions import InvalidTransition
from congressy_mailer.models import ATTACHMENT_FOLDER, Attachment, Batch, Event, Message, State, attachment_storage
from congressy_mailer.outbox import retention
from congressy_mailer.replies import Outcome, Reply
from tests.conftest import run_concurrently

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database]

MOVING = (State.SCHEDULED, State.QUEUED, State.SENDING, State.DEFERRED)


class Stubborn(FileSystemStorage):
    """A storage that does not delete everything."""

    refusing: ClassVar[Callable[[str], bool]] = staticmethod(lambda name: False)
    asked: ClassVar[list[str]] = []

    def delete(self, name: str) -> None:
        type(self).asked.append(name)
        if type(self).refusing(name):
            raise PermissionError(13, "Permission denied")
        super().delete(name)


class Forgetful(InMemoryStorage):
    """A storage that says when there is nothing to delete."""

    def delete(self, name: str) -> None:
        raise FileNotFoundError(2, "No such file")


def store_in(backend: str, settings: Any, monkeypatch: pytest.MonkeyPatch, **options: str) -> None:
    settings.STORAGES = {**settings.STORAGES, "default": {"BACKEND": backend, "OPTIONS": options}}
    # The model has asked for its storage when it was loaded.
    monkeypatch.setattr(Attachment._meta.get_field("file"), "storage", attachment_storage())


@pytest.fixture(autouse=True)
def files(settings: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> type[Stubborn]:
    """A storage of the test's own; nothing is published."""
    monkeypatch.setattr("congressy_mailer.mail.publish_on_commit", lambda ids: None)
    store_in(f"{__name__}.Stubborn", settings, monkeypatch, location=str(tmp_path), base_url="/media/")
    Stubborn.refusing = staticmethod(lambda name: False)
    Stubborn.asked.clear()
    return Stubborn


@pytest.fixture
def keep(settings: Any) -> Callable[..., None]:
    def change(**values: timedelta | None) -> None:
        settings.CONGRESSY_MAILER = values

    return change


def queue(count: int = 1, **options: Any) -> list[UUID]:
    return [send_mail("Boleto", "Pague já", **{"to": "ana@example.com", **options}).pk for _ in range(count)]


def finish(ids: list[UUID], state: State = State.SENT, **ago: float) -> None:
    finished_at = timezone.now() - timedelta(**ago)
    Message.objects.filter(pk__in=ids).update(state=state, due_at=None, token="", finished_at=finished_at)


def purge() -> int:
    """Purge as a worker does; returns the number of chunks."""
    chunks = 1
    while outbox.purge():
        chunks += 1
    return chunks


def stored() -> list[str]:
    """Attachment files in the storage."""
    storage = attachment_storage()
    try:
        days = storage.listdir(ATTACHMENT_FOLDER)[0]
    except FileNotFoundError:
        return []
    return [
        f"{ATTACHMENT_FOLDER}/{day}/{name}" for day in days for name in storage.listdir(f"{ATTACHMENT_FOLDER}/{day}")[1]
    ]


def has_content(key: UUID) -> bool:
    message = Message.objects.get(pk=key)
    content = (message.subject, message.text, message.html, message.context, message.mime, message.headers)
    if message.content_dropped_at is not None:
        assert content == ("", "", "", None, None, {})
        return False
    assert any(content)
    return True


def test_old_content_goes_and_the_message_stays() -> None:
    (old,) = queue(
        attachments=[("boleto.pdf", b"%PDF"), ("b.txt", b"b")], headers={"X-Order": "7"}, html_message="<p>x"
    )
    with_template = send_mail("x", to="ana@example.com", template="mail/hello", context={"user": {"name": "Ana"}}).pk
    (young,) = queue(attachments=[("boleto.pdf", b"%PDF")])
    finish([old, with_template], days=30, seconds=1)
    finish([young], days=29)
    assert len(stored()) == 3
    purge()
    assert [has_content(key) for key in (old, with_template, young)] == [False, False, True]
    assert not Attachment.objects.filter(message_id=old).exists()
    assert [attachment.file.name for attachment in Attachment.objects.all()] == stored()
    message = Message.objects.get(pk=old)
    assert (message.to, message.state, message.from_email) == (["ana@example.com"], State.SENT, "mail@congressy.net")
    assert message.message_id
    assert Message.objects.get(pk=with_template).template == "mail/hello"


def test_old_messages_go_with_everything_that_belongs_to_them() -> None:
    old, young = queue(2, attachments=[("boleto.pdf", b"%PDF")])
    for key in (old, young):
        Event.objects.create(message_id=key, type=Event.Type.DEFERRED, at=timezone.now())
    finish([old], days=366)
    finish([young], days=364)
    purge()
    assert list(Message.objects.values_list("pk", flat=True)) == [young]
    assert list(Event.objects.values_list("message_id", flat=True)) == [young]
    assert stored() == []


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
        assert len(stored()) == 1
    else:
        purge()
        assert not Message.objects.exists()
        assert stored() == []


@pytest.mark.parametrize("sensitive", [False, True])
def test_nothing_is_dropped_under_a_message_that_is_queued_again_at_that_moment(
    monkeypatch: pytest.MonkeyPatch, sensitive: bool
) -> None:
    retried, resent = queue(2, attachments=[("a", b"1")], sensitive=sensitive)
    finish([retried], State.FAILED, days=400)
    finish([resent], State.FAILED, days=400)
    original = retention.drop_content

    def meanwhile(ids: Any) -> int:
        for key, change in ((retried, outbox.retry), (resent, outbox.resend)):
            if key in ids:
                change(key)
        return original(ids)

    monkeypatch.setattr(retention, "drop_content", meanwhile)
    purge()
    assert [has_content(key) for key in (retried, resent)] == [True, True]
    assert set(Message.objects.values_list("state", flat=True)) == {State.QUEUED}
    assert len(stored()) == 2
    # Both can be sent.
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
        for turn in range(1201)
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
    assert stored() == []


def test_content_that_is_kept_as_long_as_the_message_goes_with_it(keep: Callable[..., None]) -> None:
    old, young = queue(2, attachments=[("a", b"1")])
    finish([old], days=366)
    finish([young], days=364)
    keep(KEEP_CONTENT=None)
    purge()
    assert list(Message.objects.values_list("pk", flat=True)) == [young]
    assert has_content(young)
    assert len(stored()) == 1


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


def test_a_storage_that_refuses_keeps_the_row_and_is_asked_again(
    files: type[Stubborn], caplog: pytest.LogCaptureFixture
) -> None:
    stuck, easy = queue(2, attachments=[("a", b"1")])
    name = Attachment.objects.get(message_id=stuck).file.name
    files.refusing = staticmethod(lambda asked: asked == name)
    finish([stuck, easy], days=366)
    purge()
    # Without its file, nobody would ever know of it again: so the row stays, and with it the message.
    assert stored() == [name]
    assert [attachment.file.name for attachment in Attachment.objects.all()] == [name]
    assert list(Message.objects.values_list("pk", flat=True)) == [stuck]
    assert not has_content(stuck)
    assert "cannot be deleted now: PermissionError: [Errno 13] Permission denied" in caplog.text
    files.refusing = staticmethod(lambda asked: False)
    purge()
    assert stored() == []
    assert not Attachment.objects.exists()
    assert not Message.objects.exists()


def test_files_that_are_stuck_never_stand_before_the_others(
    files: type[Stubborn], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_CHUNK", 4)
    stuck = queue(8, attachments=[("a", b"1")])
    names = set(Attachment.objects.values_list("file", flat=True))
    files.refusing = staticmethod(lambda asked: asked in names)
    easy = queue(8, attachments=[("a", b"1")])
    finish(stuck, days=800)
    finish(easy, days=700)
    for _ in range(20):
        purge()
    assert set(stored()) == names
    assert set(Message.objects.values_list("pk", flat=True)) == set(stuck)
    # Each is asked about again and again.
    assert {asked for asked in files.asked[-60:] if asked in names} == names


def test_a_file_that_is_gone_already_is_no_trouble(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store_in(f"{__name__}.Forgetful", settings, monkeypatch)
    (key,) = queue(attachments=[("a", b"1")])
    finish([key], days=31)
    purge()
    assert not Attachment.objects.exists()


def test_purges_at_the_same_time_do_not_get_in_each_others_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_CHUNK", 10)
    finish(queue(30, attachments=[("a", b"1")]), days=366)
    kept = queue(5, attachments=[("a", b"1")])
    run_concurrently(lambda worker: purge(), 3)
    purge()
    assert sorted(Message.objects.values_list("pk", flat=True)) == sorted(kept)
    assert len(stored()) == 5


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
    assert stored() == []


def test_sensitive_content_goes_when_the_rest_of_the_recipients_is_given_up() -> None:
    (key,) = queue(sensitive=True, to=["ana@example.com", "eva@example.com"], attachments=[("a", b"1")])
    (message,) = outbox.claim([key], "task:1")
    refused = {"eva@example.com": Reply(451, "4.7.1")}
    outbox.record(
        "task:1", message, Outcome(key, accepted=("ana@example.com",), deferred=refused, reply=Reply(250, "OK"))
    )
    assert has_content(key)
    long_ago = timezone.now() - timedelta(days=3)
    Message.objects.update(due_at=timezone.now(), queued_at=long_ago)
    (message,) = outbox.claim([key], "task:2")
    outbox.record("task:2", message, Outcome(key, deferred=refused, reply=Reply(451, "4.7.1")))
    assert Message.objects.get(pk=key).state == State.SENT
    assert not has_content(key)
    assert stored() == []


def test_sensitive_content_of_a_claim_that_was_lost_stays() -> None:
    (key,) = queue(sensitive=True)
    (message,) = outbox.claim([key], "task:1")
    Message.objects.update(token="task:2")
    outbox.record("task:1", message, Outcome(key, accepted=("ana@example.com",), reply=Reply(250, "OK")))
    retention.drop_content([key])
    assert has_content(key)


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
    assert len(stored()) == 1
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
    assert stored() == []


def test_sensitive_content_is_not_kept_for_ever_where_other_content_is(keep: Callable[..., None]) -> None:
    (sent,), (failed,) = queue(sensitive=True), queue(sensitive=True)
    finish([sent])
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


# Files that nobody knows


def leave(day: date, content: bytes = b"1") -> str:
    """A file as a caller leaves it whose transaction was rolled back on that day."""
    name = f"{ATTACHMENT_FOLDER}/{day}/{uuid_of(content)}"
    return attachment_storage().save(name, ContentFile(content))


def uuid_of(content: bytes) -> UUID:
    return UUID(bytes=content.ljust(16, b"\0"))


@pytest.fixture
def today() -> date:
    return timezone.now().date()


def test_the_file_of_a_caller_that_rolled_back_goes_two_days_later(
    today: date, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        queue(attachments=[("a", b"1")])
        raise RuntimeError
    assert not Message.objects.exists()
    (orphan,) = stored()
    (kept,) = queue(attachments=[("a", b"1")])
    outbox.remove_orphans(None)
    assert orphan in stored()
    later = timezone.now() + timedelta(days=2)
    monkeypatch.setattr(timezone, "now", lambda: later)
    assert outbox.remove_orphans(None) == today
    assert stored() == [Attachment.objects.get(message_id=kept).file.name]


def test_each_day_is_looked_through_once(today: date) -> None:
    days = [today - timedelta(days=ago) for ago in (5, 4, 3, 2, 1, 0)]
    names = [leave(day) for day in days]
    assert outbox.remove_orphans(days[1]) == days[3]
    assert sorted(stored()) == sorted([names[0], names[1], names[4], names[5]])
    assert outbox.remove_orphans(None) == days[3]
    assert sorted(stored()) == sorted(names[4:])


def test_an_orphan_that_is_stuck_is_tried_again_and_stops_nothing(
    today: date, files: type[Stubborn], caplog: pytest.LogCaptureFixture
) -> None:
    days = [today - timedelta(days=ago) for ago in (5, 4, 3)]
    names = [leave(day) for day in days]
    files.refusing = staticmethod(lambda asked: asked == names[1])
    looked_through = outbox.remove_orphans(None)
    assert looked_through == days[0]
    assert stored() == [names[1]]
    assert "cannot be deleted now: PermissionError" in caplog.text
    files.refusing = staticmethod(lambda asked: False)
    assert outbox.remove_orphans(looked_through) == today - timedelta(days=2)
    assert stored() == []


def test_files_of_others_are_left_alone(today: date) -> None:
    storage = attachment_storage()
    others = [
        storage.save(name, ContentFile(b"x"))
        for name in ("photos/1.jpg", f"{ATTACHMENT_FOLDER}/readme.txt", f"{ATTACHMENT_FOLDER}/notes/x.txt")
    ]
    outbox.remove_orphans(None)
    assert all(storage.exists(name) for name in others)


def test_a_storage_that_is_empty_or_cannot_list_is_no_trouble(
    settings: Any, monkeypatch: pytest.MonkeyPatch, today: date
) -> None:
    assert outbox.remove_orphans(None) == today - timedelta(days=2)
    store_in("django.core.files.storage.Storage", settings, monkeypatch)
    assert outbox.remove_orphans(None) == today - timedelta(days=2)


# What the worker does by itself


def test_the_workers_purge_drops_everything_that_is_due(today: date, published: list[str]) -> None:
    finish(queue(3, attachments=[("a", b"1")]), days=366)
    leave(today - timedelta(days=3))
    tasks.sweep(time.time())
    assert published == ["purge"]
    tasks.purge()
    assert not Message.objects.exists()
    assert stored() == []
    last = periodic.last_run(periodic.ORPHANS)
    assert last is not None
    assert last == datetime.combine(today - timedelta(days=2), datetime.min.time(), UTC)
    # The next one goes on where this one ended.
    name = leave(today - timedelta(days=3))
    tasks.purge()
    assert stored() == [name]


def test_a_purge_that_takes_long_goes_on_in_another_task(monkeypatch: pytest.MonkeyPatch, published: list[str]) -> None:
    monkeypatch.setattr(retention, "_CHUNK", 1)
    monkeypatch.setattr(tasks, "_PURGE_TIME", 0.0)
    finish(queue(3), days=31)
    tasks.purge()
    assert Message.objects.filter(content_dropped_at=None).count() == 2
    assert published == ["purge"]
    assert periodic.last_run(periodic.ORPHANS) is None
