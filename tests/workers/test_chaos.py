"""A short run of the chaos suite: the whole one is ``make chaos``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from congressy_mailer import send_mail
from congressy_mailer.models import Attachment, Message, State, attachment_storage
from tests.chaos.clocks import APART, clock_environment, find_faketime
from tests.chaos.journal import JournalWriter
from tests.chaos.mails import make_mail
from tests.chaos.stage import Kill
from tests.chaos.tally import Tally, measure_waits, take_tally

pytestmark = pytest.mark.once

_ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("on_crash", ["resend", "hold"])
def test_nothing_is_lost_and_nothing_repeated_but_by_a_kill(on_crash: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--database", "sqlite", "--on-crash", on_crash, "--messages", "600",
         "--seed", "20261", "--seconds", "60", "--rest", "180", "--keep", str(tmp_path / "run")],
        cwd=_ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    found = re.fullmatch(
        r"chaos: db=sqlite( on_crash=hold)? messages=600 kills=(\d+) lost=0 duplicated=(\d+) window=(\d+)ms", last
    )
    assert found, last
    assert int(found[2]) > 0
    # Not how long the window was: that is a time, and both processors may be busy. What counts is what was repeated.
    if on_crash == "hold":
        assert int(found[3]) == 0
    for fault in ("SIGQUIT", "SIGTERM", "slow tasks of the host"):
        assert re.search(rf"\d  {fault}", done.stdout), done.stdout
    assert "of mails whose reply had been read 0 were repeated" in done.stdout
    assert "clocks apart: not run, since SQLite has the clock of its host" in done.stdout
    assert re.search(r"\d  (cancel\(\) of a|send_bulk\(key=…\) goes on)", done.stdout), done.stdout
    beside = re.search(r"on the same broker and storage: (\d+) mails .*, 0 lost, .*, 0 files left", done.stdout)
    assert beside, done.stdout
    assert int(beside[1]) > 0
    files = re.search(r"files of attachments: (\d+), 0 of them lost", done.stdout)
    assert files
    assert int(files[1]) > 0


SEED = 1
MESSAGES = 30


@pytest.fixture
def journals(tmp_path: Path, published: list[str]) -> Path:
    """A folder with the journals of a run in which each mail was sent once."""
    with JournalWriter(tmp_path / "smtp.journal") as accepted, JournalWriter(tmp_path / "feeder.journal") as feeder:
        for number in range(MESSAGES):
            mail = make_mail(SEED, number)
            message = send_mail(**mail.arguments)
            feeder.write("committed", 90.0, mail.key)
            accepted.write("accepted", 100.0, "1", message.message_id, ",".join(mail.recipients), "99.990000")
    Message.objects.update(state=State.SENT, due_at=None)
    return tmp_path


def tally_of(journals: Path, *kills: Kill) -> Tally:
    return take_tally(SEED, MESSAGES, "resend", journals / "smtp.journal", journals / "feeder.journal", kills)


def first_message() -> Message:
    return Message.objects.get(idempotency_key=make_mail(SEED, 0).key)


def accept_again(journals: Path, at: float) -> int:
    """A second copy of the first mail; returns for how many recipients."""
    recipients = make_mail(SEED, 0).recipients
    with JournalWriter(journals / "smtp.journal") as journal:
        message_id = first_message().message_id
        journal.write("accepted", at, "2", message_id, ",".join(recipients), f"{at - 0.01:.6f}")
    return len(recipients)


@pytest.mark.django_db
def test_a_run_in_which_each_mail_was_sent_once_passes(journals: Path) -> None:
    tally = tally_of(journals)
    assert tally.passed
    assert (tally.states["sent"], tally.duplicated) == (MESSAGES, 0)
    assert tally.files > 0


@pytest.mark.django_db
def test_a_mail_that_no_server_has_taken_is_lost(journals: Path) -> None:
    lines = (journals / "smtp.journal").read_text().splitlines(keepends=True)
    (journals / "smtp.journal").write_text("".join(lines[1:]))
    tally = tally_of(journals)
    assert not tally.passed
    assert [line.split(":")[0] for line in tally.lost] == [make_mail(SEED, 0).key]


@pytest.mark.django_db
def test_a_mail_that_is_not_in_the_outbox_is_lost(journals: Path) -> None:
    first_message().delete()
    assert any("committed, and not in the outbox" in line for line in tally_of(journals).lost)


@pytest.mark.django_db
@pytest.mark.parametrize("killed_at", [None, 90.0, 100.5, 100.05])
def test_a_second_copy_is_explained_by_a_kill_at_that_moment_and_by_nothing_else(
    journals: Path, killed_at: float | None
) -> None:
    copies = accept_again(journals, 110.0)
    tally = tally_of(journals, *([Kill("worker", killed_at, killed_at)] if killed_at else []))
    explained = killed_at == 100.05
    assert tally.duplicated == copies
    assert tally.passed == explained
    assert len(tally.unexplained) == (0 if explained else copies)
    assert tally.repeated["worker"] == (copies if explained else 0)


@pytest.mark.django_db
@pytest.mark.parametrize(("written_until", "explained"), [(100.6, True), (100.2, False)])
def test_a_copy_is_explained_by_a_kill_before_a_caller_let_anybody_write_on_sqlite(
    journals: Path, written_until: float, explained: bool
) -> None:
    accept_again(journals, 110.0)
    with JournalWriter(journals / "feeder.journal") as journal:
        journal.write("wrote", 99.9, f"{written_until}")
    assert tally_of(journals, Kill("worker", 100.7, 100.7)).passed == explained


@pytest.mark.django_db
@pytest.mark.parametrize("number", ["1", "2"])
def test_a_second_copy_of_a_mail_whose_reply_had_been_read_is_explained_by_nothing(journals: Path, number: str) -> None:
    copies = accept_again(journals, 110.0)
    with JournalWriter(journals / "smtp.journal") as journal:
        journal.write("read", 100.01, number)
    tally = tally_of(journals, Kill("worker", 100.05, 100.05))
    # What becomes of the last one is no matter.
    assert tally.passed == (number == "2")
    assert len(tally.repeated_after_reply) == (copies if number == "1" else 0)
    assert tally.unexplained == []


@pytest.mark.django_db
@pytest.mark.parametrize(("connections", "passed"), [(2, True), (1, False)])
def test_one_kill_repeats_one_mail_of_each_connection_at_the_most(
    journals: Path, connections: int, passed: bool
) -> None:
    with JournalWriter(journals / "smtp.journal") as journal:
        journal.write("open", 99.0, str(connections))
        for number in range(2):
            mail = make_mail(SEED, number)
            message = Message.objects.get(idempotency_key=mail.key)
            journal.write("accepted", 110.0, f"again {number}", message.message_id, ",".join(mail.recipients), "109.9")
    tally = tally_of(journals, Kill("worker", 100.05, 100.05))
    assert tally.most_by_a_kill == 2
    assert tally.passed == passed


@pytest.mark.django_db
def test_a_mail_that_nobody_has_committed_is_seen(journals: Path) -> None:
    message = send_mail("never", "x", to="never@example.com")
    Message.objects.filter(pk=message.pk).update(state=State.SENT, due_at=None)
    assert not tally_of(journals).passed


@pytest.mark.django_db
@pytest.mark.parametrize(("accepted", "passed"), [(False, True), (True, False)])
def test_a_mail_that_the_host_has_cancelled_is_neither_lost_nor_sent(
    journals: Path, accepted: bool, passed: bool
) -> None:
    Message.objects.filter(pk=first_message().pk).update(state=State.CANCELLED)
    with JournalWriter(journals / "feeder.journal") as journal:
        journal.write("cancelled", 105.0, make_mail(SEED, 0).key)
    if accepted:
        accept_again(journals, 110.0)
    assert tally_of(journals, Kill("worker", 100.0, 100.0)).passed == passed


@pytest.mark.django_db
def test_a_file_that_is_gone_is_seen(journals: Path) -> None:
    attachment = Attachment.objects.first()
    assert attachment is not None
    attachment_storage().delete(attachment.file.name)
    tally = tally_of(journals)
    assert not tally.passed
    assert len(tally.files_lost) == 1


@pytest.mark.django_db
@pytest.mark.parametrize(("arrived", "files_left", "passed"), [(True, 0, True), (False, 0, False), (True, 1, False)])
def test_a_mail_of_the_project_beside_it_that_is_lost_and_a_file_that_stays_are_seen(
    journals: Path, arrived: bool, files_left: int, passed: bool
) -> None:
    with JournalWriter(journals / "neighbour.journal") as theirs, JournalWriter(journals / "smtp.journal") as accepted:
        theirs.write("stored", 90.0, "other-0@example.com")
        theirs.write("left", 120.0, str(files_left))
        if arrived:
            accepted.write("accepted", 100.0, "1", "<theirs@example.com>", "other-0@example.com", "99.990000")
    paths = (journals / name for name in ("smtp.journal", "feeder.journal"))
    tally = take_tally(SEED, MESSAGES, "resend", *paths, [], journals / "neighbour.journal")
    assert tally.passed == passed
    assert tally.neighbours == 1


@pytest.mark.skipif(find_faketime() is None, reason="libfaketime is not installed")
@pytest.mark.parametrize("ahead", [APART, -APART])
def test_a_process_whose_clock_is_apart_sleeps_and_waits_as_any_other(ahead: timedelta) -> None:
    library = find_faketime()
    assert library is not None
    program = (
        "import queue, time; from tests.chaos.clocks import sleep; sleep(0.01); waiting = queue.SimpleQueue()\n"
        "try: waiting.get(timeout=0.01)\n"
        "except queue.Empty: print(time.time())"
    )
    environment = {**os.environ, **clock_environment(library, ahead)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=_ROOT, env=environment, capture_output=True, text=True, timeout=60,
        check=True,
    )  # fmt: skip
    assert abs(float(done.stdout) - time.time() - ahead.total_seconds()) < 60


def test_a_statement_that_goes_on_when_the_host_commits_has_waited_for_it(tmp_path: Path) -> None:
    with JournalWriter(tmp_path / "feeder.journal") as held, JournalWriter(tmp_path / "statements.journal") as journal:
        held.write("held", 100.0, "105.000000", "cancel() of a message")
        journal.write("statement", 99.0, "99.500000", "before it")
        journal.write("statement", 101.0, "101.200000", "slow, but not for it")
        journal.write("statement", 102.0, "105.010000", "waits")
    tally = Tally("resend", [])
    measure_waits(tally, tmp_path / "feeder.journal", tmp_path / "statements.journal")
    assert tally.waited_for_host == ["3.01 s: waits"]
    assert round(tally.longest_wait, 2) == 3.01
    assert round(tally.longest_held, 2) == 5.0
