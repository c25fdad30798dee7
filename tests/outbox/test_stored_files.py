"""Files of attachments: none is lost sight of, and each is deleted once and for all when nothing uses it any more."""

from __future__ import annotations

import textwrap
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings as django_settings
from django.core.files.base import ContentFile
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from congressy_mailer import Attachment as File
from congressy_mailer import Recipient, outbox, send_bulk, send_mail
from congressy_mailer.models import Attachment, Batch, Installation, Message, StoredFile, attachment_storage
from congressy_mailer.outbox import files as outbox_files
from congressy_mailer.outbox import retention
from congressy_mailer.submission import storing_once
from tests.conftest import database_url, run_concurrently
from tests.support.forked import least_environment, run_code
from tests.support.mails import queue
from tests.support.purging import finish, purge
from tests.support.storages import (
    Deadly,
    Forgetful,
    Overwriting,
    Stubborn,
    store_in,
    stored_paths,
    use_stubborn_storage,
)

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.database,
    pytest.mark.usefixtures("published"),
]

FILE = ("boleto.pdf", b"%PDF")


@pytest.fixture(autouse=True)
def storage(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Stubborn]:
    """A storage of the test's own, which cannot list."""
    return use_stubborn_storage(settings, monkeypatch, str(tmp_path))


def queue_with_file(count: int = 1, **options: Any) -> list[UUID]:
    return queue(count, **{"attachments": [FILE], **options})


def paths(ids: list[UUID]) -> list[str]:
    return sorted(str(one.file.name) for one in Attachment.objects.filter(message_id__in=ids))


def later(monkeypatch: pytest.MonkeyPatch, **passed: float) -> None:
    """The clock goes forward."""
    moment = timezone.now() + timedelta(**passed)
    monkeypatch.setattr(timezone, "now", lambda: moment)


def purge_for_days(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the workers do, until whoever uploaded something has given up for certain."""
    for _ in range(3):
        purge()
        later(monkeypatch, days=2, minutes=1)
    purge()


# Deleting what is not used any more


def test_a_file_has_a_row_from_its_upload_to_its_end() -> None:
    (key,) = queue_with_file()
    (row,) = StoredFile.objects.all()
    assert (row.uses, row.delete_at) == (1, None)
    assert stored_paths() == paths([key]) == [outbox.current_installation().path(row.pk)]
    finish([key])
    purge()
    assert stored_paths() == []
    assert not StoredFile.objects.exists()
    assert not Attachment.objects.exists()


def test_the_time_of_deletion_is_written_with_what_drops_the_content(monkeypatch: pytest.MonkeyPatch) -> None:
    (key,) = queue_with_file()
    finish([key])
    original = retention.release_files

    def killed(attachments: Any) -> Any:
        original(attachments)
        raise KeyboardInterrupt

    monkeypatch.setattr(retention, "release_files", killed)
    with pytest.raises(KeyboardInterrupt):
        outbox.purge()
    # All of it or nothing.
    assert Message.objects.get().text == "y"
    assert StoredFile.objects.get().delete_at is None
    monkeypatch.setattr(retention, "release_files", original)
    outbox.purge()
    assert Message.objects.get().text == ""
    assert StoredFile.objects.get().delete_at is not None
    # Whatever became of that worker, the next one goes by the row.
    assert stored_paths() != []
    outbox.delete_files()
    assert stored_paths() == []


def test_what_a_storage_refuses_is_tried_again_later_and_later_and_keeps_nothing_else(
    storage: type[Stubborn], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stuck, easy = queue_with_file(2)
    (name,) = paths([stuck])
    storage.refusing = staticmethod(lambda asked: asked == name)
    finish([stuck, easy], days=366)
    purge()
    assert stored_paths() == [name]
    # The rows of the mail are gone, and that of the file stays.
    assert not Message.objects.exists()
    row = StoredFile.objects.get()
    assert (row.attempts, row.error) == (1, "PermissionError: [Errno 13] Permission denied")
    assert "1 attachment files cannot be deleted now" in caplog.text
    waits = []
    for _ in range(8):
        before = timezone.now()
        purge()
        assert StoredFile.objects.get().attempts == row.attempts
        later(monkeypatch, seconds=(row.delete_at - before).total_seconds() + 1)
        purge()
        row = StoredFile.objects.get()
        waits.append(row.delete_at - timezone.now())
    assert storage.asked.count(name) == 9
    assert max(waits) <= timedelta(days=1, seconds=1)
    assert min(waits) > timedelta(seconds=4)
    storage.refusing = staticmethod(lambda asked: False)
    later(monkeypatch, days=1, minutes=1)
    purge()
    assert stored_paths() == []
    assert not StoredFile.objects.exists()


def test_files_that_are_stuck_never_stand_before_the_others(
    storage: type[Stubborn], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_files, "_CHUNK", 4)
    monkeypatch.setattr(outbox_files, "_MOST_FAILURES", 100)
    stuck = queue_with_file(9)
    names = paths(stuck)
    storage.refusing = staticmethod(lambda asked: asked in names)
    easy = queue_with_file(9)
    finish(stuck, days=40)
    finish(easy, days=35)
    purge()
    assert stored_paths() == names
    assert {storage.asked.count(name) for name in names} == {1}


def test_files_go_in_the_order_in_which_they_became_due(storage: type[Stubborn]) -> None:
    ids = queue_with_file(4)
    names = [paths([key])[0] for key in ids]
    for days, place in enumerate((2, 0, 3, 1)):
        finish([ids[place]], days=60 - days)
        outbox.purge()
    outbox.delete_files()
    assert storage.asked == [names[place] for place in (2, 0, 3, 1)]


def test_a_storage_that_is_away_is_not_asked_about_each_file(
    storage: type[Stubborn], caplog: pytest.LogCaptureFixture
) -> None:
    finish(queue_with_file(30))
    storage.refusing = staticmethod(lambda asked: True)
    purge()
    assert len(storage.asked) == outbox_files._MOST_FAILURES
    assert StoredFile.objects.filter(attempts=0).count() == 30 - outbox_files._MOST_FAILURES


def test_a_file_that_is_gone_already_is_no_trouble(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store_in(Forgetful, settings, monkeypatch)
    (key,) = queue_with_file()
    finish([key])
    purge()
    assert not StoredFile.objects.exists()


def test_purges_at_the_same_time_share_the_files(storage: type[Stubborn], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_CHUNK", 5)
    monkeypatch.setattr(outbox_files, "_CHUNK", 5)
    finish(queue_with_file(30))
    run_concurrently(lambda worker: purge(), 3)
    purge()
    assert stored_paths() == []
    assert sorted(storage.asked) == sorted(set(storage.asked))
    assert len(storage.asked) == 30


def test_the_last_two_that_share_a_file_may_be_dropped_at_the_same_moment() -> None:
    for _ in range(5):
        people = [Recipient(to=f"r{place}@example.com", attachments=[File(*FILE)]) for place in range(4)]
        send_bulk(people, subject="x", message="y")
        ids = list(Message.objects.filter(content_dropped_at=None).order_by("id").values_list("id", flat=True))
        finish(ids)
        run_concurrently(lambda worker, ids=ids: retention.drop_content([ids[worker]]), 4)
        assert not StoredFile.objects.filter(delete_at=None).exists()
        purge()
        assert stored_paths() == []


def test_a_file_stays_for_recipients_who_may_come_to_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def people(first: int) -> list[Recipient]:
        return [Recipient(to=f"r{first}@example.com", attachments=[File(*FILE)])]

    batch = send_bulk(people(0), subject="x", message="y", key="k")
    Batch.objects.update(stored_at=None)
    finish(list(batch.messages.values_list("id", flat=True)))
    monkeypatch.setattr(retention, "_drop_content_of_batches", lambda: 0)
    purge()
    (row,) = StoredFile.objects.all()
    assert row.uses == 0
    assert len(stored_paths()) == 1
    send_bulk(people(1), subject="x", message="y", key="k")
    row.refresh_from_db()
    assert (row.uses, row.delete_at) == (1, None)
    assert StoredFile.objects.count() == 1
    finish(list(batch.messages.values_list("id", flat=True)))
    purge()
    assert stored_paths() == []


def test_what_has_begun_to_be_deleted_is_shared_by_nobody(storage: type[Stubborn]) -> None:
    person = Recipient(to="ana@example.com", attachments=[File(*FILE)])
    batch = send_bulk([person], subject="x", message="y", key="k")
    finish(list(batch.messages.values_list("id", flat=True)))
    storage.refusing = staticmethod(lambda asked: True)
    purge()
    (old,) = stored_paths()
    Batch.objects.update(stored_at=None, content_dropped_at=None, subject="x", text="y")
    send_bulk([person, Recipient(to="bia@example.com", attachments=[File(*FILE)])], subject="x", message="y", key="k")
    (new,) = paths(list(batch.messages.values_list("id", flat=True)))
    assert new != old


def test_the_database_keeps_the_row_of_a_file_that_is_in_use() -> None:
    queue_with_file()
    with pytest.raises(IntegrityError), transaction.atomic():
        StoredFile.objects.all()._raw_delete("default")  # type: ignore[attr-defined]


# What nobody stored


def test_the_loser_of_a_race_gets_the_first_message_whatever_its_storage_says(
    storage: type[Stubborn], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.refusing = staticmethod(lambda asked: True)
    first = send_mail("x", "y", to="ana@example.com", idempotency_key="order-1", attachments=[FILE])
    answers = [None, first]
    monkeypatch.setattr(storing_once, "_find", lambda *arguments: answers.pop(0))
    assert send_mail("x", "y", to="ana@example.com", idempotency_key="order-1", attachments=[FILE]) == first
    assert StoredFile.objects.filter(delete_at__lte=timezone.now()).count() == 1
    storage.refusing = staticmethod(lambda asked: False)
    purge()
    assert stored_paths() == paths([first.pk])


def test_the_files_of_a_caller_that_rolled_back_go_some_days_later(monkeypatch: pytest.MonkeyPatch) -> None:
    (before,) = queue_with_file()
    for _ in range(2):
        with pytest.raises(RuntimeError), transaction.atomic():
            queue_with_file(3)
            raise RuntimeError
    (between,) = queue_with_file()
    with pytest.raises(RuntimeError), transaction.atomic():
        queue_with_file(2)
        raise RuntimeError
    assert len(stored_paths()) > 2
    purge_for_days(monkeypatch)
    assert stored_paths() == paths([before, between])
    # Nothing of it is looked at again.
    assert StoredFile.objects.count() == 2


def test_a_savepoint_that_is_rolled_back_takes_its_file_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with transaction.atomic():
        (kept,) = queue_with_file()
        with pytest.raises(RuntimeError), transaction.atomic():
            queue_with_file()
            raise RuntimeError
    purge_for_days(monkeypatch)
    assert stored_paths() == paths([kept])


def test_a_caller_that_is_still_storing_keeps_his_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers of its transaction have no rows that anybody sees."""
    if connection.vendor == "sqlite":
        # Whoever stores holds the whole database: the purge waits for him.
        return
    with transaction.atomic():
        (key,) = queue_with_file()

        def workers(worker: int) -> None:
            for _ in range(3):
                purge()

        run_concurrently(workers, 1)
        assert len(stored_paths()) == 1
    assert stored_paths() == paths([key])


def kill_a_caller(tmp_path: Path, statements: str, storage: str = "Stubborn") -> None:
    """Run statements in another process, which does not survive them."""
    backend = f"tests.support.storages.{storage}"
    program = f"""
        import os, signal
        os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
        from django.conf import settings
        settings.STORAGES = {{**settings.STORAGES, "default": {{
            "BACKEND": {backend!r}, "OPTIONS": {{"location": {str(tmp_path)!r}}}
        }}}}
        import django
        django.setup()
        from django.db import transaction
        from congressy_mailer import send_mail
        files = [("boleto.pdf", b"%PDF")]
    """
    environment = {
        **least_environment(), "DATABASE_URL": database_url(),
        "MAILER_TEST_DIRECTORY": str(django_settings.SCRATCH), "MAILER_TEST_WORKER": "1",
    }  # fmt: skip
    done = run_code(textwrap.dedent(program) + textwrap.dedent(statements), environment=environment)
    assert done.returncode == -9, done.stderr


def test_the_file_of_a_caller_that_was_killed_before_its_commit_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (kept,) = queue_with_file()
    kill_a_caller(
        tmp_path,
        """
        with transaction.atomic():
            send_mail("x", "y", to="ana@example.com", attachments=files)
            os.kill(os.getpid(), signal.SIGKILL)
        """,
    )
    assert Message.objects.count() == 1
    assert len(stored_paths()) == 2
    purge_for_days(monkeypatch)
    assert stored_paths() == paths([kept])


def test_the_file_of_a_caller_that_was_killed_between_upload_and_insert_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_a_caller(tmp_path, 'send_mail("x", "y", to="ana@example.com", attachments=files)', Deadly.__name__)
    assert not Message.objects.exists()
    assert len(stored_paths()) == 1
    purge()
    assert len(stored_paths()) == 1
    later(monkeypatch, days=2, minutes=1)
    purge()
    assert stored_paths() == []


def test_numbers_are_looked_at_some_at_a_time_and_once(
    storage: type[Stubborn], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_files, "_NUMBERS", 3)
    for turn in range(7):
        with transaction.atomic():
            queue_with_file()
            transaction.set_rollback(turn % 2 == 0)
    kept = paths(list(Message.objects.values_list("id", flat=True)))
    purge_for_days(monkeypatch)
    assert stored_paths() == kept
    asked = len(storage.asked)
    later(monkeypatch, minutes=1)
    purge()
    assert len(storage.asked) == asked
    assert not set(storage.asked) & set(kept)


@pytest.mark.parametrize("backend", [Stubborn, Overwriting])
def test_nothing_is_written_over_a_file_that_is_there(
    backend: type[Any], settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As a database has it that was restored from a backup, or copied: it gives the same numbers out again."""
    store_in(backend, settings, monkeypatch, location=str(tmp_path))
    (first,) = queue_with_file()
    number = Attachment.objects.get().stored_id
    installation = outbox.current_installation()
    theirs = [installation.path(number + ahead) for ahead in range(1, 3)]
    for name in theirs:
        attachment_storage().save(name, ContentFile(b"another mail's"))
    (second,) = queue_with_file()
    for name in theirs:
        with attachment_storage().open(name) as file:
            assert file.read() == b"another mail's"
    with Attachment.objects.get(message=second).file.open() as file:
        assert file.read() == b"%PDF"
    assert len(set(paths([first, second]))) == 2


def test_the_path_says_nothing_and_cannot_be_guessed() -> None:
    (key,) = queue_with_file()
    (path,) = paths([key])
    folder, installation, part, name = path.split("/")
    assert (folder, UUID(installation), part) == ("congressy_mailer", outbox.current_installation().key, part)
    assert int(part) == Attachment.objects.get().stored_id // 1000
    assert UUID(name).version == 4
    others = {Installation().path(7) for _ in range(20)}
    assert len({other.rpartition("/")[2] for other in others}) == 20
