"""What a worker process has noted of accepted mails is recorded by whoever recovers its claims on the same host."""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError
from django.test import override_settings
from django.utils import timezone

from congressy_mailer import outbox, signals
from congressy_mailer.conf import mailer_settings
from congressy_mailer.delivery.noting import Notes, noting
from congressy_mailer.models import Event, Message, State
from congressy_mailer.outbox import journal_folder
from congressy_mailer.replies import Outcome, Reply
from tests.support.mails import queue

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database]

REPLY = Reply(250, "2.0.0 OK 1/2")
#: A process that is gone, of another host.
GONE = "task:01234567-1-1:01234567"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, published: list[str]) -> Iterator[Path]:
    """Journals lie in a directory of the test's own."""
    journal_folder.close_journals()
    with override_settings(CONGRESSY_MAILER={"JOURNAL_DIRECTORY": tmp_path / "journals"}):
        yield Path(journal_folder.directory())
        journal_folder.close_journals()


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From here on this process is gone, for whoever looks for it."""

    def leave() -> None:
        monkeypatch.setattr("congressy_mailer.outbox.recovery.owner_is_gone", lambda token: True)

    return leave


def claim(notes_for: Callable[[str], Notes], *ids: UUID) -> tuple[Notes, list[Message]]:
    token = outbox.new_claim_token("task")
    return notes_for(token), outbox.claim(ids, token)


@pytest.fixture
def notes_for() -> Iterator[Callable[[str], Notes]]:
    with ExitStack() as stack:
        yield lambda token: stack.enter_context(noting(token))


def accepted(message: Message, *recipients: str, **values: Any) -> Outcome:
    return Outcome(message.id, recipients or tuple(message.envelope), reply=REPLY, **values)


def sweep() -> list[UUID]:
    return outbox.sweep(timezone.now())


def files(directory: Path) -> list[str]:
    return sorted(os.listdir(directory)) if directory.exists() else []


def test_what_was_accepted_is_recorded_and_only_the_rest_is_sent_again(
    notes_for: Callable[[str], Notes], gone: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "congressy_mailer.outbox")
    notes, (taken, other) = claim(notes_for, *sorted(queue(2)))
    before = timezone.now()
    notes.note(taken, accepted(taken))
    told: list[tuple[UUID, str]] = []

    def tell(message: Message, **options: object) -> None:
        told.append((message.pk, message.state))

    gone()
    signals.sent.connect(tell, sender=Message)
    try:
        assert sweep() == [other.id]
    finally:
        signals.sent.disconnect(tell, sender=Message)
    taken.refresh_from_db()
    other.refresh_from_db()
    assert (taken.state, taken.reply, taken.attempts, taken.crashes) == (State.SENT, str(REPLY), 1, 0)
    assert (taken.token, taken.due_at, taken.remaining) == ("", None, None)
    assert taken.sent_at is not None
    assert taken.finished_at is not None
    assert before <= taken.sent_at <= taken.finished_at
    assert (other.state, other.crashes) == (State.QUEUED, 1)
    assert told == [(taken.id, State.SENT)]
    assert not taken.events.exists()
    assert "1 messages whose worker has died" in caplog.text


def test_no_letter_of_a_reply_keeps_a_database_from_recording_it(
    notes_for: Callable[[str], Notes], gone: Callable[[], None]
) -> None:
    notes, (taken, other) = claim(notes_for, *sorted(queue(2)))
    notes.note(taken, Outcome(taken.id, tuple(taken.envelope), reply=Reply(250, "recebido, coração \u2713")))
    gone()
    assert sweep() == [other.id]
    taken.refresh_from_db()
    assert (taken.state, taken.reply) == (State.SENT, r"250 recebido, cora\xe7\xe3o \u2713")


def test_it_is_read_before_a_task_that_was_given_out_again_claims(
    notes_for: Callable[[str], Notes], gone: Callable[[], None]
) -> None:
    (key,) = queue()
    notes, (taken,) = claim(notes_for, key)
    notes.note(taken, accepted(taken))
    gone()
    assert outbox.claim([key], outbox.new_claim_token("task"), redelivered=True) == []
    taken.refresh_from_db()
    assert taken.state == State.SENT


def test_it_is_read_of_a_process_that_is_alive_where_its_lease_is_over(notes_for: Callable[[str], Notes]) -> None:
    notes, (taken,) = claim(notes_for, *queue())
    notes.note(taken, accepted(taken))
    Message.objects.update(due_at=timezone.now())
    assert sweep() == []
    taken.refresh_from_db()
    assert taken.state == State.SENT
    # It is late, and changes nothing.
    outbox.record_accepted(taken.token, [(taken, Reply(250, "another"))])
    taken.refresh_from_db()
    assert taken.reply == str(REPLY)


def test_of_several_recipients_those_who_have_it_are_left_out(
    notes_for: Callable[[str], Notes], gone: Callable[[], None]
) -> None:
    (key,) = queue(to=["ana@example.com", "eva@example.com", "rui@example.com"])
    notes, (taken,) = claim(notes_for, key)
    later = {"eva@example.com": Reply(451, "4.7.1 later")}
    notes.note(taken, accepted(taken, "ana@example.com", "rui@example.com", deferred=later))
    gone()
    assert sweep() == [key]
    taken.refresh_from_db()
    assert (taken.state, taken.remaining, taken.crashes) == (State.QUEUED, ["eva@example.com"], 0)
    assert taken.sent_at is not None
    (again,) = outbox.claim([key], outbox.new_claim_token("task"))
    assert again.envelope == ["eva@example.com"]


@override_settings(CONGRESSY_MAILER={"ON_CRASH": "hold"})
def test_where_a_crash_leaves_it_to_a_person_what_was_accepted_is_no_question(
    tmp_path: Path, gone: Callable[[], None]
) -> None:
    with override_settings(CONGRESSY_MAILER={"ON_CRASH": "hold", "JOURNAL_DIRECTORY": tmp_path}), ExitStack() as stack:
        notes, messages = claim(lambda token: stack.enter_context(noting(token)), *queue(2))
        outbox.start_handover(messages[0].token, [message.id for message in messages])
        notes.note(messages[0], accepted(messages[0]))
        gone()
        assert sweep() == []
    assert [Message.objects.get(pk=message.pk).state for message in messages] == [State.SENT, State.HELD]


def test_the_content_of_a_sensitive_mail_goes_as_it_does_otherwise(
    notes_for: Callable[[str], Notes], gone: Callable[[], None]
) -> None:
    notes, (taken,) = claim(notes_for, *queue(sensitive=True))
    notes.note(taken, accepted(taken))
    gone()
    sweep()
    taken.refresh_from_db()
    assert (taken.state, taken.text) == (State.SENT, "")


def test_what_is_recorded_is_said_no_more(notes_for: Callable[[str], Notes], directory: Path) -> None:
    notes, (one, two) = claim(notes_for, *queue(2))
    notes.note(one, accepted(one))
    notes.note(two, accepted(two))
    notes.note(two, accepted(two))
    (name,) = files(directory)
    claims = {one.id: one.token, two.id: two.token}
    assert journal_folder.acceptances_of(claims).keys() == claims.keys()
    notes.forget([one.id])
    assert journal_folder.acceptances_of(claims).keys() == {two.id}
    notes.forget([two.id])
    assert journal_folder.acceptances_of(claims) == {}
    # Nobody has it but who may.
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600


def test_a_refusal_is_not_noted(notes_for: Callable[[str], Notes]) -> None:
    notes, (message,) = claim(notes_for, *queue())
    later = {"ana@example.com": Reply(451, "4.7.1 later")}
    notes.note(message, Outcome(message.id, deferred=later, in_doubt=True))
    assert journal_folder.acceptances_of({message.id: message.token}) == {}


def test_another_claim_of_the_same_message_is_another_matter(
    notes_for: Callable[[str], Notes], gone: Callable[[], None]
) -> None:
    (key,) = queue()
    notes, (taken,) = claim(notes_for, key)
    notes.note(taken, accepted(taken))
    # By another host, after the lease.
    Message.objects.update(state=State.QUEUED, token="", due_at=timezone.now())
    outbox.claim([key], outbox.new_claim_token("task"))
    gone()
    assert sweep() == [key]


def test_an_outbox_in_another_database_has_a_directory_of_its_own(
    monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    from django.db import connection

    monkeypatch.setitem(connection.settings_dict, "NAME", "another")
    assert Path(journal_folder.directory()).parent == directory.parent
    assert Path(journal_folder.directory()) != directory
    monkeypatch.undo()
    with override_settings(SECRET_KEY="another"):
        assert Path(journal_folder.directory()) != directory
    assert Path(journal_folder.directory()) == directory


# Tasks, one after another and at the same time


def test_a_task_uses_the_journal_of_the_task_before_and_two_at_once_have_two(directory: Path) -> None:
    for _ in range(3):
        with noting(GONE):
            pass
    assert len(files(directory)) == 1
    with noting(GONE), noting(GONE):
        assert len(files(directory)) == 2
    with noting(GONE):
        assert len(files(directory)) == 2
    journal_folder.close_journals()
    assert files(directory) == []


def test_a_journal_that_somebody_has_removed_is_made_again(directory: Path, notes_for: Callable[[str], Notes]) -> None:
    with noting(GONE):
        (name,) = files(directory)
        (directory / name).unlink()
    notes, (message,) = claim(notes_for, *queue())
    notes.note(message, accepted(message))
    assert journal_folder.acceptances_of({message.id: message.token}).keys() == {message.id}


def test_a_child_leaves_its_parents_journal_alone(directory: Path) -> None:
    with noting(GONE):
        child = os.fork()
        if not child:
            status = 1
            try:
                opened = [os.path.realpath(file) for file in Path("/proc/self/fd").iterdir()]
                journal_folder.remove_ended_journals()
                held = [path for path in opened if path.startswith(str(directory))]
                status = 0 if not held and len(files(directory)) == 1 else 1
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        assert status == 0
        assert len(files(directory)) == 1


def test_what_could_not_be_recorded_is_recorded_by_the_next_task() -> None:
    token = outbox.new_claim_token("task")
    (taken,) = outbox.claim(queue(), token)
    with noting(token) as notes:
        notes.note(taken, accepted(taken))
        # The database is away here, until the lease ends.
    with noting(outbox.new_claim_token("task")):
        taken.refresh_from_db()
        assert taken.state == State.SENT
        assert journal_folder.acceptances_of({taken.id: token}) == {}


def test_it_is_kept_while_the_database_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    token = outbox.new_claim_token("task")
    (taken,) = outbox.claim(queue(), token)
    with noting(token) as notes:
        notes.note(taken, accepted(taken))

    def fail(acceptance: object) -> None:
        raise OperationalError("away")

    with monkeypatch.context() as patch:
        patch.setattr(outbox, "record_noted", fail)
        with noting(outbox.new_claim_token("task")):
            assert journal_folder.acceptances_of({taken.id: token}).keys() == {taken.id}


# What the dead have left


def leave(directory: Path, *messages: tuple[UUID, str], name: str = "01234567-1-1.00") -> Path:
    """What a process that is gone has left."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / name
    journal = outbox.Journal(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    for key, token in messages:
        journal.note(outbox.Acceptance(key, outbox.claim_digest(token), time.time(), REPLY))
    journal.close()
    return path


def test_what_is_recorded_or_says_nothing_is_removed(directory: Path) -> None:
    (key,) = queue()
    leave(directory, name="01234567-1-1.00")
    leave(directory, (key, GONE), name="01234567-1-1.01")
    with noting(GONE):
        mine = set(files(directory)) - {"01234567-1-1.00", "01234567-1-1.01"}
        outbox.remove_ended_journals()
        # That of a process that lives stays.
        assert set(files(directory)) == mine
        assert len(mine) == 1


def test_what_is_not_recorded_yet_stays(directory: Path) -> None:
    (key,) = queue()
    outbox.claim([key], GONE)
    leave(directory, (key, GONE))
    outbox.remove_ended_journals()
    assert len(files(directory)) == 1
    Message.objects.update(due_at=timezone.now())
    assert sweep() == []
    assert Message.objects.get().state == State.SENT
    outbox.remove_ended_journals()
    assert files(directory) == []


def test_what_is_of_nobody_known_here_stays_for_a_week(directory: Path) -> None:
    path = leave(directory, (uuid4(), GONE))
    outbox.remove_ended_journals()
    assert path.exists()
    os.utime(path, (0, time.time() - journal_folder.LONGEST_KEPT - 60))
    outbox.remove_ended_journals()
    assert not path.exists()


def test_what_is_no_journal_is_neither_read_nor_removed(directory: Path, tmp_path: Path) -> None:
    (key,) = queue()
    outbox.claim([key], GONE)
    path = leave(directory, (key, GONE))
    elsewhere = path.rename(tmp_path / "elsewhere")
    path.symlink_to(elsewhere)
    os.mkfifo(directory / "01234567-1-1.01", 0o600)
    (directory / "01234567-1-1.02").mkdir(0o700)
    # Others may have written in it.
    elsewhere.with_name("open").write_bytes(elsewhere.read_bytes())
    (elsewhere.with_name("open")).rename(directory / "01234567-1-1.03")
    (directory / "01234567-1-1.03").chmod(0o666)
    (directory / "notes").write_text("of somebody's")
    there = files(directory)
    assert journal_folder.acceptances_of({key: GONE}) == {}
    outbox.remove_ended_journals()
    assert files(directory) == there


@pytest.mark.parametrize("content", [b"", b"mailer\x00\x01", b"\xff" * 5000])
def test_a_damaged_journal_leaves_the_mail_as_it_would_be_without(directory: Path, content: bytes) -> None:
    (key,) = queue()
    outbox.claim([key], GONE)
    leave(directory, (key, GONE)).write_bytes(content)
    Message.objects.update(due_at=timezone.now())
    assert sweep() == [key]


@pytest.mark.parametrize("at", [-1e300, 1e300, 0.0])
def test_a_time_that_cannot_be_is_none_that_stops_anything(directory: Path, at: float) -> None:
    (key,) = queue()
    outbox.claim([key], GONE)
    path = leave(directory)
    with path.open("rb+") as file:
        journal = outbox.Journal(os.dup(file.fileno()))
        journal.note(outbox.Acceptance(key, outbox.claim_digest(GONE), at, REPLY))
        journal.close()
    Message.objects.update(due_at=timezone.now())
    assert sweep() == []
    message = Message.objects.get()
    assert message.sent_at is not None
    assert message.sent_at <= timezone.now()


# Where there can be none


def test_without_a_directory_all_is_as_it_was(gone: Callable[[], None], tmp_path: Path) -> None:
    with override_settings(CONGRESSY_MAILER={"JOURNAL_DIRECTORY": None}), ExitStack() as stack:
        assert journal_folder.directory() == ""
        notes, (message,) = claim(lambda token: stack.enter_context(noting(token)), *queue())
        notes.note(message, accepted(message))
        notes.forget([message.id])
        gone()
        assert sweep() == [message.id]
        outbox.remove_ended_journals()


def no_directory(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("")


def link(path: Path) -> None:
    elsewhere = path.parent.with_name("elsewhere")
    elsewhere.mkdir(0o700)
    path.parent.mkdir()
    path.symlink_to(elsewhere)


def open_to_all(path: Path) -> None:
    path.mkdir(parents=True)
    path.chmod(0o755)


def parent_is_a_file(path: Path) -> None:
    path.parent.write_text("")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (no_directory, "is not a directory, or is a symbolic link"),
        (link, "is not a directory, or is a symbolic link"),
        (open_to_all, "is open to other users: its mode must be 0700"),
        (parent_is_a_file, "FileExistsError"),
    ],
)
def test_an_unusable_directory_is_told_once_and_stops_no_mail(
    spoil: Callable[[Path], None], words: str, directory: Path, gone: Callable[[], None],
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(journal_folder, "_PAUSE", 0.0)
    spoil(directory)
    for _ in range(3):
        with noting(token := outbox.new_claim_token("task")) as notes:
            (message,) = outbox.claim(queue(), token)
            notes.note(message, accepted(message))
            outbox.record_accepted(token, [(message, REPLY)])
            notes.forget([message.id])
    gone()
    sweep()
    outbox.remove_ended_journals()
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 1
    assert words in told[0]
    assert "Mails leave all the same" in told[0]


def test_a_directory_of_another_user_is_not_used(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(directory)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with (
        pytest.raises(journal_folder.UnusableDirectory, match="belongs to another user"),
        journal_folder.open_directory(str(directory)),
    ):
        pass


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_stops_no_mail(
    number: int, notes_for: Callable[[str], Notes], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    notes, messages = claim(notes_for, *queue(4))
    notes.note(messages[0], accepted(messages[0]))

    def full(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    claims = {message.id: message.token for message in messages}
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        for message in messages[1:]:
            notes.note(message, accepted(message))
        assert journal_folder.acceptances_of(claims).keys() == {messages[0].id}
        # What is recorded cannot be marked as that: better nothing than what is not true any more.
        notes.forget([messages[0].id])
        assert journal_folder.acceptances_of(claims) == {}
    assert [record.levelno for record in caplog.records if "No journal can be kept" in record.getMessage()] == [
        logging.WARNING
    ]
    assert os.strerror(number) in caplog.text


@pytest.mark.parametrize("value", ["relative", "", 5, True, b"/a", "/a\0b"])
def test_only_an_absolute_path_is_one(value: object) -> None:
    with (
        override_settings(CONGRESSY_MAILER={"JOURNAL_DIRECTORY": value}),
        pytest.raises(ImproperlyConfigured, match="JOURNAL_DIRECTORY"),
    ):
        mailer_settings()


def test_events_tell_only_of_those_that_were_not_accepted(
    notes_for: Callable[[str], Notes], gone: Callable[[], None]
) -> None:
    notes, (taken, other) = claim(notes_for, *sorted(queue(2)))
    notes.note(taken, accepted(taken))
    gone()
    sweep()
    assert list(Event.objects.values_list("message_id", "type")) == [(other.id, Event.Type.CRASHED)]
